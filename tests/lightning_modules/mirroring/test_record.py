"""The record in the order in which W&B is told it: a mirror that follows and one that is made later say the same."""

import json
from pathlib import Path

import pytest

from lightning_modules.tracking.mirroring.record import STEP_KEY, Entry, Follower


def write(folder: Path, *rows: dict | str, page: int | None = None) -> None:
    with open(folder / "metrics.jsonl", "a") as file:
        file.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    if page is not None:
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / f"step-{page:07d}.html").touch()


def spell(entries: list[Entry]) -> list[tuple[int, list[str]]]:
    return [(entry.number, [entry.page.stem] if entry.page else sorted(set(entry.values) - {STEP_KEY})) for entry in entries]


def test_rows_of_a_step_are_one_and_samples_stand_at_their_step(tmp_path: Path) -> None:
    follower, found = Follower(tmp_path), []
    write(tmp_path, {"step": 0, "loss": 5.0}, {"step": 0, "rate": 1.0})
    found += follower.read(is_over=False)
    write(tmp_path, page=10)  # after ten steps: before the row of the tenth, which is number 9
    write(tmp_path, {"step": 9, "loss": 4.0}, {"step": 9, "loss": 3.0}, {"step": 4, "late": 1.0}, {"step": None, "n": 3})
    found += follower.read(is_over=False)
    write(tmp_path, {"step": 19, "loss": "nan"}, page=20)
    found += follower.read(is_over=False)
    found += follower.read(is_over=True)
    assert spell(found) == [
        *((0, ["loss"]), (0, ["rate"]), (9, ["loss"]), (10, ["loss"]), (11, ["late"]), (11, ["n"])),
        *((12, ["step-0000010"]), (19, ["loss"]), (19, ["step-0000020"])),
    ]
    assert found[4].values[STEP_KEY] == 4
    assert found[-2].values["loss"] != found[-2].values["loss"]
    assert spell(list(Follower(tmp_path).read(is_over=True))) == spell(found)


@pytest.mark.parametrize("is_later", [False, True])
def test_work_that_was_done_again_is_told_once(tmp_path: Path, is_later: bool) -> None:
    write(tmp_path, {"step": 0, "loss": 5.0}, {"step": 4, "loss": 4.0}, {"step": 9, "loss": 3.0})
    follower = Follower(tmp_path)
    if not is_later:
        assert not list(follower.read(is_over=False))  # how much of it counts is not known yet
    write(tmp_path, {"resumed_from_step": 5}, {"step": 9, "loss": 2.0}, "torn {\n", "[]\n")
    found = [(entry.number, entry.values["loss"]) for entry in follower.read(is_over=True)]
    assert found == [(0, 5.0), (4, 4.0), (9, 2.0)]
    assert follower.num_damaged == 2


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    write(tmp_path, '{"step": 0, "lo')
    assert not list(follower.read(is_over=False))
    write(tmp_path, 'ss": 5.0}\n')
    assert spell(list(follower.read(is_over=False))) == [(0, ["loss"])]
