"""A study runs arms behind shared stages, leaves to another process what that works on, and reports what has finished."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_modules.composing.recipes import NO_SETTINGS
from lightning_modules.folders.ownership import hold
from lightning_modules.jobs.study import BEGIN, END, collect, fill_page, write_tables
from lightning_modules.loops.curriculum import REFERENCE, check_stages, compose_job
from lightning_modules.loops.study import run_arm
from plait.errors import CheckpointError, RecipeError

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "conf" / "experiment").rglob("study_*.yaml"))
CURRICULA = sorted((ROOT / "conf" / "curriculum").glob("*.yaml"))
WRITE = "tests.lightning_modules.stub_jobs.write"
SHARED = [{"name": "one", "overrides": [f"job={{_target_:{WRITE},folder:${{paths.folder}},value:1}}"]}]
STAGES = [
    {"name": "two", "overrides": [f"job={{_target_:{WRITE},folder:${{paths.folder}},value:10,reads:study/shared/one}}"]},
    {"name": "three", "overrides": [f"job={{_target_:{WRITE},folder:${{paths.folder}},value:100,reads:<two>}}"]},
]
ARMS = {"plain": [], "more": ["job.value=20"]}


@pytest.fixture(autouse=True)
def _own_root(monkeypatch, tmp_path):
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")
    monkeypatch.chdir(tmp_path)


def run(arm: str, seed: int, **changes) -> bool:
    settings = {"arms": ARMS, "seeds": [1, 2], "reference": "plain", "shared": SHARED, "stages": STAGES, "overrides": []}
    return run_arm(name="study", folder="study", arm=arm, seed=seed, **(settings | changes))


def test_arms_share_what_comes_before_them_and_are_skipped_when_finished():
    assert all([run("plain", 1), run("more", 2), run("more", 2)])
    assert Path("study/shared/one/times.txt").read_text().count("ran") == 1
    assert Path("study/more/seed-2/three/times.txt").read_text().count("ran") == 1
    assert Path("study/plain/seed-1/three/value.txt").read_text() == "111"
    # what an arm says holds in every stage of it that trains
    assert Path("study/more/seed-2/three/value.txt").read_text() == "41"
    for name in ("two", "three"):
        assert "seed: 2" in Path(f"study/more/seed-2/{name}/config.yaml").read_text()


def test_overrides_about_the_study_itself_stay_out_of_its_stages():
    given = ["experiment=liquid/study_composition", "arm=more", "seed=7", "+job.plan=x", "trainer.max_steps=3"]
    run("plain", 1, overrides=given)
    config = OmegaConf.load("study/plain/seed-1/two/config.yaml")
    assert (config.seed, config.trainer.max_steps) == (1, 3)


def test_an_arm_that_another_process_works_on_is_left_to_it():
    with hold(Path("study/plain/seed-1")) as is_mine:
        assert is_mine
        assert not run("plain", 1)
        assert run("plain", 2)
    assert not Path("study/plain/seed-1/two").exists()
    assert run("plain", 1)


def test_an_unknown_arm_names_those_that_there_are():
    with pytest.raises(RecipeError, match=r"no arm 'best' with seed 1: expected one of \['plain', 'more'\]"):
        run("best", 1)


def list_told(path: Path, seed: int) -> list[str]:
    """Every override that the stages and arms of a curriculum or study are given, with one seed in a folder of its own."""
    is_study = path in STUDIES
    name = f"experiment={path.parent.name}/{path.stem}" if is_study else f"curriculum={path.stem}"
    config = compose_job("train", [name, f"seed={seed}", f"paths.root=root-{seed}", f"paths.folder=root-{seed}/all"])
    job = {
        key: OmegaConf.to_container(config.job[key], resolve=True) for key in ("arms", "shared", "stages") if key in config.job
    }
    stages = [stage for stage in (*job.get("shared", ()), *job["stages"]) if stage.get("config") != "report"]
    words = [item for own in (*job.get("arms", {}).values(), *(stage["overrides"] for stage in stages)) for item in own]
    return [REFERENCE.sub(f"root-{seed}", item) for item in words]


@pytest.mark.parametrize("path", [*STUDIES, *CURRICULA], ids=lambda path: path.stem)
def test_two_seeds_in_two_folders_are_one_configuration(path: Path):
    """What they are told differs in nothing that counts as a setting: `plait-compare` would call them two configurations."""
    differ = [one for one, other in zip(list_told(path, 1), list_told(path, 2), strict=True) if one != other]
    assert not [item for item in differ if item.lstrip("+~").partition("=")[0].partition(".")[0] not in NO_SETTINGS]


def write_run(arm: str, seed: int, right: list[int]) -> None:
    """What `collect` reads of a finished arm."""
    place = Path("study", arm, f"seed-{seed}")
    scores = [{"expected": str(i), "found": "", "cluster": str(i), "scores": {"all": value}} for i, value in enumerate(right)]
    cost = {"id": f"{arm}{seed}", "duration_s": 100.0, "state": "finished"}
    passport = {"code": {"commit": "abc", "changed": []}, "state": "finished"}
    ledger = {"rows": [], "digests": {}}
    row = {"step": 1, "perf/rate_tokens_per_s": 10.0, "perf/step_duration_s": 2.0}
    files = {"evaluation/items.json": {"val/captions": scores}, "evaluation/job.json": cost, "pretraining/job.json": cost}
    files["evaluation/lineage.json"] = {"parents": [{"part": "model", "job": cost["id"]}]}
    files |= {"evaluation/summary.json": {"policy/image": "one"}, "pretraining/passport.json": passport}
    files |= {"pretraining/ledger.json": ledger, "pretraining/metrics.jsonl": row}
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(json.dumps(content))


def collect_all() -> dict:
    return collect(name="study", folder="study", arms=ARMS, seeds=[1, 2], reference="plain", report="report")


def test_results_hold_what_has_finished_and_name_what_has_not():
    assert collect_all() == {}
    write_run("plain", 1, [0, 1])
    write_run("more", 2, [1, 1])
    Path("report").mkdir()
    Path("report/README.md").write_text(f"A question.\n{BEGIN}\nold\n{END}\nLimits.\n")
    results = collect_all()
    assert results["missing"] == ["plain/seed-2", "more/seed-1"]
    assert results["arms"]["more"]["runs"]["2"]["id"] == "more2"
    assert results["arms"]["more"]["runs"]["2"]["commit"] == "abc"
    assert results["arms"]["more"]["figures"]["val/captions"]["minus_reference"]["value"] == 0.5
    assert json.loads(Path("report/results.json").read_text())["arms"]["more"]["overrides"] == ["job.value=20"]
    page = Path("report/README.md").read_text()
    assert page.startswith("A question.\n")
    assert page.endswith(f"{END}\nLimits.\n")
    assert "old" not in page
    assert "| val/captions | 2 | 0.50 [" in page
    assert "| tokens | 40 | 40 |" in page


@pytest.mark.parametrize("change", [{"state": "running"}, {"id": "another run"}], ids=["trains anew", "trained anew"])
def test_what_a_later_run_has_replaced_is_not_collected(change):
    """A study whose config has changed is run again over its old folders, and collects after every arm."""
    for seed in (1, 2):
        write_run("plain", seed, [0, 1])
    job = Path("study/plain/seed-2/pretraining/job.json")
    job.write_text(json.dumps(json.loads(job.read_text()) | change))
    for name in ("text", "text.old-1"):
        write_curve(Path("study/shared", name), [0.0])
    results = collect_all()
    assert results["missing"] == ["plain/seed-2", "more/seed-1", "more/seed-2"]
    assert list(results["shared"]) == ["text"]


def test_the_sheet_of_an_arm_is_of_unseen_cells_or_else_of_unseen_pairs():
    for seed, names in ((1, ["test_pair-two_objects"]), (2, ["test_pair-two_objects", "test_combo-two_objects"])):
        write_run(list(ARMS)[seed - 1], seed, [0, 1])
        sheets = Path("study", list(ARMS)[seed - 1], f"seed-{seed}", "evaluation", "sheets")
        sheets.mkdir()
        for name in names:
            (sheets / f"{name}.png").write_text(name)
    collect_all()
    assert Path("report/plain.png").read_text() == "test_pair-two_objects"
    assert Path("report/more.png").read_text() == "test_combo-two_objects"


LEDGER_ROW = {"part": "backbone", "parameters": 1, "tensors": 1, "is_trainable": True}


def write_curve(place: Path, values: list[float], id: str = "base") -> None:
    """Ten tokens per step, of one trained parameter; an examination every step."""
    place.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": step, "perf/rate_tokens_per_s": 5.0, "perf/step_duration_s": 2.0, "examination/val/captions": value}
        for step, value in enumerate(values)
    ]
    (place / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (place / "ledger.json").write_text(json.dumps({"rows": [LEDGER_ROW], "digests": {}}))
    (place / "job.json").write_text(json.dumps({"id": id, "duration_s": 1.0, "state": "finished"}))
    (place / "passport.json").write_text(json.dumps({"code": {"commit": "abc", "changed": []}, "state": "finished"}))


def test_costs_of_a_level_are_compared_with_and_without_what_the_base_had_cost():
    for seed in (1, 2):
        write_run("plain", seed, [0, 1])
        write_run("more", seed, [1, 1])
        write_curve(Path(f"study/plain/seed-{seed}/pretraining"), [0.0, 0.0, 0.0, 0.5], f"plain{seed}")
        write_curve(Path(f"study/more/seed-{seed}/pretraining"), [0.0, 0.5, 0.5, 0.6], f"more{seed}")
    write_curve(Path("study/shared/one"), [0.0, 0.0])
    settings = {"name": "study", "folder": "study", "arms": ARMS, "seeds": [1, 2], "reference": "plain", "report": "report"}
    results = collect(**settings, starts_from={"more": "one"})
    costs, values = results["learning"]["val/captions"]["plain"]["1"]
    assert (costs, values) == ([60.0, 120.0, 180.0, 240.0], [0.0, 0.0, 0.0, 0.5])
    ratio = results["cost_ratios"]["val/captions >= 0.5"]["more"]
    assert ratio["alone"]["value"] == pytest.approx(120 / 240)
    assert ratio["with_base"]["value"] == pytest.approx((120 + 120) / 240)
    assert results["cost_ratios"]["val/captions >= 0.9"]["more"]["alone"]["reached"] == (0, 0)
    lines = "\n".join(write_tables(results))
    assert "| val/captions >= 0.5 | 0.50 [0.50, 0.50] | 1.00 [1.00, 1.00] |" in lines
    assert "reached by 0 of 2, 0 of 2" in lines


def test_costs_of_stages_that_follow_each_other_are_added():
    for seed in (1, 2):
        write_run("plain", seed, [0, 1])
        write_run("more", seed, [1, 1])
        for arm in ARMS:
            write_curve(Path(f"study/{arm}/seed-{seed}/first"), [0.0, 0.0])
    settings = {"name": "study", "folder": "study", "arms": ARMS, "seeds": [1, 2], "reference": "plain", "report": "report"}
    run = collect(**settings, trainings=["first", "pretraining"])["arms"]["more"]["runs"]["2"]
    assert (run["id"], run["duration_s"], run["tokens"]) == ("more2", 101.0, 60)


def test_a_page_without_a_place_for_tables_is_refused():
    with pytest.raises(CheckpointError, match="has no place for its tables"):
        fill_page("A question.", {})


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_arm_of_a_study_composes_and_is_swept(path):
    name = f"{path.parent.name}/{path.stem}"
    job = OmegaConf.to_container(compose_job("train", [f"experiment={name}"]).job, resolve=True)
    check_stages(job["shared"])
    check_stages(job["stages"])
    trainings = [stage for stage in job["stages"] if stage.get("config", "train") == "train"]
    for number, arm in enumerate(job["arms"]):
        for place, stage in enumerate(trainings):
            own = [REFERENCE.sub("earlier", item) for item in stage["overrides"]]
            scale = (
                ["scale=tiny"] if number == place == 0 else []
            )  # later stages name the folder of a base, which tiny ones have not
            overrides = [*own, *job["arms"][arm], *scale, "paths.folder=here"]
            assert compose_job("train", overrides).trainer.max_steps >= 1
    params = OmegaConf.load(path).hydra.sweeper.params
    assert params.arm == ",".join(job["arms"])
    assert params.seed == ",".join(map(str, job["seeds"]))
    assert job["reference"] in job["arms"]


REPORTED = [
    path for path in STUDIES if (ROOT / "reports/studies" / path.stem.removeprefix("study_") / "results.json").is_file()
]


@pytest.mark.parametrize("path", REPORTED, ids=lambda path: path.stem)
def test_what_is_reported_is_what_the_study_lists(path):
    job = OmegaConf.to_container(compose_job("train", [f"experiment={path.parent.name}/{path.stem}"]).job, resolve=True)
    report = ROOT / job["report"]
    results = json.loads((report / "results.json").read_text())
    runs = {arm: found["runs"] for arm, found in results["arms"].items()}
    assert {arm: found["overrides"] for arm, found in results["arms"].items()} == {arm: job["arms"][arm] for arm in runs}
    assert results["missing"] == [  # of an arm that no seed has finished too
        f"{arm}/seed-{seed}" for arm in job["arms"] for seed in job["seeds"] if str(seed) not in runs.get(arm, ())
    ]
    page = (report / "README.md").read_text()
    assert fill_page(page, results) == page
    assert all(f"({sheet.name})" in page for sheet in report.glob("*.png"))  # a study that draws nothing has none
