"""`hydra/launcher=gpus`: one job per device and the rest waiting, exit codes, and a Ctrl-C that leaves no process behind.

Devices are ids that no machine has, jobs are those of queued_command.py, in processes of their own as always.
"""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lightning_modules.processes.device_queue import find_devices
from plait.errors import RecipeError
from tests.lightning_modules.queued_command import wait_for

COMMAND = [
    *(sys.executable, "-m", "tests.lightning_modules.queued_command", "-m"),
    *("hydra/launcher=gpus", "hydra.searchpath=[pkg://plait.conf]", "hydra.sweep.subdir=${hydra.job.num}"),
]


def start(folder: Path, root: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, f"hydra.sweep.dir={folder}", *overrides],
        cwd=root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # tests that run in the background are started with Ctrl-C ignored, and so would be what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def notes(folder: Path, name: str = "ended") -> dict[int, dict]:
    """Job -> what it noted."""
    return {int(path.parent.name): json.loads(path.read_text()) for path in folder.glob(f"*/{name}.json")}


def test_one_job_per_device_and_the_rest_wait(tmp_path: Path, root: Path) -> None:
    # `meet`: the first jobs end only if two run side by side
    done = start(tmp_path, root, "hydra.launcher.devices=[gpu-a,gpu-b]", "+seed=1,2,3,4,5", "+meet=2")
    out, err = done.communicate()
    assert done.returncode == 0, err
    found = notes(tmp_path)
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert len({note["pid"] for note in found.values()}) == 5
    assert {note["device"] for note in found.values()} == {"gpu-a", "gpu-b"}
    for device in ("gpu-a", "gpu-b"):
        times = sorted((note["begin"], note["end"]) for note in found.values() if note["device"] == device)
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(times)), "two jobs on one device"
    assert "5 of 5 ended, 0 failed, 0 running, 0 waiting" in out
    assert "printed by the job" not in out
    assert "printed by the job" in (tmp_path / "3.log").read_text()


def test_a_failed_job_stops_no_other_and_is_named_at_the_end(tmp_path: Path, root: Path) -> None:
    done = start(tmp_path, root, "hydra.launcher.devices=[gpu-a]", "+act=note,exit,raise,refuse,kill,last")
    out, err = done.communicate()
    assert done.returncode == 7, "the exit code of the first that failed"
    assert sorted(notes(tmp_path)) == [0, 5]
    assert "6 of 6 ended, 4 failed" in out
    assert "4 of 6 jobs failed: #1 +act=exit (exit code 7, " in err
    for named in ("#2 +act=raise (exit code 1, ", "#3 +act=refuse (exit code 2, ", "#4 +act=kill (exit code 137, ", "Next: "):
        assert named in err
    assert "Traceback" not in err
    assert "ValueError: nobody foresaw this" in (tmp_path / "2.log").read_text()
    assert "Refused. Expected better." in (tmp_path / "3.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_jobs_and_keeps_what_has_finished(tmp_path: Path, root: Path, number: signal.Signals) -> None:
    queue = start(tmp_path, root, "hydra.launcher.devices=[gpu-a]", "+act=note,hang,last")
    wait_for(lambda: 1 in notes(tmp_path, "begun") or queue.poll() is not None)
    os.kill(queue.pid, number)
    _, err = queue.communicate()
    assert queue.returncode != 0
    assert "FailedJobsError" not in err
    assert (tmp_path / "1" / "stopped").is_file(), "the job was to hear of it"
    with pytest.raises(ProcessLookupError):
        os.kill(notes(tmp_path, "begun")[1]["pid"], 0)
    assert sorted(notes(tmp_path)) == [0]
    assert not (tmp_path / "2").exists(), "no further job was to begin"


def test_devices_are_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5")
    assert find_devices() == ["3", "GPU-5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RecipeError, match=r"found no device: CUDA_VISIBLE_DEVICES is ''.*Expected one.*devices=\[0,1\]"):
        find_devices()
