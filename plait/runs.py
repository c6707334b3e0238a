"""A run read back from its folder: config, metrics, samples, ledger, passport. No Trainer, no account, no network.

It knows file names and nothing of what a recipe means; a folder of a run that still goes on can be read as well.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from plait.checkpoints import MANIFEST
from plait.errors import CheckpointError
from plait.ledger import Ledger
from plait.samples import StoredSample, read_samples


class Metrics(Sequence[Mapping[str, Any]]):
    """Rows of metrics.jsonl in order, each {"step": ..., key: number}; `pandas.DataFrame(list(run.metrics))` reads them."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return Metrics(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    @property
    def keys(self) -> list[str]:
        """Every logged key, sorted, without "step" and "epoch"."""
        return sorted({key for row in self._rows for key in row} - {"step", "epoch"})

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """(steps, values) of one key.

        Raises:
            CheckpointError: nothing was logged under this key.
        """
        found = [(row["step"], float(row[key])) for row in self._rows if key in row]
        if not found:
            known = ", ".join(self.keys) or "nothing at all"
            raise CheckpointError(f"The run logged nothing under {key!r}. It logged {known}.")
        return [step for step, _ in found], [value for _, value in found]

    def last(self, key: str) -> float:
        """The last value of one key."""
        return self.series(key)[1][-1]

    def __repr__(self) -> str:
        return f"Metrics({len(self)} rows, keys: {', '.join(self.keys)})"


class Run:
    """A run folder.

    Args:
        folder: what a training command wrote.

    Raises:
        CheckpointError: the folder holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not any((self.folder / name).is_file() for name in ("passport.json", "job.json", "metrics.jsonl")):
            raise CheckpointError(
                f"{folder} is no run folder: expected passport.json, job.json or metrics.jsonl. Check the path."
            )

    @cached_property
    def passport(self) -> dict[str, Any]:
        """Where the run comes from: commit, config and its hash, data, environment, seeds, parents, and how it ended."""
        return self._json("passport.json")

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        return self.passport["config"]

    @cached_property
    def ledger(self) -> Ledger:
        """What was trained, and the proof."""
        self._json("ledger.json")
        return Ledger.read(self.folder / "ledger.json")

    @cached_property
    def metrics(self) -> Metrics:
        """Everything that was logged; rows of work that a resume did again are left out."""
        path = self.folder / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), start=1):
            row = _read_row(path, number, line)
            if "resumed_from_step" in row:
                rows = [kept for kept in rows if kept["step"] is None or kept["step"] < row["resumed_from_step"]]
            else:
                rows.append(row)
        return Metrics(rows)

    @cached_property
    def cost(self) -> dict[str, int | float | None]:
        """What training cost: seconds of the whole job, peak memory, what was trained on (tokens or images), and FLOPs by the rule
        6 x trained parameters x tokens (a forward pass is a third of a step; frozen parameters still cost two thirds of theirs)."""
        metrics = self.metrics
        cost: dict[str, Any] = {"parameters": self.ledger.parameters, "parameters_trained": self.ledger.trainable_parameters}
        cost["duration_s"] = self._json("job.json").get("duration_s")
        if "perf/peak_memory_mib" in metrics.keys:
            cost["peak_memory_mib"] = metrics.last("perf/peak_memory_mib")
        for unit in ("tokens", "images"):
            if f"perf/rate_{unit}_per_s" in metrics.keys:
                steps, rates = metrics.series(f"perf/rate_{unit}_per_s")
                durations = metrics.series("perf/step_duration_s")[1]
                spans = [step - before for step, before in zip(steps, [-1, *steps], strict=False)]
                counts = [rate * duration * span for rate, duration, span in zip(rates, durations, spans, strict=True)]
                cost[unit] = round(sum(counts))
        if "tokens" in cost:
            cost["training_flops_by_rule"] = 6.0 * cost["parameters_trained"] * cost["tokens"]
        return cost

    @property
    def samples(self) -> list[StoredSample]:
        """Every stored sample, in the order of its page."""
        return list(self._iterate_samples())

    @property
    def latest_samples(self) -> list[StoredSample]:
        """Those of its last page."""
        samples = self.samples
        return [sample for sample in samples if sample.page == samples[-1].page]

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint folder.

        Raises:
            CheckpointError: the run has none yet.
        """
        path = self.folder / "checkpoints" / "last.ckpt"
        if not (path / MANIFEST).is_file():
            raise CheckpointError(f"{self.folder} has no checkpoint yet: expected {path}.")
        return path

    @property
    def is_complete(self) -> bool:
        """Whether the job ended well (not whether it is still going on)."""
        for name, key in (("job.json", "state"), ("passport.json", "state")):
            if (self.folder / name).is_file():
                return self._json(name).get(key) == "finished"
        return False

    def _iterate_samples(self) -> Iterator[StoredSample]:
        for path in sorted((self.folder / "samples").glob("*.json")):
            try:
                yield from read_samples(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".html"))
            except (ValueError, RecursionError) as error:
                raise CheckpointError(f"{path} is damaged: {error}. Delete the file to read the rest.") from error

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist: the run was stopped before it, or it is no training run.")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged: {error}.") from error

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {'complete' if self.is_complete else 'not complete'})"


def _read_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}, line {number} is damaged: {error}. Delete the line to read the rest.") from error
    return {key: float(value) if value in ("nan", "inf", "-inf") else value for key, value in row.items()}
