"""The common table: one row per configuration, one column per examination, each row with the protocol behind it.

A table is JSON-ready: {reference, columns, rows: {name: {protocol, runs, figures, skipped, durations_s}}}. Columns are the headlines of
the examinations; `figures` holds every further score as well. Markdown and flat records are two ways to write the same numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FIELDS = (
    *("row", "column", "value", "low", "high", "n", "seeds", "baselines", "gap_from", "gap_closed", "exceeds_lookup"),
    *("minus_reference", "p_adjusted", "verdict"),
)
"""of a record, before those of the protocol"""


def tabulate_run(name: str, results: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The table of one evaluation."""
    row = {"protocol": facts["protocol"], "runs": [name], "figures": dict(results)}
    row |= {"skipped": facts["skipped"], "durations_s": facts["durations_s"]}
    return {"reference": None, "columns": list(facts["headlines"]), "rows": {name: row}}


def write_markdown(table: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown: the columns with intervals, n, the gap closed (one per row) and baselines, the verdicts, what was skipped, the
    seconds, the protocol."""
    rows: Mapping[str, Any] = table["rows"]
    heads = ("gap closed", "from the best blind answer", "best lookup", "baselines")
    yield from (write_row(["column", "n", *rows, *heads]), write_row(["---"] * (len(rows) + 2 + len(heads))))
    for key in table["columns"]:
        found = [row["figures"].get(key) for row in rows.values()]
        first = next((figure for figure in found if figure), None)
        baselines = ", ".join(f"{name} {value:.2f}" for name, value in (first or {}).get("baselines", {}).items())
        standing = [" / ".join(dict.fromkeys(map(spell, filter(None, found)))) for spell in (_spell_blind, _spell_lookup)]
        gaps = " / ".join(_spell_gap(figure) for figure in found)
        yield write_row([key, first["n"] if first else 0, *map(spell_figure, found), gaps, *standing, baselines])
    others = [name for name in rows if name != table["reference"]]
    if table["reference"] is not None and others:
        yield from (
            "",
            f"Difference from {table['reference']}, 95 % interval of this column alone; a winner is named where p, adjusted",
        )
        yield "for all verdicts of this table (Holm), is at most 0.05, and where both rows have three seeds at least: below that the"
        yield from ("interval is over the items of these very runs, and other seeds may move it further:", "")
        yield from (write_row(["column", *others]), write_row(["---"] * (len(others) + 1)))
        for key in table["columns"]:
            gaps = [rows[name]["figures"].get(key, {}).get("minus_reference") for name in others]
            yield write_row([key, *(f"{spell_figure(gap, '+.2f')} {gap['verdict']}" if gap else "" for gap in gaps)])
    skipped: dict[tuple[str, int, str], list[str]] = {}
    for name, row in rows.items():
        for key, item in row["skipped"].items():
            skipped.setdefault((name, item["prompts"], item["reason"].replace("|", "/")), []).append(key)
    if skipped:
        yield from ("", write_row(["row", "skipped", "prompts of each", "reason"]), write_row(["---"] * 4))
        yield from (write_row([name, ", ".join(keys), count, reason]) for (name, count, reason), keys in skipped.items())
    yield from ("", write_row(["row", "runs", *next(iter(rows.values()))["protocol"]]))
    yield write_row(["---"] * (2 + len(next(iter(rows.values()))["protocol"])))
    for name, row in rows.items():
        yield write_row([name, len(row["runs"]), *row["protocol"].values()])
    names = dict.fromkeys(name for row in rows.values() for name in row["durations_s"])
    yield from ("", write_row(["seconds", *rows]), write_row(["---"] * (len(rows) + 1)))
    for name in names:
        yield write_row([name, *(f"{row['durations_s'].get(name, 0):.1f}" for row in rows.values())])
    yield write_row(["in all", *(f"{sum(row['durations_s'].values()):.1f}" for row in rows.values())])


def list_records(table: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """(field names, one record per row and column): the protocol stands in every record."""
    fields = list(next(iter(table["rows"].values()))["protocol"])
    records = []
    for name, row in table["rows"].items():
        protocol = [str(row["protocol"][field]) for field in fields]
        for key in table["columns"]:
            figure = row["figures"].get(key)
            if figure is None:
                continue
            gap = figure.get("minus_reference", {})
            baselines = ", ".join(f"{baseline} {value:.3f}" for baseline, value in figure.get("baselines", {}).items())
            facts = [figure[field] for field in ("value", "low", "high", "n")]
            verdict = [gap.get("value"), gap.get("p_adjusted"), gap.get("verdict", "")]
            standing = [figure.get(field) for field in ("gap_from", "gap_closed", "exceeds_lookup")]
            records.append([name, key, *facts, len(row["runs"]), baselines, *standing, *verdict, *protocol])
    return [*FIELDS, *(f"protocol/{field}" for field in fields)], records


def write_row(cells: Sequence[Any]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def _spell_gap(figure: Mapping[str, Any] | None) -> str:
    return f"{figure['gap_closed']:.2f}" if figure and "gap_closed" in figure else ""


def _spell_blind(figure: Mapping[str, Any]) -> str:
    name = figure.get("gap_from")
    return f"{name} {figure['baselines'][name]:.2f}" if name else ""


def _spell_lookup(figure: Mapping[str, Any]) -> str:
    name = figure.get("lookup")
    return f"{name} {figure['baselines'][name]:.2f}{' (exceeded)' if figure['exceeds_lookup'] else ''}" if name else ""


def spell_figure(figure: Mapping[str, float] | None, form: str = ".2f") -> str:
    """A value and its interval; empty without a figure."""
    if figure is None:
        return ""
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
