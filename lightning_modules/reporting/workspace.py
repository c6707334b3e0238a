"""A report as a W&B report, by `wandb-workspaces`: sentences, samples as pictures, tables as Markdown, curves as live panels over the runs.

Without an account it is its JSON (what W&B stores as the spec of a report); with an entity it is saved there as a draft. Every sample of
the page is a picture inside the JSON (a data URI), drawn from its record by the renderer of all other places. Panels ask W&B for their
curves, each for the runs of its own stage, one set of runs per configuration; the numbers are those of the files, and where each was read
stands in a file of its own beside the JSON, which goes with the report as an artifact.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_modules.reporting.embedding import embed_picture, open_samples, to_webp
from lightning_modules.reporting.markdown import list_numbers, write_block
from lightning_modules.reporting.page import place_blocks, relate
from lightning_modules.reporting.spec import Block, Picture, Plot, Report, Samples, Section, Strip
from lightning_modules.tracking.mirroring.record import SAMPLES_KEY, STEP_KEY
from plait.errors import RecipeError
from plait.rendering import draw_sample
from plait.samples import StoredSample

LONGEST_TITLE = 128
SOURCES = "plait-report-sources"
"""type of the artifact that says where every number was read"""


def build_workspace(report: Report, place: Path, *, project: str = "plait", entity: str = "", sources: str = "") -> Any:
    """The report as an object of `wandb_workspaces.reports.v2`; nothing is asked of the network unless there is an entity.

    Args:
        place: folder where its JSON will lie.
        project, entity: of W&B.
        sources: the file of `list_sources`, written before.

    Raises:
        RecipeError: the package is not installed.
        CheckpointError: a picture or a sample of a run is damaged.
    """
    api = _import()
    blocks, kept = [], place_blocks(report)
    for section in report.sections:
        own = [block for block in section.blocks if not isinstance(block, Picture | Samples | Strip) or block in kept]
        written = [one for block in own for one in _write(api, report, block)]
        plots = [block for block in own if isinstance(block, Plot)]
        if written or plots:
            blocks += [api.H2(section.title)] if blocks else []
            blocks += [api.MarkdownBlock(section.note)] if section.note else []
            blocks += written
            blocks += [_panels(api, report, section, plots, project, entity)] if plots else []
        if section is report.sections[0]:
            blocks += [api.TableOfContents(), *_live_samples(api, report, project, entity)]
    blocks += [api.H2("Where every number was read"), api.MarkdownBlock(_name_sources(Path(sources)))] if sources else []
    title = report.title[:LONGEST_TITLE]
    return api.Report(project=project, entity=entity, title=title, description="", blocks=blocks, width="fluid")


def list_sources(report: Report, place: Path) -> str:
    """Where every number was read, as JSON: the file that goes with the report.

    Args:
        place: folder where it will lie; the folders of the runs are said relative to it.
    """
    return json.dumps({"runs": relate(report.folders, place), "numbers": list_numbers(report)}, indent=0) + "\n"


def write_workspace(report: Any, path: Path) -> None:
    """Write what W&B would store."""
    text = report._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def send_sources(path: Path, *, project: str, entity: str) -> None:
    """Hand the file of sources over as an artifact of a run of its own, which belongs to the report."""
    import wandb

    with wandb.init(project=project, entity=entity, job_type="report", name=path.stem) as run:
        artifact = wandb.Artifact(_name_artifact(path), type=SOURCES)
        artifact.add_file(str(path))
        run.log_artifact(artifact)


def _name_artifact(path: Path) -> str:
    return f"sources-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _name_sources(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        f"Sources: `{path.name}`, sha256 `{digest}`. It is the artifact `{_name_artifact(path)}` of this project and lies beside the "
        "JSON of this report; `plait-report verify=<that JSON>` reads every number again."
    )


def _write(api: Any, report: Report, block: Block) -> Iterator[Any]:
    """A block; pictures with what a reader without eyes needs."""
    if isinstance(block, Picture):
        yield api.Image(url=embed_picture(report, block), caption=block.title)
    elif isinstance(block, Samples):
        yield api.H3(block.title)
        yield from (_show(api, sample) for sample in open_samples(report, block)[1])
    elif isinstance(block, Strip):
        for one in block.samples:
            yield from (_show(api, sample, one.title) for sample in open_samples(report, one)[1])
    elif not isinstance(block, Plot):
        text = "\n".join(write_block(block, 2)).strip()
        yield from [api.MarkdownBlock(text)] if text else []


def _show(api: Any, sample: StoredSample, title: str = "") -> Any:
    right = sample.scores.get("right")
    seed = "" if sample.seed is None else f", seed {sample.seed}"
    said = [
        title or sample.title,
        f"given: {sample.asked}" if sample.asked else "",
        f"made: {sample.answer}" if sample.answer else "",
    ]
    caption = " · ".join(word for word in (*said, {True: "right", False: "not right"}.get(right, "")) if word) + seed
    return api.Image(url=to_webp(draw_sample(sample, is_right=right if isinstance(right, bool) else None)), caption=caption)


def _panels(api: Any, report: Report, section: Section, plots: Sequence[Plot], project: str, entity: str) -> Any:
    runs = dict.fromkeys(curve.source.run for plot in plots for curve in plot.curves)
    panels = [
        api.LinePlot(
            title=plot.title,
            x=STEP_KEY,
            y=[plot.title],
            layout=api.Layout(x=8 * (number % 3), y=6 * (number // 3), w=8, h=6),
        )
        for number, plot in enumerate(plots)
    ]
    return api.PanelGrid(runsets=_choose(api, report, list(runs), project, entity), panels=panels)


def _live_samples(api: Any, report: Report, project: str, entity: str) -> list[Any]:
    """The samples of every look of the runs, as W&B keeps them: one panel with a slider over the steps."""
    runs = [run for run in report.tracked if any(curve.source.run == run for curve in _curves(report))]
    if not any(report.tracked[run] for run in runs):
        return []
    panel = api.MediaBrowser(title="samples while it trained", media_keys=[SAMPLES_KEY], gallery_axis="step", mode="gallery")
    panel.layout = api.Layout(x=0, y=0, w=24, h=12)
    return [api.PanelGrid(runsets=_choose(api, report, runs, project, entity), panels=[panel])]


def _curves(report: Report) -> Iterator[Any]:
    return (curve for section in report.sections for block in section.blocks for curve in getattr(block, "curves", ()))


def _choose(api: Any, report: Report, runs: Sequence[str], project: str, entity: str) -> list[Any]:
    """A set of runs per configuration, which holds its repetitions and nothing else."""
    sets: dict[str, list[str]] = {}
    for run in runs:
        sets.setdefault(report.configurations.get(run, run), []).extend(report.tracked.get(run, ()))
    return [
        api.Runset(entity=entity, project=project, name=name, filters=f"Metric('ID') in [{', '.join(_quote(ids))}]")
        for name, ids in sets.items()
        if ids
    ] or [
        api.Runset(entity=entity, project=project, name="no run of this report is in W&B", filters="Metric('ID') in ['none']")
    ]


def _quote(names: Sequence[str]) -> Iterator[str]:
    return (f"'{name}'" for name in names)


def read_sources(stored: Mapping[str, Any], path: Path) -> str:
    """The file of sources that a stored report names, which lies beside it.

    Raises:
        ValueError: the report names none, or another file lies there.
    """
    for block in stored["spec"]["blocks"]:
        words = block.get("content", "").split("`") if block["type"] == "markdown-block" else ()
        if words and words[0] == "Sources: ":
            text = (path.parent / Path(words[1]).name).read_text(encoding="utf-8")
            if hashlib.sha256(text.encode()).hexdigest() != words[3]:
                raise ValueError(f"{words[1]} is not the file that this report was written with")
            return text
    raise ValueError("it names no file of sources")


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
