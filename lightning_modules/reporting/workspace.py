"""A report as a W&B report, by `wandb-workspaces`: the same tables as Markdown, curves as live panels over the runs.

Without an account it is its JSON (what W&B stores as the spec of a report); with an entity it is saved there as a draft. Panels ask
W&B for their curves, so they show what was sent or synchronised; the numbers in the tables are those of the files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_modules.mirroring.record import STEP_KEY
from lightning_modules.reporting.markdown import list_numbers, write_section
from lightning_modules.reporting.page import relate
from lightning_modules.reporting.spec import Plot, Report, Section
from plait.errors import RecipeError

LONGEST_TITLE = 128


def build_workspace(report: Report, place: Path, *, project: str = "plait", entity: str = "") -> Any:
    """The report as an object of `wandb_workspaces.reports.v2`; nothing is asked of the network unless there is an entity.

    Args:
        place: folder where its JSON will lie; the folders of the runs are said relative to it.
        project, entity: of W&B.

    Raises:
        RecipeError: the package is not installed.
    """
    api = _import()
    blocks = [api.TableOfContents()]
    for section in report.sections:
        lines = "\n".join(line for line in write_section(section, 2) if not line.startswith("## "))
        plots = [block for block in section.blocks if isinstance(block, Plot)]
        if lines or plots:
            blocks.append(api.H2(section.title))
            blocks += [api.MarkdownBlock(lines)] if lines else []
            blocks += [_panels(api, report, section, plots, project, entity)] if plots else []
    numbers = {"runs": relate(report.folders, place), "numbers": list_numbers(report)}
    blocks += [api.H2("Where every number was read"), api.CodeBlock(json.dumps(numbers), language="json")]
    title = report.title[:LONGEST_TITLE]
    return api.Report(project=project, entity=entity, title=title, description="", blocks=blocks, width="fluid")


def write_workspace(report: Any, path: Path) -> None:
    """Write what W&B would store."""
    text = report._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _panels(api: Any, report: Report, section: Section, plots: list[Plot], project: str, entity: str) -> Any:
    runset = api.Runset(entity=entity, project=project, name=section.title, filters=_choose(report.tracked))
    panels = [
        api.LinePlot(
            title=plot.title,
            x=STEP_KEY,
            y=[plot.title],
            layout=api.Layout(x=8 * (number % 3), y=6 * (number // 3), w=8, h=6),
        )
        for number, plot in enumerate(plots)
    ]
    return api.PanelGrid(runsets=[runset], panels=panels)


def _choose(tracked: tuple[str, ...]) -> str:
    return f"Metric('ID') in [{', '.join(_quoted(tracked))}]" if tracked else ""


def _quoted(names: tuple[str, ...]) -> Iterator[str]:
    return (f"'{name}'" for name in names)


def _import() -> Any:
    try:
        import wandb_workspaces.reports.v2 as api
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("wandb_workspaces"):
            raise
        raise RecipeError(
            "target=wandb builds a report of W&B, which needs the package wandb-workspaces: it is not installed. "
            "Next: pip install 'plait[reports]', or leave target=page."
        ) from error
    return api
