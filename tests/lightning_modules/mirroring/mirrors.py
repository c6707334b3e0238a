"""Mirrors in W&B as tests find them: they are written by processes of their own, which may be a little behind the job."""

import time
from pathlib import Path

from lightning_modules.tracking.mirroring.offline import OfflineRun, find_offline, read_offline
from lightning_modules.tracking.mirroring.record import Follower


def settle(folder: Path, seconds: float = 120.0, unlike: Path | None = None) -> OfflineRun:
    """The only offline run of a folder, once it is whole; `unlike` is that of an earlier start, which goes then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        places = find_offline(folder)
        if len(places) == 1 and places[0] != unlike and list(places[0].glob("*.wandb")):
            found = read_offline(places[0])
            if found.exit_code is not None:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{folder} has no whole mirror after {seconds:.0f} s: {find_offline(folder)}")


def check_rows(folder: Path, found: OfflineRun) -> None:
    """Every row of the record stands in the mirror, at its step."""
    entries = [entry for entry in Follower(folder).read(is_over=True) if entry.page is None]
    assert entries
    rows = {row["_step"]: row for row in found.rows}
    for entry in entries:
        for key, value in entry.values.items():
            assert rows[entry.number][key] == value or value != value, (key, entry)
