"""Where the numbers of a report come from: the runs below a folder, and the value that a file of a run holds under a key.

The same functions read a number when a report is built and when it is verified. They know file names and no task.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.reporting.spec import Number, Source
from lightning_modules.tracking.mirroring.record import MIRROR_FILE
from plait.checkpoints import MANIFEST
from plait.errors import CheckpointError
from plait.evaluation.about import About
from plait.evaluation.arms import compare_arms
from plait.evaluation.statistics import bootstrap_mean
from plait.runs import Run
from plait.worlds.emoji.examinations.plan import ABOUT

TRACKED_ID = re.compile(r"[\w-]+")
METRICS, ITEMS, EVALUATION, STEP = "metrics.jsonl", "items.json", "evaluation.json", " > "
DEPTH = 4
"""of folders below the one that is named: study, arm, seed, stage"""


@dataclass(frozen=True)
class Place:
    """A run or an evaluation that was found.

    Args:
        folder: of the job.
        id: of the job (job.json).
        label: tells it from the others: its overrides in a multirun, else its folder.
        configuration: the label without the seed; runs that share it are repetitions.
    """

    folder: Path
    id: str
    label: str
    configuration: str

    @property
    def is_evaluation(self) -> bool:
        """Whether it examined a model; otherwise it trained one."""
        return (self.folder / EVALUATION).is_file()

    @property
    def has_begun(self) -> bool:
        """Whether it came as far as its first step: it has a ledger."""
        return (self.folder / "ledger.json").is_file()


def find_places(folders: Sequence[str]) -> list[Place]:
    """The finished or unfinished runs and the evaluations that folders are or hold: a run, a multirun, a curriculum, a study.

    Raises:
        CheckpointError: a folder holds none, or a job has no record.
    """
    found: list[tuple[Path, Path]] = []
    for name in folders:
        below = list(_walk(Path(name), DEPTH))
        if not below:
            raise CheckpointError(
                f"{name} is no run folder and holds none: expected passport.json or evaluation.json in it, or in the folders of a "
                "multirun or curriculum below it. Next: check the path."
            )
        found += [(Path(name), folder) for folder in below]
    unique = list({folder.resolve(): (root, folder) for root, folder in found}.values())
    labels = _name_all(unique)
    return [
        Place(folder, _read_id(folder), label, _without_seed(label)) for (_, folder), label in zip(unique, labels, strict=True)
    ]


def find_tracked(folder: Path) -> tuple[str, ...]:
    """The ids under which W&B knows a run; a run that was resumed has several folders there and one id."""
    names = [path.name.rsplit("-", 1)[-1] for path in sorted((folder / "wandb").glob("*run-*"))]
    if (folder / MIRROR_FILE).is_file():
        names.append(str(read_json(folder / MIRROR_FILE).get("id")))
    return tuple(name for name in dict.fromkeys(names) if TRACKED_ID.fullmatch(name))


def _name_all(found: Sequence[tuple[Path, Path]]) -> list[str]:
    """A label for each (named folder, run below it): its path, in which the number of a job of a multirun is what it overrides."""
    paths = [[folder] if folder == root else [root / part for part in _steps(root, folder)] for root, folder in found]
    overrides = {path: _read_overrides(path) for path in {path for steps in paths for path in steps} if path.name.isdigit()}
    given = [set(words) for words in overrides.values() if words]
    common = set.intersection(*given) if len(given) > 1 else set()
    own = {path: " ".join(word for word in words if word not in common) for path, words in overrides.items()}
    # a bare number would look like a figure without a source
    labels = ["/".join(own.get(path) or path.name for path in steps) for steps in paths]
    labels = [f"run {label}" if label.isdigit() else label for label in labels]
    return [
        f"{folder.parent.name}/{label}" if labels.count(label) > 1 else label
        for (_, folder), label in zip(found, labels, strict=True)
    ]


def _steps(root: Path, folder: Path) -> Iterator[Path]:
    parts = folder.relative_to(root).parts
    return (Path(*parts[: end + 1]) for end in range(len(parts)))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    if any((folder / name).is_file() for name in ("passport.json", EVALUATION)):
        yield folder
    elif depth and folder.is_dir():
        for child in sorted(folder.iterdir(), key=_order):
            # `.old-1` is what a curriculum has set aside
            if child.is_dir() and ".old-" not in child.name and not (child / MANIFEST).is_file():
                yield from _walk(child, depth - 1)


def _order(folder: Path) -> tuple[int, float, str]:
    """Jobs of a multirun by their number, stages by their start."""
    job = read_json(folder / "job.json") if (folder / "job.json").is_file() else {}
    return (int(folder.name) if folder.name.isdigit() else -1, job.get("started", 0.0), folder.name)


def _read_overrides(folder: Path) -> list[str]:
    path = folder / "hydra" / "overrides.yaml"
    return list(yaml.safe_load(path.read_text(encoding="utf-8")) or ()) if path.is_file() else []


def _read_id(folder: Path) -> str:
    if not (folder / "job.json").is_file():
        raise CheckpointError(
            f"{folder} has no job.json, which holds the id of a run: a report names every number by it. Next: run it by a command "
            "of plait, or leave it out."
        )
    return read_json(folder / "job.json")["id"]


def _without_seed(label: str) -> str:
    parts = [" ".join(word for word in part.split() if not word.startswith(("seed=", "seed-"))) for part in label.split("/")]
    return "/".join(part for part in parts if part) or "all seeds"


def read_json(path: Path | str) -> Any:
    """The content of a JSON file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): finish the run or evaluation first.") from error


