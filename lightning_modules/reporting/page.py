"""A report as one self-contained HTML page: no other file, no script, no network.

Every number is a `<data>` element with its value, rule and sources; every curve is made of its own points. Pictures are added in
order while the page stays below `LARGEST` bytes; what no longer fits is named with its file.
"""

import base64
import html
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_modules.reporting.plot import draw_legend, draw_plot
from lightning_modules.reporting.sources import read_json
from lightning_modules.reporting.spec import Cell, Lineage, Number, Picture, Plot, Report, Samples, Section, Table, Text
from plait.rendering import STYLE, render_bare_cards
from plait.samples import read_samples

LARGEST = 4_800_000
PAGE_STYLE = """
body { margin: 0 auto; max-width: 1120px; padding: 28px 24px 60px; background: #fafaf8; color: #1f2430;
       font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 4px; font-size: 26px; } h3 { margin: 18px 0 6px; font-size: 15px; }
h2 { margin: 40px 0 6px; padding-bottom: 4px; border-bottom: 1px solid #d9dce3; font-size: 19px; }
.note { color: #6b7280; margin: 4px 0 12px; font-size: 13.5px; } .wide { overflow-x: auto; }
nav a { margin-right: 16px; color: #3b5bdb; text-decoration: none; font-size: 13.5px; }
table { border-collapse: collapse; font-size: 13px; background: #fff; margin: 6px 0 12px; }
td, th { border: 1px solid #e3e6ec; padding: 4px 9px; text-align: left; white-space: nowrap; }
th { background: #f1f2f5; font-weight: 600; } tr:hover td { background: #f5f7ff; } data { cursor: help; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: 12px; color: #495057; }
pre { font-size: 12px; overflow: auto; background: #fff; border: 1px solid #e3e6ec; padding: 10px; }
.plait .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); }
details { margin: 8px 0; } summary { cursor: pointer; color: #343a46; } details > img { margin-top: 8px; } img { max-width: 100%; }
.plots { display: flex; flex-wrap: wrap; gap: 12px; }
svg.plot { width: 345px; background: #fff; border: 1px solid #e3e6ec; border-radius: 6px; }
svg text { font-size: 9.5px; fill: #6b7280; } svg text.title { font-size: 11px; fill: #1f2430; font-weight: 600; }
svg line { stroke: #eceef2; } polyline { fill: none; stroke-width: 1.4; stroke-linejoin: round; stroke-opacity: 0.85; }
polyline { vector-effect: non-scaling-stroke; } polyline.dot { stroke-width: 6; stroke-linecap: round; }
.legend { font-size: 12.5px; margin: 8px 0; } .legend span { margin-right: 16px; }
.legend i { display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle; }
.lineage { display: flex; gap: 34px; align-items: center; overflow-x: auto; padding: 4px 0; }
.lineage > div { position: relative; display: flex; flex-direction: column; gap: 10px; }
.lineage > div + div::before { content: "→"; position: absolute; left: -25px; top: 50%; transform: translateY(-50%); }
.weights { background: #fff; border: 1px solid #d9dce3; border-left: 4px solid #3b5bdb; border-radius: 6px;
           padding: 8px 12px; font-size: 13px; }
.weights div { color: #6b7280; font-size: 12px; }
"""


def render_page(report: Report, place: Path) -> str:
    """The page.

    Args:
        place: folder where it will lie; the folders of the runs are said relative to it.

    Returns:
        Its HTML.
    """
    page = _Page(report)
    body = [f"<section id='s{i}'>{page.section(section)}</section>" for i, section in enumerate(report.sections)]
    links = "".join(f"<a href='#s{i}'>{html.escape(section.title)}</a>" for i, section in enumerate(report.sections))
    title = html.escape(report.title)
    folders = html.escape(json.dumps(relate(report.folders, place)), quote=True)
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<meta name='plait-runs' content='{folders}'><title>{title}</title><style>{STYLE}{PAGE_STYLE}</style></head>"
        f"<body><h1>{title}</h1><p class='note'>{len(report.folders)} runs. Point at a number to see where it was read; "
        f"<code>plait-report verify=&lt;this page&gt;</code> reads them all again.</p><nav>{links}</nav>{''.join(body)}</body></html>\n"
    )


def relate(folders: Mapping[str, str], place: Path) -> dict[str, str]:
    """id -> folder as seen from `place`."""
    return {run: Path(os.path.relpath(folder, place)).as_posix() for run, folder in folders.items()}


