"""The common table of several configurations for people: a figure, the verdicts as rows, the sheets, and in words what follows.

Everything is read from the table that `plait-compare` makes; nothing is judged here. A sentence says what the numbers say and what
they leave open: how large a difference could still be there unseen.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from plait.evaluation.comparison import LEAST_SEEDS, LEVEL, TOO_FEW, UNDECIDED
from plait.evaluation.figures import find_best_blind, find_best_lookup
from plait.evaluation.table import spell_figure
from plait.rendering import PAPER, contact_sheet

COLORS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#c2255c", "#1098ad", "#9c36b5", "#e67700", "#495057")
BLIND = "#adb5bd"
LEGEND_LETTERS = 75
"""what a line of the legend has room for"""


def draw_table(table: Mapping[str, Any]) -> Figure:
    """Per column one point with its 95 % interval for each configuration, small points for its seeds, the best blind answer as a grey bar
    and the best lookup as a dotted one. Columns that are no shares (bits, slopes) have a panel of their own."""
    rows: Mapping[str, Any] = table["rows"]
    shown = [key for key in table["columns"] if any(key in row["figures"] for row in rows.values())]
    shares = [key for key in shown if all(_is_share(row["figures"][key]) for row in rows.values() if key in row["figures"])]
    panels = [group for group in (shares, *([key] for key in shown if key not in shares)) if group]
    heights = [0.7 + 0.2 * (1 + len(rows)) * len(panel) for panel in panels]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    for panel, axis in zip(panels, figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0], strict=True):
        _draw_panel(axis, panel, rows)
        if panel is shares:
            axis.set_xlim(-0.02, 1.02)
    longest = max(len(name) for name in (*rows, "best blind answer"))
    columns = max(1, min(4, LEGEND_LETTERS // (longest + 6), len(rows) + 1))
    figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False)
    return figure


def _draw_panel(axis: Any, keys: Sequence[str], rows: Mapping[str, Any]) -> None:
    step = 1 / (len(rows) + 1)
    for place, key in enumerate(keys):
        first = next(row["figures"][key] for row in rows.values() if key in row["figures"])
        span = (place - 0.5 + step / 2, place + 0.5 - step / 2)
        for label, find, style in (("best blind answer", find_best_blind, "-"), ("best lookup", find_best_lookup, ":")):
            if found := find(first["baselines"]):
                is_first = label not in axis.get_legend_handles_labels()[1]
                axis.plot([found[1]] * 2, span, color=BLIND, linewidth=4, linestyle=style, label=label if is_first else None)
    for number, (name, row) in enumerate(rows.items()):
        color = COLORS[number % len(COLORS)]
        found = [(place, row["figures"][key]) for place, key in enumerate(keys) if key in row["figures"]]
        heights = [place - 0.5 + (number + 1) * step for place, _ in found]
        for height, (_, figure) in zip(heights, found, strict=True):
            seeds = list(figure["seeds"].values())
            axis.plot(seeds, [height] * len(seeds), ".", color=color, alpha=0.35, markersize=7)
        values = [figure["value"] for _, figure in found]
        # rounding may put a mean of equal values just outside of its interval
        ends = [[max(0.0, f["value"] - f["low"]) for _, f in found], [max(0.0, f["high"] - f["value"]) for _, f in found]]
        axis.errorbar(values, heights, xerr=ends, fmt="o", color=color, markersize=6, capsize=3, label=name)
    axis.set_yticks(range(len(keys)), keys)
    axis.set_ylim(len(keys) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)


def _is_share(figure: Mapping[str, Any]) -> bool:
    return 0 <= figure["low"] <= figure["high"] <= 1


def list_verdicts(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per comparison: column, configuration, its difference from the reference with interval, the adjusted p, the verdict."""
    return [
        {
            "column": key,
            "configuration": name,
            f"minus {table['reference']}": spell_figure(gap, "+.2f"),
            "p, adjusted": round(gap["p_adjusted"], 3) if "p_adjusted" in gap else "",
            "verdict": gap["verdict"],
        }
        for name, key, gap in _iterate_gaps(table)
    ]


