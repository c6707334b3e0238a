"""Runs in order: repetitions of one configuration, and runs of one stage. A number of a run, or an empty cell where it has none."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_modules.reporting.sources import EVALUATION, STEP, Place, Reader, find_places
from lightning_modules.reporting.spec import Cell, Source
from plait.errors import CheckpointError

Groups = Mapping[str, Sequence[Place]]
"""configuration -> its repetitions, which differ in their seed"""


def group_runs(places: Sequence[Place]) -> Groups:
    """Repetitions together, in the order in which they were found."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.configuration, []).append(place)
    return found


def split_stages(reader: Reader, runs: Sequence[Place]) -> dict[str, list[Place]]:
    """stage -> its runs, in order."""
    found: dict[str, list[Place]] = {}
    for run in runs:
        found.setdefault(reader.run(run.folder).passport["stage"], []).append(run)
    return found


def find_number(reader: Reader, place: Place, file: str, *key: str, rule: str = "value", form: str | None = None) -> Cell:
    """A number of one run, or an empty cell where the run has none."""
    source = Source(place.id, file, STEP.join(key))
    try:
        return reader.number([source], rule, form)
    except (CheckpointError, KeyError):
        return ""


def find_evaluations(folder: str | Path) -> dict[str, list[str]]:
    """configuration -> the folders of its finished evaluations, one per seed, as `plait-compare` takes them: of a study or multirun.

    A run that was examined several times counts with its last evaluation.

    Raises:
        CheckpointError: there is no evaluation below the folder.
    """
    found: dict[str, list[str]] = {}
    for place in find_places([str(folder)]):
        own = [place.folder] if place.is_evaluation else sorted(path.parent for path in place.folder.glob(f"**/{EVALUATION}"))
        if own:
            found.setdefault(place.configuration.removesuffix("/evaluation"), []).append(str(own[-1]))
    if not found:
        raise CheckpointError(f"{folder} holds runs and no evaluation of them. Next: plait-evaluate -m run=<folder>,<folder>.")
    return found
