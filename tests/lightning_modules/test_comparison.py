"""plait-compare: evaluations become rows; what is no row, no evaluation or no fair comparison is refused by name."""

import json
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_modules.jobs.comparison import compare_runs
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch
from plait.errors import CheckpointError, DocumentError, RecipeError

PROTOCOL = {"sampler_image": "cold", "guidance": [], "n": 4, "seed": 0, "data": "one", "rejected_beyond": {"worst": 0.17}}


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def write(place: str, right: list[int], protocol: dict | None = None, state: str = "finished", **settings) -> str:
    """What an evaluation leaves, as far as a comparison reads it."""
    folder = Path(place, "evaluation")
    folder.mkdir(parents=True)
    items = [{"expected": str(i), "cluster": str(i), "scores": {"all": float(value)}} for i, value in enumerate(right)]
    facts = {"protocol": {**PROTOCOL, **(protocol or {})}, "headlines": ["val/captions"], "skipped": {}}
    facts["durations_s"] = {"val/captions": 1.0}
    figure = {"value": 0.0, "low": 0.0, "high": 0.0, "n": len(right), "baselines": {"majority": 0.25, "slot_lookup": 1.0}}
    figure |= {"gap_from": "majority", "gap_closed": -1 / 3, "lookup": "slot_lookup", "exceeds_lookup": False}
    files = {
        "job.json": {"state": state, "parents": {"model": place}},
        "evaluation.json": {"results": {"val/captions": figure}, "facts": facts},
        "items.json": {"val/captions": items},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    config = {"run": place, "base": {"model": place}, "backbone": {"width": 8, **settings}, "seed": 0, "n": 4}
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    return place


def test_seeds_become_rows_and_a_row_is_named_the_winner(tmp_path):
    for seed in (1, 2, 3):
        write(f"good/seed-{seed}", [1, 1, 1, 1] * 10)
        write(f"bad/seed-{seed}", [0, 0, 0, seed % 2] * 10)
    table = compare_runs(
        rows={"good": [f"{tmp_path}/good/seed-*"], "bad": ["bad/seed-1", "bad/seed-2/evaluation", "bad/seed-3"]}, folder="out"
    )
    good, bad = (table["rows"][name] for name in ("good", "bad"))
    assert table["reference"] == "good"
    assert (good["figures"]["val/captions"]["value"], len(good["runs"])) == (1.0, 3)
    assert bad["figures"]["val/captions"]["minus_reference"]["verdict"] == "good"
    assert bad["figures"]["val/captions"]["baselines"] == {"majority": 0.25, "slot_lookup": 1.0}
    assert bad["figures"]["val/captions"]["gap_closed"] == pytest.approx(
        (bad["figures"]["val/captions"]["value"] - 0.25) / 0.75
    )
    assert (good["protocol"], good["durations_s"]["val/captions"]) == (PROTOCOL, 3.0)
    assert json.loads(Path("out/table.json").read_text()) == table
    assert "good |" in Path("out/table.md").read_text()


def test_the_command_hands_the_table_to_w_and_b(capfd):
    write("a", [1, 1, 1, 0])
    write("b", [0, 1, 0, 0])
    config = compose_job("compare", ["rows={a: [a], b: [b]}", "reference=b", "paths.folder=out"])
    table = launch(config)
    assert table["rows"]["a"]["figures"]["val/captions"]["minus_reference"]["verdict"] == "no verdict below 3 seeds a row"
    tables = "offline-run-*/files/media/table/table*.json"
    deadline = time.monotonic() + 120  # the mirror goes on alone
    while not list(Path("out/wandb").glob(tables)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert list(Path("out/wandb").glob("offline-run-*/*.wandb"))
    assert list(Path("out/wandb").glob(tables))


def test_what_is_not_comparable_is_refused_by_name():
    write("a", [1, 1, 0, 0])
    write("hot", [1, 1, 0, 0], {"sampler_image": "hot", "guidance": [3.0]})
    write("short", [1, 1, 0])
    write("other", [1, 1, 0, 0], width=16)
    write("running", [1, 1, 0, 0], state="failed")
    with pytest.raises(
        RecipeError, match=r"hot.* and .*a.* different protocols \(guidance, sampler_image\).*'hot' against 'cold'"
    ):
        compare_runs(rows={"a": ["a"], "b": ["hot"]}, folder="out")
    with pytest.raises(DocumentError, match="was not asked the 4 items"):
        compare_runs(rows={"a": ["a"], "b": ["short"]}, folder="out")
    with pytest.raises(RecipeError, match=r"rows.a: .*other.* 1 settings differ \(backbone.width: 16 against 8\)"):
        compare_runs(rows={"a": ["a", "other"]}, folder="out")
    with pytest.raises(RecipeError, match="2 evaluations of 1 different models"):
        compare_runs(rows={"a": ["a", "a/evaluation/../evaluation"]}, folder="out")
    with pytest.raises(CheckpointError, match="is failed: expected a finished one"):
        compare_runs(rows={"a": ["running"]}, folder="out")
    with pytest.raises(CheckpointError, match=r"rows.a=\['none-\*'\] names no folder"):
        compare_runs(rows={"a": ["none-*"]}, folder="out")
    with pytest.raises(CheckpointError, match="nothing holds no evaluation"):
        compare_runs(rows={"a": ["nothing"]}, folder="out")
    with pytest.raises(RecipeError, match=r"reference=c: expected one of the rows \['a'\]"):
        compare_runs(rows={"a": ["a"]}, folder="out", reference="c")
    assert not Path("out").exists()
