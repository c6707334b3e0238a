"""What stands between a notebook and a run: where it looks, what it makes, and what it says while a command runs."""

import json
import os
import sys
from pathlib import Path

import pytest

from lightning_modules import notebook
from lightning_modules.desk.project import find_project, find_upward
from lightning_modules.folders.ownership import describe_process
from lightning_modules.notebook import measure_progress, provide_multirun, provide_run, run_command
from plait.errors import CheckpointError, FailedJobsError


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with a notebook's folder, in which we are."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "lab").mkdir()
    monkeypatch.chdir(tmp_path / "lab")
    for name in ("PLAIT_RUN", "PLAIT_MULTIRUN", "PLAIT_SCALE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write_job(folder: Path, state: str = "finished", name: str = "demo") -> Path:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"state": state, "duration_s": 60.0}))
    (folder / "config.yaml").write_text(f"name: {name}\nbase: {{}}\n")
    return folder


def test_a_path_is_found_here_or_above_up_to_the_project(project):
    (project / "outputs" / "demo").mkdir(parents=True)
    (project.parent / "stray").mkdir(exist_ok=True)
    assert find_project() == project
    assert find_upward("outputs/demo") == Path("../outputs/demo")
    assert find_upward(project / "outputs") == project / "outputs"
    assert find_upward("stray") is None
    (project / "lab" / "outputs" / "demo").mkdir(parents=True)
    assert find_upward("outputs/demo") == Path("outputs/demo")


def test_a_finished_demo_comes_before_a_sketch(project, capsys):
    write_job(project / "outputs" / "sketch", name="sketch")
    assert provide_run() == Path("../outputs/sketch")
    write_job(project / "outputs" / "demo")
    results = {"val/two_objects": {"value": 0.5, "n": 300, "baselines": {"majority": 0.1, "original": 1.0, "slot_lookup": 1.0}}}
    (write_job(project / "outputs" / "demo" / "evaluation") / "evaluation.json").write_text(json.dumps({"results": results}))
    assert provide_run() == Path("../outputs/demo")
    said = capsys.readouterr().out
    assert "../outputs/sketch: curriculum sketch, made in 60 s.\n" in said
    assert "Of 300 drawings of two objects (val) 50% were right; the best blind answer: 10% (majority)." in said


@pytest.mark.parametrize(("state", "words"), [("running", "has not finished"), (None, "there is no such folder")])
def test_a_named_run_is_finished_or_refused(project, monkeypatch, state, words):
    if state:
        write_job(project / "outputs" / "mine", state)
    monkeypatch.setenv("PLAIT_RUN", "outputs/mine")
    with pytest.raises(CheckpointError, match=f"PLAIT_RUN=outputs/mine.*{words}.*Next: "):
        provide_run()


def test_what_is_missing_is_made_by_the_command(project, monkeypatch):
    asked = []

    def make(command, *words, folders):
        asked.append((command, *words))
        if "curriculum=sketch" in words:
            write_job(project / "outputs" / "sketch", name="sketch")
            assert [folder.name for folder in folders] == ["tokenizer", "pretraining", "instruction", "evaluation", "report"]
        for folder in folders:
            write_job(folder)

    monkeypatch.setattr(notebook, "run_command", make)
    assert provide_run() == Path("../outputs/sketch")
    assert provide_multirun() == provide_multirun() == Path("../outputs/sketches")
    assert asked == [("train", "curriculum=sketch"), ("train", "-m", "curriculum=sketches")]
    assert len(list((project / "outputs" / "sketches").glob("*/seed-*/evaluation"))) == 9


def test_progress_counts_finished_jobs_and_the_steps_of_the_one_that_runs(tmp_path):
    folders = [write_job(tmp_path / "tokenizer"), write_job(tmp_path / "pretraining", "running"), tmp_path / "evaluation"]
    record = json.loads((folders[1] / "job.json").read_text())
    (folders[1] / "job.json").write_text(json.dumps({**record, "owner": describe_process()}))  # of one that lives
    assert measure_progress(folders) == (1, "1 of 3 finished, now pretraining")
    (folders[1] / "passport.json").write_text(json.dumps({"config": {"trainer": {"max_steps": 40}}}))
    (folders[1] / "metrics.jsonl").write_text('{"step": 9, "train/loss": 1.0}\n')
    assert measure_progress(folders) == (1.25, "1 of 3 finished, now pretraining: step 10 of 40")


def write_command(place: Path, monkeypatch, text: str) -> None:
    """Let a shell script stand for the Python that runs commands."""
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(place))


def test_a_command_runs_in_the_project_and_its_failure_is_told(project, monkeypatch, capsys):
    write_command(project / "python", monkeypatch, "pwd > where.txt; echo begun; echo what went wrong; exit 3")
    with pytest.raises(
        FailedJobsError, match=r"plait-train seed=1 ended with exit code 3.*\nbegun\nwhat went wrong\nNext: "
    ) as error:
        run_command("train", "seed=1", folders=["outputs/one"])
    assert error.value.exit_code == 3
    assert (project / "where.txt").read_text().strip() == os.path.realpath(project)
    assert "plait-train seed=1" in capsys.readouterr().out


@pytest.mark.parametrize("heard", ["INT", "TERM"])
def test_a_stopped_cell_stops_its_command_once(project, monkeypatch, heard):
    """Tests themselves may run where Ctrl-C is ignored: then only what comes next is heard."""
    saves = "trap 'echo saved >> saved.txt; exit 130'"
    deaf = "trap '' INT; " if heard == "TERM" else f"{saves} INT; "
    write_command(project / "python", monkeypatch, f"{deaf}{saves} TERM; touch begun; while :; do sleep 0.1; done")
    monkeypatch.setattr(notebook, "PATIENCE_S", 2)

    def press(*_):
        if (project / "begun").exists():
            raise KeyboardInterrupt
        return 0.0, ""

    monkeypatch.setattr(notebook, "measure_progress", press)
    with pytest.raises(KeyboardInterrupt):
        run_command("train", folders=[])
    assert (project / "saved.txt").read_text() == "saved\n"
