"""The arithmetic of the benchmarks, on clocks that are made up."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.side_by_side import CLOCKS, Arm, Median, Report, max_running_sum, measure, peak_allocated_bytes


class Machine:
    """A clock that only work moves, and the order in which arms ran."""

    def __init__(self) -> None:
        self.now, self.ran = 0.0, []

    def clock(self) -> float:
        return self.now

    def arm(self, name: str, seconds: Callable[[int], float], work: float = 10.0) -> Arm:
        def run(number: int) -> float:
            self.ran.append((number, name))
            self.now += seconds(number)
            return work

        return Arm(name, "", run)


def test_ratios_are_taken_inside_a_round() -> None:
    """The machine gets slower from round to round; the arm stays twice as fast and works five times as much."""
    machine = Machine()
    slower = machine.arm("old", lambda number: 4.0 * (number + 2))
    faster = machine.arm("new", lambda number: 2.0 * (number + 2), work=50.0)
    measured = measure([slower, faster], rounds=3, warm_up=1, clock=machine.clock)
    assert list(measured.seconds) == ["old", "new", "old again"]
    assert measured.seconds["old"] == pytest.approx([0.8, 1.2, 1.6])
    assert measured.speed_up("new").rounds == pytest.approx((10.0, 10.0, 10.0))
    assert measured.time_ratio("new").value == pytest.approx(0.1)
    assert measured.difference_s("new").rounds == pytest.approx((-0.72, -1.08, -1.44))
    assert measured.again.value == pytest.approx(1.0)
    assert not measured.is_void
    assert machine.ran[:6] == [(-1, "old"), (-1, "old"), (-1, "new"), (0, "old"), (0, "new"), (0, "old")]
    assert machine.ran[6:9] == [(1, "new"), (1, "old"), (1, "old")]


def test_a_restless_machine_is_seen() -> None:
    machine = Machine()
    calls = iter(range(100))
    arm = machine.arm("old", lambda number: 1.0 if next(calls) % 2 else 1.2)
    measured = measure([arm], rounds=7, warm_up=0, clock=machine.clock)
    assert measured.is_void


def test_median_and_interval() -> None:
    median = Median.of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (median.value, median.least) == (3.0, 1.0)
    assert 1.0 <= median.low <= 2.0
    assert 4.0 <= median.high <= 100.0
    assert Median.of([2.0] * 7).high == 2.0


def test_peak_is_the_highest_running_sum() -> None:
    assert max_running_sum([5, 5, -5, 4, -9]) == 10
    assert max_running_sum([-5, 3]) == 0


def test_peak_counts_what_lives_together() -> None:
    def work() -> None:
        for _ in range(3):
            torch.ones(1 << 18).add(1)  # 2 x 1 MiB, released before the next

    assert 2 << 20 <= peak_allocated_bytes(work) < 3 << 20


@pytest.mark.parametrize("is_restless", [False, True])
def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_restless: bool) -> None:
    machine = Machine()
    calls = iter(range(100))
    base = machine.arm("old", lambda number: 1.0 + 0.2 * is_restless * (next(calls) % 2))
    monkeypatch.setitem(CLOCKS, "made up", machine.clock)
    report = Report("speed", "Speed", argparse.Namespace(folder=tmp_path, rounds=8, clock="made up"))
    measured = report.measure("Here", [base, machine.arm("new", lambda number: 0.5)], unit="thing", warm_up=0)
    report.bar("at least twice as fast", measured.speed_up("new").value >= 1.99)
    if is_restless:
        with pytest.raises(SystemExit):
            report.close()
    else:
        report.close()
    page, facts = (tmp_path / "speed.md").read_text(), json.loads((tmp_path / "speed.json").read_text())
    assert ("VOID" in page) == is_restless == facts["is_void"]
    assert facts["measurements"]["Here"]["speed_up"]["new"]["value"] >= 2.0
    assert facts["bars"] == {"at least twice as fast": True}
