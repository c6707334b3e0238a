"""The job of `plait-compare`: evaluations become rows, seeds of one configuration one row, and rows are compared where that is fair.

It reads what `plait-evaluate` left and writes table.json, table.md and a W&B table. What a verdict needs is plait.evaluation's affair.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from lightning_modules.composing.arguments import checked_by
from lightning_modules.composing.recipes import list_settings
from lightning_modules.folders.records import last_checkpoint, read_config, read_job
from plait.atomic import write_json
from plait.checkpoints import read_manifest
from plait.errors import CheckpointError, RecipeError
from plait.evaluation.comparison import compare
from plait.evaluation.figures import stand
from plait.evaluation.table import write_markdown

EVALUATION = "evaluation.json"
log = logging.getLogger(__name__)


def check_rows(*, rows: Mapping[str, Sequence[str]], reference: str | None = None) -> None:
    """Refuse rows that are none, a reference that is none of them, and folders without an evaluation."""
    is_one = isinstance(rows, Mapping) and rows and not any(isinstance(row, str) for row in rows.values())
    if not is_one or not all(isinstance(row, Sequence) and row for row in rows.values()):
        raise RecipeError(
            f"rows={rows!r}: expected a list of folders under the name of each row. "
            "Next: rows={one: [outputs/one], other: [outputs/other]}."
        )
    if reference is not None and reference not in rows:
        raise RecipeError(f"reference={reference}: expected one of the rows {list(rows)}. Next: name one of them.")
    for name, places in rows.items():
        _find(name, places)


@checked_by(check_rows)
def compare_runs(*, rows: Mapping[str, Sequence[str]], folder: str, reference: str | None = None) -> dict[str, Any]:
    """Write the table of several evaluations.

    Args:
        rows: name -> folders of evaluations of one configuration that differ in their seed alone (checked), or of their runs
            (`find_evaluation`); `*` stands for any name.
        reference: the row that the others are compared with; None takes the first.

    Returns:
        The table (see `plait.evaluation.table`).

    Raises:
        RecipeError: no such reference, the evaluations of a row are not of one configuration or one is there twice, or protocols differ.
        CheckpointError: a folder holds no finished evaluation.
        DocumentError: two evaluations were not asked the same.
    """
    check_rows(rows=rows, reference=reference)
    reference = next(iter(rows)) if reference is None else reference
    found = {name: {str(place): _read_evaluation(place) for place in _find(name, places)} for name, places in rows.items()}
    for name, runs in found.items():
        _check_row(name, runs)
    protocols = {name: {place: run["facts"]["protocol"] for place, run in runs.items()} for name, runs in found.items()}
    items = {name: {place: run["items"] for place, run in runs.items()} for name, runs in found.items()}
    columns = list(dict.fromkeys(key for runs in found.values() for run in runs.values() for key in run["facts"]["headlines"]))
    figures = compare(items, protocols, reference, columns)
    table = {
        "reference": reference,
        "columns": columns,
        "rows": {name: _describe(runs, figures[name], protocols[name]) for name, runs in found.items()},
    }
    write_table(table, folder)
    return table


def write_table(table: Mapping[str, Any], folder: str | Path) -> None:
    """Write table.json and table.md."""
    place = Path(folder)
    write_json(place / "table.json", table)
    (place / "table.md").write_text("\n".join(write_markdown(table)) + "\n", encoding="utf-8")
    log.info("table: %s", place / "table.md")


def _find(name: str, places: Sequence[str]) -> list[Path]:
    """The folders of the evaluations of a row."""
    found = [path for place in places for path in (sorted(map(Path, glob(place))) if "*" in place else [Path(place)])]
    if not found:
        raise CheckpointError(f"rows.{name}={list(places)} names no folder. Expected evaluations. Next: check the paths.")
    return [find_evaluation(path) for path in found]


def find_evaluation(run: str | Path) -> Path:
    """The folder of the evaluation of a run: itself, inside it, where the newest that has finished counts, or beside it as a curriculum
    puts it.

    Raises:
        CheckpointError: there is none; with the command that makes it.
    """
    place = Path(run)
    inside = place / "evaluation"
    newest = [found for found in sorted(inside.glob("*"), reverse=True) if (read_job(found) or {}).get("state") == "finished"]
    for found in (place, inside, *newest):
        if (found / EVALUATION).is_file():
            return found
    with suppress(CheckpointError):  # it has no weights
        identity = read_manifest(last_checkpoint(place)).identity
        for found in sorted(place.parent.glob(f"*/{EVALUATION}")):
            job = read_job(found.parent) or {}
            if job.get("state") == "finished" and job.get("parents", {}).get("model") == identity:
                return found.parent
    raise CheckpointError(
        f"{place} holds no evaluation, and none is beside it. Expected one that has finished. Next: plait-evaluate run={place}."
    )


def _read_evaluation(place: Path) -> dict[str, Any]:
    try:
        job, found, items = (
            json.loads((place / name).read_text(encoding="utf-8")) for name in ("job.json", "evaluation.json", "items.json")
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{place} holds no evaluation ({error}). Expected what plait-evaluate wrote. Next: run plait-evaluate run=<run folder>."
        ) from error
    if job["state"] != "finished" or "protocol" not in found["facts"]:
        state = job["state"] if job["state"] != "finished" else "of an older plait, without a protocol"
        raise CheckpointError(f"The evaluation {place} is {state}: expected a finished one. Next: evaluate that run anew.")
    return {**found, "items": items, "parents": job["parents"], "settings": list_settings(read_config(place))}


def _check_row(name: str, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Seeds of one row differ in their weights, and in nothing that was set."""
    (first, expected), *others = runs.items()
    for place, run in others:
        fields = sorted(
            field
            for field in {*expected["settings"], *run["settings"]}
            if expected["settings"].get(field) != run["settings"].get(field)
        )
        if fields:
            values = "; ".join(f"{f}: {run['settings'].get(f)!r} against {expected['settings'].get(f)!r}" for f in fields[:5])
            raise RecipeError(
                f"rows.{name}: {place} and {first} are not one configuration, {len(fields)} settings differ ({values}). Expected runs "
                "that differ in their seed alone. Next: give each configuration a row of its own."
            )
    weights = [run["parents"].get("model") for run in runs.values()]
    if len(set(weights)) < len(weights):
        raise RecipeError(
            f"rows.{name}: {len(weights)} evaluations of {len(set(weights))} different models. Expected one evaluation per seed: the same "
            "model twice would look like less noise. Next: leave one out."
        )


def _describe(
    runs: Mapping[str, Mapping[str, Any]], figures: Mapping[str, Any], protocols: Mapping[str, Any]
) -> dict[str, Any]:
    """A row: figures over seeds, baselines as the first run has them (they are the same items)."""
    first = next(iter(runs.values()))
    with_baselines = {}
    for key, figure in figures.items():
        asked = first["results"].get(key, {})
        baselines = asked.get("baselines", {})
        standing = stand(figure["value"], figure["low"], baselines) if "gap_from" in asked or "lookup" in asked else {}
        with_baselines[key] = {**figure, "baselines": baselines, **standing}
    skipped = {key: item for run in runs.values() for key, item in run["facts"]["skipped"].items()}
    durations = {
        key: sum(run["facts"]["durations_s"].get(key, 0.0) for run in runs.values()) for key in first["facts"]["durations_s"]
    }
    return {
        "protocol": next(iter(protocols.values())),
        "runs": [{"evaluation": place, "model": run["parents"].get("model")} for place, run in runs.items()],
        "figures": with_baselines,
        "skipped": skipped,
        "durations_s": durations,
    }
