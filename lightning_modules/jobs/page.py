"""The job of `plait-report`: a report about finished runs as a page (and as a W&B report), or the verification of one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from lightning_modules.reporting.content import describe_runs
from lightning_modules.reporting.markdown import render_markdown
from lightning_modules.reporting.page import render_page
from lightning_modules.reporting.sources import find_places, read_json
from lightning_modules.reporting.spec import Report
from lightning_modules.reporting.verification import Verdict, is_report, verify_report
from lightning_modules.reporting.workspace import build_workspace, list_sources, send_sources, write_workspace
from plait.atomic import write_json, write_text
from plait.errors import CheckpointError, RecipeError
from plait.runs import Run

SHOWN = 10
log = logging.getLogger(__name__)


def write_report(
    *,
    runs: Sequence[str],
    folder: str,
    evaluation: str | None = None,
    title: str = "report",
    page: str | None = None,
    target: Literal["page", "wandb"] = "page",
    verify: str | None = None,
    project: str = "plait",
    entity: str | None = None,
    summary: str | None = None,
    expected: Mapping[str, Sequence[float]] | str | None = None,
) -> str:
    """Write a report, or verify one.

    Args:
        runs: folders of runs and evaluations, or of a multirun, a curriculum, a study that hold them.
        evaluation: one more folder.
        page: where it goes, .html or .md; by default `folder`/report.html.
        target: wandb adds a W&B report: its JSON beside the page, and in W&B itself where there is an entity.
        verify: a report that is read again instead; `runs` then says where runs lie that have moved.
        project, entity: of W&B.
        expected: figure name -> (lowest, highest) of several runs of the recipe, or the same as a text of YAML; what lies below is said
            first.
        summary: path for a copy of the evaluation's flat summary, with the cost of every run added; an older one is replaced.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: a folder holds no run, or a number of the report that is verified does not hold.
        RecipeError: an unknown target, or nothing to report about.
    """
    named = [*runs, *([evaluation] if evaluation else [])]
    if verify is not None:
        _refuse_wrong(verify, verify_report(verify, {place.id: place.folder for place in find_places(named)}))
        return verify
    path = Path(page or Path(folder) / "report.html")
    if target not in ("page", "wandb"):
        raise RecipeError(f"target={target}: expected page or wandb (the path of the page is page=<file>).")
    if path.suffix not in (".html", ".md"):
        raise RecipeError(f"page={path}: expected a file that ends in .html or .md.")
    if not named:
        raise RecipeError("A report about which runs? Expected runs=[<folder>,...]; a multirun or a curriculum is one folder.")
    if summary is not None:
        _check_summary(Path(summary))
    if path.exists() and not is_report(path):
        raise RecipeError(
            f"page={path} is a file already, and no report. Expected a new file, or an older report, which is "
            "replaced. Next: give another page=<file>."
        )
    report = describe_runs(named, title, _read_expected(expected))
    path.parent.mkdir(parents=True, exist_ok=True)
    render = render_page if path.suffix == ".html" else render_markdown
    write_text(path, render(report, path.parent))
    _log_verdict(path)
    if target == "wandb":
        _send(report, path, project, entity)
    if summary is not None:
        write_json(summary, _summarise(report, evaluation))
    return str(path)


def _check_summary(path: Path) -> None:
    try:
        found = read_json(path) if path.exists() else {}
    except CheckpointError:
        found = None
    if not isinstance(found, dict) or not all("/" in name for name in found):  # as the names of figures are
        raise RecipeError(
            f"summary={path} is there already, and is no summary. Expected a new file, or an older summary. Next: another."
        )


def _read_expected(expected: Mapping[str, Sequence[float]] | str | None) -> dict[str, tuple[float, ...]]:
    """What a curriculum hands over stands in one word of its command, so it is a text there."""
    try:
        given = yaml.safe_load(expected) if isinstance(expected, str) else expected
        return {str(key): tuple(float(end) for end in ends) for key, ends in dict(given or {}).items()}
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise RecipeError(
            f"expected={expected!r} cannot be read ({error}): expected a figure and its range, as {{val/captions: [0.8, 1.0]}}."
        ) from error


def _send(report: Report, path: Path, project: str, entity: str | None) -> None:
    stored, sources = path.with_suffix(".wandb.json"), path.with_suffix(".wandb.sources.json")
    sources.write_text(list_sources(report, path.parent), encoding="utf-8")
    write_workspace(build_workspace(report, path.parent, project=project, sources=str(sources)), stored)
    _log_verdict(stored)
    if entity is not None:
        send_sources(sources, project=project, entity=entity)
        saved = build_workspace(report, path.parent, project=project, entity=entity, sources=str(sources)).save(draft=True)
        log.info("W&B report (a draft): %s", saved.url)


def _log_verdict(path: Path) -> None:
    verdict = verify_report(path)
    size = path.stat().st_size / 1e6
    log.info("%s (%.1f MB): %s", path, size, _count(verdict))
    for line in (*verdict.wrong, *verdict.unverified)[:SHOWN]:
        log.warning("%s", line)


def _count(verdict: Verdict) -> str:
    read = f"{verdict.numbers} numbers and {verdict.points} points of curves read again"
    return f"{read}, {len(verdict.wrong)} wrong, {len(verdict.unverified)} unverified"


def _refuse_wrong(path: str, verdict: Verdict) -> None:
    if not verdict.is_right:
        found = (*verdict.wrong, *verdict.unverified)
        listed = "\n".join(f"- {line}" for line in found[:SHOWN])
        more = f"\n... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise CheckpointError(
            f"{path} does not say what its runs say: {_count(verdict)}. Expected every number as its file has it.\n{listed}{more}\n"
            "Next: write the report anew; for runs that have moved, give their folders in runs=[...]."
        )
    log.info("%s: %s", path, _count(verdict))


def _summarise(report: Report, evaluation: str | None) -> Mapping[str, Any]:
    found = {} if evaluation is None else read_json(Path(evaluation) / "summary.json")
    for folder in report.folders.values():
        if (Path(folder) / "ledger.json").is_file():
            found |= {f"cost/{Path(folder).name}/{name}": value for name, value in Run(folder).cost.items()}
    return found
