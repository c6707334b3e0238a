"""The ways in which two jobs can meet in one folder: none is mixed with another, and what happens is said."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_modules.folders.ownership import LOCK_FILE, SILENCE_S, Claim, describe_process, is_alive
from lightning_modules.folders.records import read_job
from lightning_modules.folders.run_folder import Intent, Stay, enter, set_aside
from lightning_modules.loops.curriculum import run_curriculum
from lightning_modules.running.launch import launch
from plait.checkpoints import save_checkpoint
from plait.errors import RecipeError

TRAIN = Intent("fit", "pretraining", "a" * 64, trains=True)
OTHER = Intent("fit", "pretraining", "b" * 64, trains=True)
LAST = Intent("fit", "pretraining", "a" * 64, trains=True, checkpoint="last")
DEMO = Intent("run_curriculum", "demo", "a" * 64, goes_on=True)
EVALUATION = Intent("examine", "evaluation", "c" * 64)


def begin(folder: Path, intent: Intent) -> tuple[Stay, dict[str, Any]]:
    stay = enter(folder, intent)
    record = {"id": "own", "job": intent.job, "name": intent.name, "config_hash": intent.config_hash, "started": time.time()}
    return stay, stay.begin(record, "base: {}\n")


def leave(folder: Path, intent: Intent, state: str, step: int | None = None) -> None:
    """Somebody was here before: a job that ended in this state, with a checkpoint of this step."""
    stay, record = begin(folder, intent)
    (folder / "mine.txt").write_text(intent.config_hash)
    if step is not None:
        save_checkpoint(folder / "checkpoints/last.ckpt", {}, model="", step=step, is_complete=state == "finished")
    stay.end(record, {"state": state})
    stay.leave()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("first", "second"), [(TRAIN, TRAIN), (TRAIN, OTHER), (TRAIN, LAST), (DEMO, DEMO), (DEMO, TRAIN), (TRAIN, EVALUATION)]
)
def test_a_living_owner_is_respected(tmp_path: Path, first: Intent, second: Intent) -> None:
    folder = tmp_path / "run"
    stay, record = begin(folder, first)
    before = contents(folder)
    with pytest.raises(
        RecipeError, match=rf"belongs to a job that is running: {first.name} \(own\), process {os.getpid()}.*Next"
    ):
        enter(folder, second)
    assert contents(folder) == before
    stay.end(record, {"state": "finished"})
    stay.leave()


@pytest.mark.parametrize(
    ("first", "state", "step", "second", "words"),
    [
        (TRAIN, "finished", 4, TRAIN, "which is finished: it is never overwritten.*checkpoint=last"),
        (TRAIN, "finished", 4, OTHER, "which is finished: it is never overwritten"),
        (TRAIN, "interrupted", 2, TRAIN, "which is interrupted.*add checkpoint=last to go on"),
        (TRAIN, "stopped", 2, OTHER, "which is stopped.*add checkpoint=last to go on"),
        (EVALUATION, "finished", None, EVALUATION, "which is finished"),
        (TRAIN, "finished", 4, EVALUATION, "which is finished"),
        (DEMO, "finished", None, Intent("run_curriculum", "sketch", "d", goes_on=True), "sketch would mix its stages"),
        (DEMO, "failed", None, Intent("run_arm", "demo", "d", goes_on=True), "would mix"),
        (TRAIN, "failed", None, DEMO, "demo would mix its stages with what is there"),
        (EVALUATION, "finished", None, LAST, "never overwritten"),
    ],
)
def test_nothing_is_overwritten(
    tmp_path: Path, first: Intent, state: str, step: int | None, second: Intent, words: str
) -> None:
    folder = tmp_path / "run"
    leave(folder, first, state, step)
    before = contents(folder)
    with pytest.raises(RecipeError, match=words):
        enter(folder, second)
    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["run"]


def test_what_can_go_on_goes_on(tmp_path: Path) -> None:
    leave(tmp_path / "stopped", TRAIN, "interrupted", 2)
    stay = enter(tmp_path / "stopped", LAST)
    assert (stay.checkpoint, stay.is_done, stay.before["id"]) == (tmp_path / "stopped/checkpoints/last.ckpt", False, "own")
    leave(tmp_path / "over", TRAIN, "finished", 4)
    assert enter(tmp_path / "over", LAST).is_done
    leave(tmp_path / "demo", DEMO, "finished")
    assert enter(tmp_path / "demo", DEMO).before["name"] == "demo"


def test_a_beginning_is_begun_again_by_the_same_job_and_set_aside_for_another(tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "run"
    leave(folder, TRAIN, "failed")
    with caplog.at_level(logging.INFO):
        stay, record = begin(folder, LAST)
    assert "starting anew" in caplog.text
    assert record["starts"][0]["state"] == "failed"
    stay.end(record, {"state": "failed"})
    stay.leave()
    stay, record = begin(folder, OTHER)
    assert "starts" not in record
    stay.leave()
    assert not (folder / "mine.txt").exists()
    assert (tmp_path / "run.old-1/mine.txt").read_text() == TRAIN.config_hash


def test_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds no checkpoint and no run, expected .*last\.ckpt"):
        enter(tmp_path / "typo" / "run", LAST)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.yaml", "thesis.txt", "__init__.py"])
@pytest.mark.parametrize("intent", [TRAIN, DEMO, EVALUATION])
def test_a_folder_that_holds_no_run_is_left_alone(tmp_path: Path, name: str, intent: Intent) -> None:
    (tmp_path / name).write_text("mine: true\n")
    with pytest.raises(RecipeError, match=rf"holds {name}, and no job.json: it is no run"):
        enter(tmp_path, intent)
    assert os.listdir(tmp_path) == [name]


def test_a_refused_job_leaves_nothing_in_a_folder_that_was_made_for_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")
    refused = {"_target_": f"{JOBS}.refuse"}
    with pytest.raises(RecipeError, match="not with me"):
        launch(config(tmp_path / "new" / "run", refused))
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="not with me"):
        launch(config(tmp_path / "empty", refused))
    assert not list((tmp_path / "empty").iterdir())
    with pytest.raises(RecipeError, match="not with me"):
        launch(config(tmp_path / "run", refused | {"leaves": str(tmp_path / "run" / "work.txt")}))
    assert read_job(tmp_path / "run")["state"] == "failed", "what it made stays, with its record"
    with pytest.raises(ValueError, match="unforeseen"):
        launch(config(tmp_path / "failed", {"_target_": f"{JOBS}.fail", "message": "unforeseen"}))
    assert read_job(tmp_path / "failed")["state"] == "failed"


def test_a_folder_in_which_somebody_evaluates_is_not_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    leave(folder, TRAIN, "failed")
    stay, _ = begin(folder / "evaluation" / "1", EVALUATION)
    for enters in (lambda: enter(folder, OTHER), lambda: set_aside(folder)):
        with pytest.raises(RecipeError, match="evaluation/1 belongs to a job that is running"):
            enters()
    assert (folder / "mine.txt").exists()
    stay.leave()


OWNER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.lightning_modules.test_run_folder import TRAIN, begin
stay, record = begin(Path({folder!r}), TRAIN)
print("here", flush=True)
time.sleep(60)
"""


