"""A report as Markdown: the same tables, and after them a list that says of every number where it was read.

The list is a comment of the page (in a W&B report a block of its own): one entry per number, in reading order.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_modules.reporting.page import relate
from lightning_modules.reporting.spec import Cell, Lineage, Number, Picture, Report, Section, Table, Text

BEGIN, END = "<!-- plait-numbers ", " -->"


def render_markdown(report: Report, place: Path) -> str:
    """The page; pictures are named by their files."""
    numbers = json.dumps({"runs": relate(report.folders, place), "numbers": list_numbers(report)})
    body = "\n".join(line for section in report.sections for line in write_section(section, 2))
    return f"# {report.title}\n\n{body}\n{BEGIN}{numbers}{END}\n"


def write_section(section: Section, level: int) -> Iterator[str]:
    """The lines of a section; configs and packages, which nobody reads in Markdown, are left to the passport."""
    written = [line for block in section.blocks for line in _write(block, level)]
    if written:
        yield from (f"{'#' * level} {section.title}", "")
        yield from (section.note, "") if section.note else ()
        yield from written


def write_table(table: Table, level: int) -> Iterator[str]:
    """The lines of a table."""
    if table.title:
        yield from (f"{'#' * (level + 1)} {table.title}", "")
    yield f"| {' | '.join(table.columns)} |"
    yield f"|{'---|' * len(table.columns)}"
    yield from (f"| {' | '.join(map(_spell, row))} |" for row in table.rows)
    yield ""


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


def _write(block: Any, level: int) -> Iterator[str]:
    if isinstance(block, Table):
        yield from write_table(block, level)
    elif isinstance(block, Lineage):
        for link in block.links:
            parents = ", ".join(f"{part} from `{identity[:12]}`" for part, identity in link.parents.items())
            yield f"- **{link.name}** `{link.identity[:12]}` {link.note}{f': {parents}' if parents else ''}"
        yield ""
    elif isinstance(block, Picture):
        yield from (f"- {block.title}: `{block.file}` of run `{block.run}`", "")
    elif isinstance(block, Text) and not block.title:
        yield from (block.text, "")


def _spell(cell: Cell) -> str:
    return cell.text if isinstance(cell, Number) else cell.replace("|", "\\|")
