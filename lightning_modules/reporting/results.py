"""What came out of runs: figures of evaluations beside what blind answers reach, curves, last values, sheets and documents.

Nothing is computed but means over runs that differ in their seed only, with their intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_modules.reporting.groups import Groups, find_number, group_runs, split_stages
from lightning_modules.reporting.sources import EVALUATION, ITEMS, METRICS, STEP, Place, Reader
from lightning_modules.reporting.spec import Block, Cell, Curve, Number, Picture, Plot, Samples, Section, Source, Table, Term
from plait.errors import CheckpointError
from plait.evaluation.figures import find_best_blind, find_best_lookup
from plait.rendering import LEGEND

LONGEST_CURVE = 400
"""points; of longer series every k-th is shown"""
CARDS = 4
"""documents of a page of samples; of one run among repetitions a row of `ROW`"""
ROW = 3


def show_figures(reader: Reader, groups: Groups) -> Section:
    """Per configuration every figure with its interval, the best blind answer, and how the sampler was chosen."""
    blocks: list[Block] = []
    for configuration, places in groups.items():
        about, results = reader.about(places[0].folder), reader.json(places[0].folder / EVALUATION)["results"]
        rows = {key: _figure(reader, key, places, results[key]) for key in results}
        columns = (
            "figure",
            "value",
            "low",
            "high",
            "n",
            "best blind answer",
            "it reaches",
            "gap closed",
            "best lookup",
            "it reaches",
        )
        main = [key for key in rows if about.is_headline(key)]
        rest = [key for key in rows if key not in main]
        name = configuration if len(groups) > 1 else ""
        blocks.append(Table(columns, tuple(rows[key] for key in main), name))
        blocks.append(Table(columns, tuple(rows[key] for key in rest), f"{name} every other figure".strip(), is_folded=True))
        blocks += _tuning(reader, places[0])
    note = (
        "One sample per prompt. low and high: 95 % bootstrap interval, over seeds and items where a configuration has several "
        "seeds. The best blind answer did not see all of what it was asked. Gap closed: the share of the way from it to 1. A lookup sees "
        "all and computes nothing: slot_lookup pastes seen blocks into seen slots, nearest_caption hands back the most similar thing that "
        "training showed; a figure that is not above the best lookup says that seen things are found again and put together."
    )
    return Section("What it can do", tuple(blocks), note)


def _figure(reader: Reader, key: str, places: Sequence[Place], figure: Mapping[str, Any]) -> tuple[Cell, ...]:
    place, n = places[0], find_number(reader, places[0], EVALUATION, "results", key, "n")
    names = [
        found[0] if found else None for found in (find(figure["baselines"]) for find in (find_best_blind, find_best_lookup))
    ]
    blind, lookup = (
        (name, find_number(reader, place, EVALUATION, "results", key, "baselines", name)) if name else ("", "")
        for name in names
    )
    # evaluations of an older plait measured the gap from the majority, and do not say from where
    has_gap = len(places) == 1 and "gap_from" in figure
    gap = find_number(reader, place, EVALUATION, "results", key, "gap_closed") if has_gap else ""
    return (Term(key, reader.about(place.folder).explain(key)), *list_values(reader, key, places), n, *blind, gap, *lookup)


def list_values(reader: Reader, key: str, places: Sequence[Place]) -> list[Number]:
    """Value, low and high end of a figure: over seeds and items where a configuration has several evaluations, over seeds alone where
    the figure has no items of its own (a ratio to a base)."""
    values = [Source(one.id, EVALUATION, STEP.join(("results", key, "value"))) for one in places]
    if len(places) == 1:
        ends = (Source(places[0].id, EVALUATION, STEP.join(("results", key, name))) for name in ("value", "low", "high"))
        return [reader.number([end]) for end in ends]
    try:
        sources = [Source(one.id, ITEMS, key) for one in places]
        return [reader.number(sources, f"runs and items: {name}") for name in ("mean", "low", "high")]
    except CheckpointError:
        return [reader.number(values, f"runs: {name}") for name in ("mean", "low", "high")]


def _tuning(reader: Reader, place: Place) -> Iterator[Table]:
    tuning = reader.json(place.folder / EVALUATION)["facts"].get("tuning")
    if tuning and tuning["val_shares"]:
        shares = tuple(
            (
                name,
                "chosen" if name == tuning["chosen"] else "",
                find_number(reader, place, EVALUATION, "facts", "tuning", "val_shares", name),
            )
            for name in tuning["val_shares"]
        )
        yield Table(("sampler", "", "right on val"), shares, "How the sampler was chosen", is_folded=True)


def show_curves(reader: Reader, stage: str, runs: Sequence[Place]) -> Section:
    """Losses of all runs of a stage, one plot per loss."""
    keys = {key for run in runs for key in reader.run(run.folder).metrics.keys if "loss" in key}
    plots = []
    for key in sorted(keys, key=lambda key: (key.startswith("val/"), key.split("/")[-1] != "loss", key)):
        curves = []
        for run in runs:
            metrics = reader.run(run.folder).metrics
            if key in metrics.keys:
                points = list(zip(*metrics.series(key), strict=True))
                stride = -(-len(points) // LONGEST_CURVE)
                # the last point always: it is what the tables say
                shown = points[:0:-stride][::-1] if len(points) > 1 else points
                curves.append(Curve(run.label, Source(run.id, METRICS, key), tuple(shown if stride > 1 else points)))
        plots.append(Plot(key, tuple(curves)))
    return Section(f"How it went: {stage}", tuple(plots))


def show_final_values(reader: Reader, runs: Sequence[Place]) -> Section:
    """The last value of every metric: of each run, and the mean of repetitions."""
    blocks: list[Block] = []
    for stage, found in split_stages(reader, runs).items():
        keys = [
            key for key in reader.run(found[0].folder).metrics.keys if key.startswith(("train/", "val/")) and "rate" not in key
        ]
        repeated = []
        for configuration, places in group_runs(found).items():
            for key in keys if len(places) > 1 else ():
                sources = [Source(run.id, METRICS, key) for run in places if key in reader.run(run.folder).metrics.keys]
                ends = [reader.number(sources, f"runs: {name}") for name in ("mean", "low", "high")]
                repeated.append((configuration, key, *ends, reader.number(sources, "count")))
        if repeated:
            title = f"{stage}: mean over seeds, and its interval"
            blocks.append(Table(("configuration", "last value of", "mean", "low", "high", "runs"), tuple(repeated), title))
        each = tuple((key, *(find_number(reader, run, METRICS, key) for run in found)) for key in keys)
        columns = ("last value of", *(run.label for run in found))
        blocks.append(Table(columns, each, f"{stage}: every run", is_folded=bool(repeated)))
    note = "low and high: 95 % bootstrap interval over runs; with a handful of seeds it is too narrow rather than too wide."
    return Section("Where it ended", tuple(blocks), note if any("mean" in block.title for block in blocks) else "")


def show_pictures(reader: Reader, runs: Sequence[Place], evaluations: Groups) -> Section:
    """Sheets and documents of the first evaluation of each configuration, and the last samples of every run. What asks something new is
    open, recall is folded and says so; the samples of the model that was examined are never left out."""
    blocks: list[Picture | Samples] = []
    for configuration, places in evaluations.items():
        place, prefix = places[0], f"{configuration}: " if len(evaluations) > 1 else ""
        about, results = reader.about(place.folder), reader.json(place.folder / EVALUATION)["results"]
        splits = dict.fromkeys(key.split("/")[0] for key in results)
        # what is only to be looked at has no figure
        keys = [*results, *(key for split in splits for name in about.is_open if (key := f"{split}/{name}") not in results)]
        for key in sorted(keys, key=about.is_recall):
            task, name = key.split("/")[1], key.replace("/", "-")
            title = f"{prefix}{'recall, ' if about.is_recall(key) else ''}{key} ({about.explain(key)})"
            is_open = task in about.is_open and not about.is_recall(key)
            for kind, file in ((Picture, f"sheets/{name}.png"), (Samples, f"samples/{name}.json")):
                if about.is_headline(key) and (place.folder / file).is_file():
                    rank = 0 if kind is Samples and is_open else 1 if is_open else 2
                    folded = not is_open or (kind is Picture and task != about.is_open[0])
                    count = {"count": CARDS} if kind is Samples else {}
                    blocks.append(kind(title, place.id, file, is_folded=folded, rank=rank, **count))
    for number, run in enumerate(runs[::-1]):
        for page in sorted((run.folder / "samples").glob("*.json"))[-1:]:
            file = page.relative_to(run.folder).as_posix()
            count = ROW if len(runs) > 1 else CARDS
            rank = 0 if number == 0 else 2 + number
            title = f"{run.label}, {page.stem}, after training"
            blocks.append(Samples(title, run.id, file, count, is_folded=bool(evaluations), rank=rank))
    blocks.sort(key=lambda block: block.is_folded)
    return Section("What it looks like", tuple(blocks), f"The first items of each kind, not chosen. {LEGEND}")
