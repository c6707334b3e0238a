"""Arms measured side by side, and the report of it. What every script of this folder is written with; it asserts nothing.

A round runs every arm once, interleaved in one process, each time in another rotation; figures are ratios inside a round, so a
machine that slows down slows all arms. The baseline runs a second time as an arm of its own (A/A): where its median ratio leaves
1 +- 0.05 the machine was too restless, the report says VOID and the script ends with exit code 1.

    options = read_options(__doc__)
    report = Report("name", "Title", options)
    arms = [Arm("baseline", "what it is", run), Arm("plait", "what it is", run)]      # run(round) -> units of work done
    measured = report.measure("A heading", arms, unit="token")
    report.bar("at least 2.0 times as fast", measured.speed_up("plait").value >= 2.0)
    report.close()
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.05
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# glibc otherwise hands memory back and faults it in again at every step (see Makefile)
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


@dataclass(frozen=True)
class Arm:
    """One way to do the work: `run(round)` returns how many units of work it did (same round, same work in every arm), or
    (units, seconds) where only a part of the call counts and it timed that itself."""

    name: str
    description: str
    run: Callable[[int], float | tuple[float, float]]


@dataclass(frozen=True)
class Median:
    """The median over the rounds, its 95 % interval (percentile bootstrap over rounds), the least, and every round's value."""

    value: float
    low: float
    high: float
    least: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], resamples: int = 10_000) -> "Median":
        """Of one value per round."""
        drawn = np.random.default_rng(0).choice(np.asarray(values), (resamples, len(values)))
        low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
        return cls(statistics.median(values), float(low), float(high), min(values), tuple(values))


@dataclass(frozen=True)
class Measured:
    """Seconds per unit of work, by arm and round; the first arm is the baseline, the last its repetition."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def baseline(self) -> str:
        """Name of the first arm."""
        return next(iter(self.seconds))

    def speed_up(self, name: str) -> Median:
        """Seconds of the baseline over those of an arm: above 1 the arm is faster."""
        return Median.of([base / own for base, own in self._pairs(name)])

    def time_ratio(self, name: str) -> Median:
        """Seconds of an arm over those of the baseline."""
        return Median.of([own / base for base, own in self._pairs(name)])

    def difference_s(self, name: str) -> Median:
        """Seconds per unit that an arm takes beyond the baseline."""
        return Median.of([own - base for base, own in self._pairs(name)])

    @property
    def again(self) -> Median:
        """A/A: the speed-up of the baseline over itself."""
        return self.speed_up(list(self.seconds)[-1])

    @property
    def is_void(self) -> bool:
        """Whether the machine was too restless for any of these figures."""
        return abs(self.again.value - 1) > TOLERANCE

    def _pairs(self, name: str) -> list[tuple[float, float]]:
        return list(zip(self.seconds[self.baseline], self.seconds[name], strict=True))


def measure(arms: Sequence[Arm], rounds: int, warm_up: int = 1, clock: Callable[[], float] = time.perf_counter) -> Measured:
    """Run the arms side by side.

    Args:
        arms: the baseline first; its repetition is added here.
        rounds: counted rounds, numbered from 0.
        warm_up: rounds before those, not counted; their numbers are -warm_up to -1.
        clock: in seconds.
    """
    arms = [*arms, Arm(f"{arms[0].name} again", "A/A", arms[0].run)]
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for number in range(-warm_up, rounds):
        first = number % len(arms)
        for arm in (*arms[first:], *arms[:first]):
            start = clock()
            result = arm.run(number)
            work, duration = result if isinstance(result, tuple) else (result, clock() - start)
            if number >= 0:
                seconds[arm.name].append(duration / work)
    return Measured(seconds)


def peak_allocated_bytes(function: Callable[[], Any]) -> int:
    """The most memory that torch's CPU allocator held at a time during a call, beyond what it held before.

    Taken from the allocator's own record of every allocation and release (the profiler's memory events), so temporaries inside
    operators count, and neither Python nor the reserve of glibc does: unlike the peak of the resident set it is exact.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max_running_sum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])


def max_running_sum(values: Sequence[int]) -> int:
    """The highest that a running sum from 0 gets."""
    return int(max(np.cumsum([0, *values])))