def test_the_folder_of_a_job_that_was_killed_is_taken_over_with_a_word(tmp_path: Path, root: Path, caplog: Any) -> None:
    """kill -9: `running` stands in its record, and readers see that it died."""
    folder = tmp_path / "run"
    text = OWNER.format(root=str(root), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "here\n"
        assert read_job(folder)["state"] == "running"
        with pytest.raises(RecipeError, match=f"process {owner.pid} on"):
            enter(folder, TRAIN)
        owner.kill()
    assert json.loads((folder / "job.json").read_text())["state"] == "running"
    assert read_job(folder)["state"] == "died"
    stay, record = begin(folder, TRAIN)
    assert "died" in caplog.text
    assert "takes over" in caplog.text
    assert record["starts"][0]["duration_s"] >= 0
    stay.leave()


def test_another_machine_is_known_by_its_signs_of_life(tmp_path: Path) -> None:
    """As is another container, whose processes cannot be seen either."""
    folder = tmp_path / "run"
    leave(folder, TRAIN, "failed")
    record = json.loads((folder / "job.json").read_text())
    record |= {"state": "running", "owner": {**record["owner"], "host": "elsewhere", "boot": "another"}}
    (folder / "job.json").write_text(json.dumps(record))
    os.utime(folder / LOCK_FILE)
    with pytest.raises(RecipeError, match=r"running: pretraining .* on elsewhere"):
        enter(folder, TRAIN)
    silent = time.time() - SILENCE_S - 1
    os.utime(folder / LOCK_FILE, (silent, silent))
    assert read_job(folder)["state"] == "died"
    enter(folder, TRAIN).leave()


def test_a_number_that_was_given_to_another_process_is_not_the_owner(tmp_path: Path) -> None:
    own = describe_process()
    assert is_alive(own, tmp_path)
    assert not is_alive({**own, "began": "1"}, tmp_path)
    assert not is_alive({**own, "pid": 2**22 + 1}, tmp_path)


def test_a_lock_of_a_folder_that_was_set_aside_is_not_that_of_the_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    leave(folder, TRAIN, "failed")
    new = set_aside(folder)
    assert not Claim(folder).take()
    new.release()
    assert Claim(tmp_path / "run.old-1").take()


JOBS = "tests.lightning_modules.stub_jobs"


def config(folder: Path, job: dict[str, Any], name: str = "one") -> Any:
    return OmegaConf.create(
        {"name": name, "tags": [], "seed": 1, "base": {}, "base_command": {}, "paths": {"folder": str(folder)}, "job": job}
    )


def test_a_second_curriculum_leaves_the_running_stage_of_the_first_alone(tmp_path: Path, monkeypatch: Any) -> None:
    """Started while a stage runs: in the folder of the curriculum, of the stage, and of the stage alone."""
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")
    folder = tmp_path / "runs"
    job = {"_target_": f"{JOBS}.write", "folder": "${paths.folder}", "value": 1}
    stages = [{"name": "one", "overrides": [f"job={{_target_:{JOBS}.write,folder:${{paths.folder}},value:2}}"]}]
    stay = enter(folder, Intent("lightning_modules.loops.curriculum.run_curriculum", "demo", "x", goes_on=True))
    stage = enter(folder / "one", EVALUATION)
    stage.begin({"id": "stage", "name": "stage", "started": time.time()}, "base: {}\n")
    curriculum = {"_target_": "lightning_modules.loops.curriculum.run_curriculum", "stages": [], "folder": "${paths.folder}"}
    for where, what in ((folder, curriculum), (folder / "one", job)):
        with pytest.raises(RecipeError, match="belongs to a job"):
            launch(config(where, what, "demo"))
    with pytest.raises(RecipeError, match=r"runs/one belongs to a job that is running: stage"):
        run_curriculum(stages=stages, folder=str(folder))
    assert sorted(path.name for path in folder.iterdir()) == [LOCK_FILE, "one"]
    stage.leave()
    stay.leave()


def test_a_job_leaves_a_record_in_its_folder_and_nothing_where_it_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")
    folder, job = tmp_path / "run", {"_target_": f"{JOBS}.write", "folder": "${paths.folder}", "value": 1}
    launch(config(folder, job))
    before = contents(folder)
    for again in (job, {**job, "value": 2}):
        with pytest.raises(RecipeError, match="which is finished"):
            launch(config(folder, again))
    assert contents(folder) == before
    assert read_job(folder)["state"] == "finished"
