"""A report as Markdown: the same tables, and after them a list that says of every number where it was read.

The list is a comment of the page (of a W&B report a file of its own): one entry per number, in reading order.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_modules.reporting.page import relate
from lightning_modules.reporting.spec import (
    Cell,
    Chart,
    Lineage,
    Number,
    Picture,
    Prose,
    Report,
    Samples,
    Section,
    Strip,
    Table,
    Term,
    Text,
)

BEGIN, END = "<!-- plait-numbers ", " -->"


def render_markdown(report: Report, place: Path) -> str:
    """The page; pictures are named by their files."""
    numbers = json.dumps({"runs": relate(report.folders, place), "numbers": list_numbers(report)})
    body = "\n".join(line for section in report.sections for line in write_section(section, 2))
    numbers = numbers.replace(">", "\\u003e")  # nothing in it ends the comment
    return f"# {escape(report.title)}\n\n{body}\n{BEGIN}{numbers}{END}\n"


def write_section(section: Section, level: int) -> Iterator[str]:
    """The lines of a section; configs and packages, which nobody reads in Markdown, are left to the passport."""
    written = [line for block in section.blocks for line in write_block(block, level)]
    if written:
        yield from (f"{'#' * level} {escape(section.title)}", "")
        yield from (section.note, "") if section.note else ()
        yield from written


def write_table(table: Table, level: int) -> Iterator[str]:
    """The lines of a table."""
    if table.title:
        yield from (f"{'#' * (level + 1)} {escape(table.title)}", "")
    yield f"| {' | '.join(map(escape, table.columns))} |"
    yield f"|{'---|' * len(table.columns)}"
    yield from (f"| {' | '.join(map(_spell, row))} |" for row in table.rows)
    yield ""
    terms = {cell.text: cell.about for row in table.rows for cell in row if isinstance(cell, Term) and cell.about}
    yield from (f"- {_code(name)}: {escape(about)}" for name, about in terms.items())
    yield from ("",) if terms else ()


def list_numbers(report: Report) -> list[dict[str, Any]]:
    """Every number of the tables, in reading order, as `verification` reads it."""
    return [
        {
            "text": number.text,
            "value": repr(number.value),
            "rule": number.rule,
            "form": number.form,
            "sources": [[source.run, source.file, source.key] for source in number.sources],
        }
        for number in report.numbers
    ]


def write_block(block: Any, level: int) -> Iterator[str]:
    """The lines of a block; pictures and samples are named by their files."""
    if isinstance(block, Table):
        yield from write_table(block, level)
    elif isinstance(block, Chart):
        yield from write_table(to_table(block), level)
    elif isinstance(block, Prose):
        yield from (f"- {''.join(map(_say, sentence))}" for sentence in block.sentences)
        yield ""
    elif isinstance(block, Samples | Strip):
        for one in block.samples if isinstance(block, Strip) else [block]:
            yield f"- {escape(one.title)}: {_code(one.file)} of run {_code(one.run)}"
        yield ""
    elif isinstance(block, Lineage):
        for link in block.links:
            parents = ", ".join(f"{escape(part)} from {_code(identity[:12])}" for part, identity in link.parents.items())
            yield f"- {escape(link.name)} {_code(link.identity[:12])} {escape(link.note)}{f': {parents}' if parents else ''}"
        yield ""
    elif isinstance(block, Picture):
        yield from (f"- {escape(block.title)}: {_code(block.file)} of run {_code(block.run)}", "")
    elif isinstance(block, Text) and not block.title:
        yield from (block.text, "")


def to_table(chart: Chart) -> Table:
    """A chart as its numbers."""
    rows = tuple((bar.name, bar.value, bar.low, bar.high, bar.blind_name, bar.blind or "") for bar in chart.bars)
    return Table(("figure", "value", "low", "high", "best answer without the skill", "it reaches"), rows, chart.title)


def _spell(cell: Cell) -> str:
    return cell.text if isinstance(cell, Number) else escape(cell.text if isinstance(cell, Term) else cell)


def _say(piece: str | Number) -> str:
    """Numbers of sentences are bold: so they are found again."""
    return f"**{piece.text}**" if isinstance(piece, Number) else escape(piece)


def _code(name: str) -> str:
    """A name to be copied."""
    return f"`{' '.join(name.replace('`', ' ').split())}`"


def escape(text: str) -> str:
    """A word of a run, which may not become a table, a heading, HTML or a number of the page."""
    for sign in ("\\", "|", "*", "<", "[", "]"):
        text = text.replace(sign, f"\\{sign}")
    return re.sub(r"\s+", " ", text)
