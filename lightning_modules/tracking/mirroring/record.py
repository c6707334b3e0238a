"""What the record of a run says in the order in which W&B is told it: rows of metrics.jsonl, and pages of samples at their steps.

The record alone decides, so that a mirror that follows a run and one that is made afterwards are the same. W&B counts its own steps,
which must never go back: here they are the steps of training, rows of one step are one row of W&B, and a row that comes late or says a
key twice takes the next free step. Rows of work that a resume did again are left out, as `plait.runs.Run.metrics` does. It does not
know W&B, and imports nothing that takes time.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
MIRROR_FILE = "mirror.json"
"""what W&B is told of the job: id, name, group, tags, notes, config"""
SENT_FILE = "wandb/sent.json"
"""says that W&B has taken the whole run"""
STEP_KEY = "trainer/global_step"
SAMPLES_KEY, SAMPLE_TABLE_KEY = "samples", "sample_table"
NAMES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""how the record writes what JSON has no number for"""


@dataclass(frozen=True)
class Entry:
    """A piece of one row of W&B.

    Args:
        number: W&B's own step.
        values: key -> number.
        page: samples/step-<n>.html, to be logged under `SAMPLES_KEY` with its table.
    """

    number: int
    values: Mapping[str, Any]
    page: Path | None = None


@dataclass
class Follower:
    """Reads the record of a run that may still be growing.

    Args:
        folder: run folder. Where it holds rows already, training may be about to say how many of them still count: they are held back
            until the record has grown, or is over.
    """

    folder: Path
    num_damaged: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _offset: int = 0
    _number: int = -1
    _keys: set[str] = field(default_factory=set)
    _step: int | None = None
    _seen: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        path = self.folder / METRICS_FILE
        self._known = path.stat().st_size if path.is_file() else 0

    def read(self, is_over: bool) -> Iterator[Entry]:
        """What is new; with `is_over` all that is left."""
        self._take_lines(is_over)
        if self._offset <= self._known and not is_over:
            return
        rows, self._rows = self._rows, []
        for row in rows:
            step = row.pop("step", None)
            if step is not None:
                yield from self._pages(before=step + 1)
            yield self._place({key: NAMES.get(value, value) for key, value in row.items()}, step)
        if is_over:
            yield from self._pages()

    def _take_lines(self, is_over: bool) -> None:
        path = self.folder / METRICS_FILE
        if not path.is_file():
            return
        with open(path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = len(text) if is_over else text.rfind(b"\n") + 1
        self._offset += whole
        for line in text[:whole].splitlines():
            try:
                row = json.loads(line)
                mark = row.get("resumed_from_step")
            except (ValueError, AttributeError):
                self.num_damaged += 1
                continue
            if mark is None:
                self._rows.append(row)
            else:
                self._rows = [kept for kept in self._rows if kept.get("step") is None or kept["step"] < mark]

    def _pages(self, before: float = math.inf) -> Iterator[Entry]:
        """Pages of samples after fewer than `before` steps: those after k steps are shown at the last of them, k - 1."""
        for path in sorted((self.folder / "samples").glob("step-*.html")):
            count = path.stem.removeprefix("step-")
            if path not in self._seen and count.isdecimal() and int(count) < before:
                self._seen.add(path)
                placed = self._place({SAMPLES_KEY: None, SAMPLE_TABLE_KEY: None}, max(int(count) - 1, 0))
                yield Entry(placed.number, {STEP_KEY: placed.values[STEP_KEY]}, path)

    def _place(self, values: Mapping[str, Any], step: int | None) -> Entry:
        number = max(self._number, 0 if step is None else step)
        is_other = step is not None and self._step is not None and step != self._step
        if number == self._number and (is_other or self._keys & values.keys()):
            number += 1
        if number != self._number:
            self._number, self._keys, self._step = number, set(), None
        self._keys |= values.keys()
        self._step = self._step if step is None else step
        return Entry(number, values if step is None else {**values, STEP_KEY: step})


def read_json(path: Path) -> dict[str, Any]:
    """A file of the record, or nothing where it is not there or cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