def read_options(description: str, rounds: int = 9) -> argparse.Namespace:
    """Command line of a script; the process is started again where its environment lacks threads or allocator settings."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"counted rounds, at least 7 (default: {rounds})")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a first look on a machine that others use"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "reports" / "benchmarks", help="where the report goes")
    options = parser.parse_args()
    if options.rounds < 7:
        parser.error(f"{options.rounds} rounds are too few for an interval: expected at least 7")
    wanted = {**ALLOCATOR, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
    torch.set_num_threads(options.threads)
    return options


class Report:
    """`<folder>/<name>.md` and `.json`.

    Args:
        name: of the files.
        title: first line.
        options: from `read_options`.
        precision: of the arithmetic.
    """

    def __init__(self, name: str, title: str, options: argparse.Namespace, precision: str = "fp32") -> None:
        self.options = options
        self.path = options.folder / f"{name}.md"
        self.facts: dict[str, Any] = {
            "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip(),
            "date": time.strftime("%Y-%m-%d %H:%M %z"),
            "commit": _commit(),
            "machine": {
                "processor": _processor(),
                "cores": os.cpu_count(),
                "load_before": os.getloadavg()[0],
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "precision": precision,
                "clock": options.clock,
            },
            "measurements": {},
            "bars": {},
        }
        self._title, self._paragraphs = title, []
        self._is_void = False

    def text(self, paragraph: str, **values: Any) -> None:
        """A paragraph of the page; `values` go into the JSON file."""
        self._paragraphs.append(paragraph)
        self.facts.update(values)
        print(paragraph, end="\n\n", flush=True)

    def measure(self, heading: str, arms: Sequence[Arm], unit: str, warm_up: int = 1) -> Measured:
        """Measure and write a section down. A `unit` is what `run` counts (token, step, picture)."""
        measured = measure(arms, self.options.rounds, warm_up, CLOCKS[self.options.clock])
        rates = {name: statistics.median(values) for name, values in measured.seconds.items()}
        lines = [f"## {heading}", "", *(f"- **{arm.name}**: {arm.description}" for arm in arms), ""]
        lines += [
            f"| arm | median us per {unit} | speed-up: median [95 % interval], min | speed-up per round |",
            "|---|---|---|---|",
        ]
        for name, rate in rates.items():
            ratio = measured.speed_up(name)
            each = " ".join(f"{value:.2f}" for value in ratio.rounds)
            lines.append(f"| {name} | {rate * 1e6:.2f} | {format_median(ratio)}, {ratio.least:.2f} | {each} |")
        verdict = f"VOID: outside 1 +- {TOLERANCE}, measure again on an idle machine" if measured.is_void else "counts"
        lines += ["", f"A/A {measured.again.value:.3f} over {self.options.rounds} rounds: {verdict}."]
        self.text("\n".join(lines))
        self.facts["measurements"][heading] = {
            "unit": unit,
            "seconds_per_unit": dict(measured.seconds),
            "speed_up": {name: vars(measured.speed_up(name)) for name in rates},
            "a_a": measured.again.value,
            "is_void": measured.is_void,
        }
        self._is_void |= measured.is_void
        return measured

    def bar(self, text: str, is_met: bool) -> None:
        """What was asked for, and whether it was reached."""
        self.facts["bars"][text] = bool(is_met)
        self.text(f"Bar: {text}. **{'Met' if is_met else 'Missed'}.**")

    def close(self) -> None:
        """Write the files; a void run ends here with exit code 1."""
        self.facts |= {"is_void": self._is_void}
        machine = self.facts["machine"] | {"load_after": os.getloadavg()[0]}
        self.facts["machine"] = machine
        head = [
            f"# {self._title}{' (VOID)' if self._is_void else ''}",
            f"Command: `{self.facts['command']}`  \nDate {self.facts['date']}, commit {self.facts['commit']}  \n"
            f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']:.1f} before and "
            f"{machine['load_after']:.1f} after; torch threads: {machine['threads']}, torch {machine['torch']}, Python "
            f"{machine['python']}, {machine['precision']}, {machine['clock']} time",
            "Arms run interleaved in one process, in another rotation each round; a ratio is taken inside its round. Intervals: "
            "bootstrap over rounds. A/A is the baseline measured a second time as an arm of its own.",
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n\n".join([*head, *self._paragraphs]) + "\n", encoding="utf-8")
        self.path.with_suffix(".json").write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")
        print(f"written to {self.path}")
        if self._is_void:
            raise SystemExit(1)


def format_median(median: Median, digits: int = 2) -> str:
    """`value [low, high]`."""
    return f"{median.value:.{digits}f} [{median.low:.{digits}f}, {median.high:.{digits}f}]"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False).stdout.strip()

    changed = [line for line in git("status", "--porcelain").splitlines() if "reports/benchmarks/" not in line]
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with uncommitted changes" if changed else "")


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
