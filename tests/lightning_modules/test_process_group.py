"""A group of processes: who is who, what is handed back, and an end that leaves no process behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from lightning_modules.processes import device_queue
from lightning_modules.processes.process_group import CPU_RANKS, count_processes, is_member, run_in_group
from plait.errors import FailedJobsError, RecipeError
from tests.lightning_modules.queued_command import wait_for

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


def test_every_process_knows_its_place_and_that_of_the_others() -> None:
    def meet() -> dict[str, str]:
        return {name: os.environ.get(name, "") for name in NAMES} | {"is_member": str(is_member())}

    found = run_in_group(meet, 2)
    assert found | {"MASTER_PORT": ""} == dict(
        zip((*NAMES, "is_member"), ("0", "0", "2", "2", "127.0.0.1", "", "True"), strict=True)
    )
    assert int(found["MASTER_PORT"]) > 0
    assert not is_member()


def test_one_that_is_told_of_no_group_has_no_rank() -> None:
    assert run_in_group(lambda: os.environ.get("RANK")) is None


def test_a_rank_that_fails_ends_the_others_and_speaks_for_itself(monkeypatch, capfd, tmp_path: Path) -> None:
    monkeypatch.setattr(device_queue, "GRACE_S", 0.1)

    def work() -> None:
        if os.environ["RANK"] == "1":
            wait_for((tmp_path / "begun").exists)
            raise RecipeError("Refused. Expected better.")
        (tmp_path / "begun").write_text(str(os.getpid()))
        time.sleep(100)

    start = time.monotonic()
    with pytest.raises(
        FailedJobsError, match=r"2 of 2 jobs failed: #0 rank 0 \(exit code 137, printed above\); #1 rank 1 \(exit code 2"
    ):
        run_in_group(work, 2)
    assert time.monotonic() - start < 60
    assert "Refused. Expected better." in capfd.readouterr().err
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)


def test_a_stop_reaches_every_rank_and_waits_for_them(tmp_path: Path) -> None:
    parent = os.getpid()

    def work() -> None:
        try:
            (tmp_path / f"begun-{os.environ['RANK']}").touch()
            if os.environ["RANK"] == "0":
                wait_for((tmp_path / "begun-1").exists)
                os.kill(parent, signal.SIGTERM)
            time.sleep(100)
        except KeyboardInterrupt:
            time.sleep(0.2)  # as if it saved
            (tmp_path / f"saved-{os.environ['RANK']}").touch()
            raise

    with pytest.raises(KeyboardInterrupt):
        run_in_group(work, 2)
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]


def test_settings_say_how_many_share_a_training(monkeypatch) -> None:
    assert count_processes({}) is None
    assert count_processes({"accelerator": "gpu", "strategy": "auto"}) is None
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert count_processes({"accelerator": "cpu", "strategy": "ddp"}) == CPU_RANKS
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert count_processes({"accelerator": "cpu", "strategy": "ddp"}) == 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert count_processes({"accelerator": "gpu", "strategy": "ddp"}) == 4
