"""A curriculum runs in order, hands over, skips what is finished, goes on with what is not, and remakes what has changed."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_modules.folders.records import read_job
from lightning_modules.loops.curriculum import check_stages, run_curriculum
from plait.errors import FailedJobsError, RecipeError

WRITE = "tests.lightning_modules.stub_jobs.write"


def stage(name: str, value: int, reads: str | None = None) -> dict:
    """A stage whose job adds `value` to what the stage `reads` has written."""
    source = f",reads:<{reads}>" if reads else ""
    return {"name": name, "overrides": [f"job={{_target_:{WRITE},folder:${{paths.folder}},value:{value}{source}}}"]}


def times(folder: Path) -> int:
    """How often the job of this folder ran."""
    return len((folder / "times.txt").read_text().splitlines())


@pytest.fixture(autouse=True)
def _own_root(monkeypatch, tmp_path):
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")
    monkeypatch.chdir(tmp_path)


def test_stages_hand_over_and_are_skipped_when_finished(tmp_path):
    stages = [stage("one", 1), stage("two", 10, "one"), stage("three", 100, "two")]
    folders = run_curriculum(stages=stages, folder="runs")
    assert folders == {"one": "runs/one", "two": "runs/two", "three": "runs/three"}
    assert Path("runs/three/value.txt").read_text() == "111"
    before = read_job("runs/two")
    run_curriculum(stages=stages, folder="runs")
    assert [times(Path("runs", name)) for name in folders] == [1, 1, 1]
    assert read_job("runs/two") == before


def test_a_changed_stage_and_all_that_follows_from_it_are_made_anew():
    run_curriculum(stages=[stage("one", 1), stage("two", 10, "one"), stage("side", 5)], folder="runs")
    run_curriculum(stages=[stage("one", 2), stage("two", 10, "one"), stage("side", 5)], folder="runs")
    assert Path("runs/two/value.txt").read_text() == "12"
    # what was there is set aside, not deleted
    assert Path("runs/one.old-1/value.txt").read_text() == "1"
    assert Path("runs/two.old-1/value.txt").read_text() == "11"
    assert times(Path("runs/side")) == 1


def test_a_parent_that_ran_again_is_another_parent():
    stages = [stage("one", 1), stage("two", 10, "one")]
    run_curriculum(stages=stages, folder="runs")
    Path("runs/one").rename("away")
    run_curriculum(stages=stages, folder="runs")
    assert Path("runs/two.old-1").exists()


def test_what_was_stopped_goes_on_where_it_was():
    stop = {
        "name": "two",
        "overrides": ["job={_target_:tests.lightning_modules.stub_jobs.stop_the_first_time,folder:${paths.folder}}"],
    }
    stages = [stage("one", 1), stop, stage("three", 100, "two")]
    with pytest.raises(KeyboardInterrupt):
        run_curriculum(stages=stages, folder="runs")
    assert read_job("runs/two")["state"] == "interrupted"
    assert not Path("runs/three").exists()
    run_curriculum(stages=stages, folder="runs")
    # the folder of the stopped stage was kept: the job found its own mark in it
    assert Path("runs/two/mark.txt").exists()
    assert Path("runs/three/value.txt").read_text() == "107"
    assert times(Path("runs/one")) == 1


def test_a_job_that_was_killed_is_not_taken_for_finished():
    run_curriculum(stages=[stage("one", 1)], folder="runs")
    record = json.loads(Path("runs/one/job.json").read_text())
    Path("runs/one/job.json").write_text(json.dumps({**record, "state": "running"}))
    run_curriculum(stages=[stage("one", 1)], folder="runs")
    assert times(Path("runs/one")) == 2


def test_a_failure_is_written_down_and_passed_on():
    fail = {"name": "one", "overrides": ["job={_target_:tests.lightning_modules.stub_jobs.fail,message:broken}"]}
    with pytest.raises(ValueError, match="broken"):
        run_curriculum(stages=[fail], folder="runs")
    assert read_job("runs/one")["state"] == "failed"
    assert "broken" in read_job("runs/one")["error"]


def test_overrides_of_the_command_line_reach_every_stage_and_win():
    stages = [{"name": "one", "overrides": [*stage("one", 1)["overrides"], "seed=3"]}]
    run_curriculum(stages=stages, folder="runs", overrides=["curriculum=demo", "seed=5"])
    assert "seed: 5" in Path("runs/one/config.yaml").read_text()


def test_a_stage_may_stay_out_of_the_overrides():
    stages = [{**stage("one", 1), "takes_overrides": False}]
    run_curriculum(stages=stages, folder="runs", overrides=["seed=5"])
    assert "seed: 1" in Path("runs/one/config.yaml").read_text()


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@forks
def test_neighbours_that_do_not_start_from_each_other_run_side_by_side():
    meet = "tests.lightning_modules.stub_jobs.meet"
    pair = [
        {"name": name, "overrides": [f"job={{_target_:{meet},folder:${{paths.folder}},other:{other}}}"]}
        for name, other in (("left", "right"), ("right", "left"))
    ]
    stages = [stage("one", 1), *pair, stage("two", 10, "one"), stage("three", 100, "two")]
    folders = run_curriculum(stages=stages, folder="runs", at_once=3)
    assert list(folders) == ["one", "left", "right", "two", "three"]
    assert Path("runs/three/value.txt").read_text() == "111"
    assert Path("runs/left.log").is_file()
    # how it was run is no part of what it is
    before = {name: read_job(folder) for name, folder in folders.items()}
    run_curriculum(stages=stages, folder="runs")
    assert {name: read_job(folder) for name, folder in folders.items()} == before


@forks
def test_a_failure_beside_others_is_named_and_lets_them_finish():
    fail = {"name": "bad", "overrides": ["job={_target_:tests.lightning_modules.stub_jobs.fail,message:broken}"]}
    with pytest.raises(FailedJobsError, match=r"1 of 2 jobs failed: #1 bad \(exit code 1, runs/bad\.log\)"):
        run_curriculum(stages=[fail, stage("good", 1), stage("after", 1, "good")], folder="runs", at_once=2)
    assert "broken" in read_job("runs/bad")["error"]
    assert read_job("runs/good")["state"] == "finished"
    assert not Path("runs/after").exists()


@forks
def test_a_trainer_of_the_curriculum_gives_way_to_that_of_the_command_line():
    run_curriculum(stages=[stage("one", 1)], folder="runs", trainer="ddp_cpu", overrides=["job.trainer=ddp_cpu", "trainer=cpu"])
    assert "strategy" not in OmegaConf.load("runs/one/config.yaml").trainer
    run_curriculum(stages=[stage("two", 1)], folder="runs", trainer="cpu")
    assert Path("runs/two/value.txt").read_text() == "1"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage("one", 1), stage("one", 2)], "Two stages of the curriculum are called 'one'"),
        ([stage("two", 1, "one"), stage("one", 1)], "Stage 'two' refers to <one>, but before it come only no stages"),
        ([{"overrides": []}], "expected the keys name, config, overrides"),
        ([{"name": "one", "kind": "train"}], "expected the keys name, config, overrides"),
    ],
)
def test_a_wrong_plan_is_refused_before_any_work(stages, message):
    with pytest.raises(RecipeError, match=message):
        check_stages(stages)


def test_a_wrong_override_names_itself():
    with pytest.raises(RecipeError, match=r"train does not compose with .*nonsense=1"):
        run_curriculum(stages=[{"name": "one", "overrides": ["nonsense=1"]}], folder="runs")