def conclude(table: Mapping[str, Any]) -> list[str]:
    """What can and what cannot be concluded, a sentence each."""
    rows, reference = table["rows"], table["reference"]
    all_gaps = list(_iterate_gaps(table))
    gaps = [item for item in all_gaps if item[2]["verdict"] != TOO_FEW]
    counts = {name: len(row["runs"]) for name, row in rows.items()}
    said = []
    if gaps:
        said.append(
            f"{len(gaps)} differences from {reference} were judged together (Holm): where nothing differs, the chance of even one wrong "
            f"winner is {LEVEL:.0%}."
        )
    for name in rows:
        if name == reference:
            continue
        own = [(key, gap) for row, key, gap in gaps if row == name]
        decided = [(key, gap) for key, gap in own if gap["verdict"] != UNDECIDED]
        for winner in dict.fromkeys(gap["verdict"] for _, gap in decided):
            wins = [f"{key} ({spell_figure(gap, '+.2f')})" for key, gap in decided if gap["verdict"] == winner]
            loser = reference if winner == name else name
            said.append(f"{winner} is better than {loser} on {', '.join(wins)}; the differences are {name} minus {reference}.")
        same = [key for key, gap in own if gap["low"] == gap["high"] == 0]
        if same:
            said.append(f"{name} and {reference} scored the same on every item of {', '.join(same)}.")
        open_ = [(key, gap) for key, gap in own if gap["verdict"] == UNDECIDED and key not in same]
        if open_:
            widest, gap = max(open_, key=lambda item: max(-item[1]["low"], item[1]["high"]))
            said.append(
                f"Between {name} and {reference} no difference is shown on {', '.join(key for key, _ in open_)}. That does not make them "
                f"equal: on {widest} anything from {gap['low']:+.2f} to {gap['high']:+.2f} would look like this."
            )
    for name in dict.fromkeys(name for name, _, gap in all_gaps if gap["verdict"] == TOO_FEW):
        seen = [f"{key} {spell_figure(gap, '+.2f')}" for row, key, gap in all_gaps if row == name and gap["verdict"] == TOO_FEW]
        said.append(
            f"Between {name} ({_count_runs(counts[name])}) and {reference} ({_count_runs(counts[reference])}) nobody wins: a verdict needs "
            f"{LEAST_SEEDS} seeds a row. What was seen of these very runs, with intervals over their items alone: {', '.join(seen)}. "
            "Another seed of the same recipe may move each of them by more."
        )
    several = [count for count in counts.values() if count >= LEAST_SEEDS]
    if several:
        said.append(
            f"Seeds are few ({min(several)} where there are fewest of several): intervals over so few are rough, and small differences "
            "stay unseen."
        )
    skipped = sorted({key for row in rows.values() for key in row["skipped"]})
    if skipped:
        said.append(f"Some prompts could not be asked and are in no mean: {', '.join(skipped)}.")
    said.append("All of it holds for this protocol and this split of this data, and for nothing else.")
    return said


def _count_runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def stack_sheets(table: Mapping[str, Any], name: str) -> Image.Image:
    """The sheets of one figure, of the first run of each configuration, one above the other: the same prompts stand in one column.

    Args:
        name: file name of the sheet without its ending, such as val-two_objects.

    Raises:
        FileNotFoundError: an evaluation has no such sheet.
    """
    found = []
    for row, facts in table["rows"].items():
        with Image.open(Path(facts["runs"][0]["evaluation"], "sheets", f"{name}.png")) as sheet:
            found += [contact_sheet([], title=row), sheet.convert("RGB")]
    stacked = Image.new("RGB", (max(one.width for one in found), sum(one.height for one in found)), PAPER)
    for number, one in enumerate(found):
        stacked.paste(one, (0, sum(before.height for before in found[:number])))
    return stacked


def _iterate_gaps(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(configuration, column, difference) of everything that was judged."""
    for key in table["columns"]:
        for name, row in table["rows"].items():
            if gap := row["figures"].get(key, {}).get("minus_reference"):
                yield name, key, gap