class Reader:
    """Reads values; each file once.

    Args:
        folders: id of a run -> its folder.
    """

    def __init__(self, folders: Mapping[str, Path | str]) -> None:
        self.folders = {run: Path(folder) for run, folder in folders.items()}
        self.json = lru_cache(maxsize=None)(read_json)
        self.run = lru_cache(maxsize=None)(Run)
        self.over_seeds = lru_cache(maxsize=None)(self._compare)

    def number(self, sources: Sequence[Source], rule: str = "value", form: str | None = None) -> Number:
        """The number that a rule makes of sources; whole numbers and fractions have forms of their own."""
        value = self.value(tuple(sources), rule)
        if form is None:
            form = ",d" if isinstance(value, int) else ".3f" if 1e-3 <= abs(value) < 1e4 or value == 0 else ".3g"
        return Number(value, tuple(sources), rule, form)

    def value(self, sources: tuple[Source, ...], rule: str) -> float:
        """What the files say now.

        Raises:
            CheckpointError: a run is not known, a file is missing, or it has no such number.
        """
        if rule not in RULES:
            raise CheckpointError(f"{rule!r} is no rule for a number: expected one of {', '.join(RULES)}.")
        value = RULES[rule](self, sources)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(
                f"{sources[0].file} of run {sources[0].run} holds no number under {sources[0].key!r}: {value!r}."
            )
        return value

    def read(self, source: Source) -> Any:
        """What lies under one key of one file."""
        folder = self.folder(source.run)
        if source.file == METRICS:
            return self.run(folder).metrics.last(source.key)
        value = self.json(folder / source.file)
        for word in source.key.split(STEP):
            try:
                value = value[int(word) if isinstance(value, list) else word]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise CheckpointError(f"{source.file} of run {source.run} has nothing under {source.key!r}.") from error
        return value

    def about(self, evaluation: Path) -> About:
        """What the figures of an evaluation say; those of an older plait are of the default world and leave it unsaid."""
        found = self.json(evaluation / EVALUATION)["facts"].get("about")
        return About.from_json(found) if found else ABOUT

    def folder(self, run: str) -> Path:
        """The folder of a run.

        Raises:
            CheckpointError: it is not known, or another job lies there now.
        """
        if run not in self.folders:
            raise CheckpointError(f"run {run} is not known here: give its folder in runs=[...].")
        folder = self.folders[run]
        found = self.json(folder / "job.json").get("id")
        if found != run:
            raise CheckpointError(f"{folder} holds run {found}, expected {run}: it was made anew.")
        return folder

    def _compare(self, runs: tuple[str, ...]) -> dict[str, Any]:
        items = {number: self.json(self.folder(run) / ITEMS) for number, run in enumerate(runs)}
        return compare_arms({"all": items}, "all")["all"]


def _take(sources: tuple[Source, ...], reader: Reader) -> list[float]:
    return [reader.read(source) for source in sources]


def _interval(end: str) -> Callable[[Reader, tuple[Source, ...]], float]:
    return lambda reader, sources: getattr(bootstrap_mean(_take(sources, reader)), end)


def _over_seeds(end: str) -> Callable[[Reader, tuple[Source, ...]], float]:
    def compute(reader: Reader, sources: tuple[Source, ...]) -> float:
        figures = reader.over_seeds(tuple(source.run for source in sources))
        if sources[0].key not in figures:
            raise CheckpointError(f"{ITEMS} of run {sources[0].run} has no figure {sources[0].key!r}.")
        return figures[sources[0].key][end]

    return compute


RULES: dict[str, Callable[[Reader, tuple[Source, ...]], Any]] = {
    "value": lambda reader, sources: reader.read(sources[0]),
    "cost": lambda reader, sources: reader.run(reader.folder(sources[0].run)).cost[sources[0].key],
    "length": lambda reader, sources: len(reader.read(sources[0])),
    "count": lambda reader, sources: len(_take(sources, reader)),
    **{f"runs: {name}": _interval(end) for name, end in (("mean", "value"), ("low", "low"), ("high", "high"))},
    **{f"runs and items: {name}": _over_seeds(end) for name, end in (("mean", "value"), ("low", "low"), ("high", "high"))},
}
"""Rule -> the number that it makes of sources. "runs" is the bootstrap over runs, "runs and items" over the judged items too."""