class _Page:
    """Writes blocks and counts the bytes of what is embedded."""

    def __init__(self, report: Report) -> None:
        self.report, self.bytes = report, 0

    def section(self, section: Section) -> str:
        parts = [f"<h2>{html.escape(section.title)}</h2>"]
        parts += [f"<p class='note'>{html.escape(section.note)}</p>"] if section.note else []
        plots = [block for block in section.blocks if isinstance(block, Plot)]
        if plots:
            labels = max(([curve.label for curve in plot.curves] for plot in plots), key=len)
            parts.append(f"{draw_legend(labels)}<div class='plots'>{''.join(map(draw_plot, plots))}</div>")
        writers: dict[type, Callable[[Any], str]] = {
            Table: self.table,
            Picture: self.picture,
            Samples: self.samples,
            Lineage: self.lineage,
            Text: self.text,
        }
        parts += [writers[type(block)](block) for block in section.blocks if not isinstance(block, Plot)]
        return "".join(parts)

    def table(self, table: Table) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
        body = f"<div class='wide'><table><tr>{head}</tr>{rows}</table></div>"
        return _fold(table.title, body, False) if table.is_folded else f"{_heading(table.title)}{body}"

    def picture(self, picture: Picture) -> str:
        with Image.open(Path(self.report.folders[picture.run]) / picture.file) as image:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="WEBP", quality=82, method=4)  # a quarter of the bytes of the PNG
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        body = f"<img src='data:image/webp;base64,{data}' alt='{html.escape(picture.title, quote=True)}'>"
        return self._embed(picture, "sheet", body)

    def samples(self, samples: Samples) -> str:
        path = Path(self.report.folders[samples.run]) / samples.file
        found = read_samples(read_json(path))
        shown = found[: samples.count]
        return self._embed(samples, f"{len(shown)} of {len(found)} documents", render_bare_cards(shown))

    def _embed(self, block: Picture | Samples, what: str, body: str) -> str:
        if self.bytes + len(body) > LARGEST * 0.9:
            note = (
                f"{block.title}, {what}: not on this page, which would grow too large; it is {block.file} of run {block.run}."
            )
            return f"<p class='note'>{html.escape(note)}</p>"
        self.bytes += len(body)
        return _fold(f"{block.title}: {what}", body, not block.is_folded)

    def lineage(self, lineage: Lineage) -> str:
        depths: dict[str, int] = {}
        for link in lineage.links:
            depths[link.identity] = 1 + max((depths.get(parent, 0) for parent in link.parents.values()), default=-1)
        columns = []
        for depth in sorted(set(depths.values())):
            members = [link for link in lineage.links if depths[link.identity] == depth]
            columns.append(f"<div>{''.join(map(_weights, members))}</div>")
        return f"<div class='lineage'>{''.join(columns)}</div>"

    def text(self, text: Text) -> str:
        if text.title:
            return _fold(text.title, f"<pre>{html.escape(text.text)}</pre>", False)
        return f"<p>{html.escape(text.text)}</p>"


def _weights(link: Any) -> str:
    parents = "".join(
        f"<div>{html.escape(part)} from <code>{identity[:12]}</code></div>" for part, identity in link.parents.items()
    )
    return (
        f"<div class='weights'><b>{html.escape(link.name)}</b> <code>{link.identity[:12]}</code>"
        f"<div>{html.escape(link.note)}</div>{parents}</div>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, Number):
        return f"<td class='number'>{_number(cell)}</td>"
    return f"<td>{_word(cell)}</td>"


def _number(number: Number) -> str:
    sources = [[source.run, source.file, source.key] for source in number.sources]
    first = number.sources[0]
    place = f"{first.file}, {first.key}" + (
        f", {len(sources)} runs, {number.rule}" if len(sources) > 1 else f", run {first.run}"
    )
    return (
        f"<data value='{number.value!r}' data-rule='{html.escape(number.rule)}' data-form='{html.escape(number.form)}' "
        f"data-sources='{html.escape(json.dumps(sources), quote=True)}' title='{html.escape(place, quote=True)}'>{number.text}</data>"
    )


def _word(word: str) -> str:
    pieces = word.split("`")
    return "".join(f"<code>{html.escape(one)}</code>" if i % 2 else html.escape(one) for i, one in enumerate(pieces))


def _heading(title: str) -> str:
    return f"<h3>{html.escape(title)}</h3>" if title else ""


def _fold(title: str, body: str, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary>{html.escape(title)}</summary>{body}</details>"
