"""A report as one self-contained HTML page: no other file, no script, no network.

Every number is a `<data>` element with its value, rule and sources; every curve is made of its own points. Samples are drawn from their
records. The page stays below `LARGEST` bytes: what is least important is left out first, and named with its file.
"""

import html
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_modules.reporting.embedding import embed, embed_picture, open_samples
from lightning_modules.reporting.plot import draw_bar, draw_legend, draw_plot
from lightning_modules.reporting.spec import (
    Bar,
    Block,
    Cell,
    Chart,
    Lineage,
    Number,
    Picture,
    Plot,
    Prose,
    Report,
    Samples,
    Section,
    Strip,
    Table,
    Term,
    Text,
)
from plait.rendering import STYLE, render_bare_cards
from plait.samples import StoredSample

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
.strip { overflow-x: auto; margin: 10px 0; } .strip .plait .cards { flex-wrap: nowrap; } .strip .plait .turns { flex-wrap: nowrap; }
.strip .plait .card { flex: none; max-width: none; } .strip .plait .scenes { flex-wrap: nowrap; }
.verdict { padding-left: 18px; margin: 12px 0; max-width: 900px; } .verdict li { margin: 4px 0; }
small { display: block; color: #6b7280; font-size: 11.5px; line-height: 1.35; } td small { white-space: normal; min-width: 180px; }
.bar { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 4fr) minmax(0, 2fr); gap: 4px 14px; align-items: center;
       border-top: 1px solid #eceef2; padding: 4px 0; font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 640px) { body { padding: 14px 12px 40px; } .bar { grid-template-columns: 1fr; } h1 { font-size: 21px; }
  nav { white-space: nowrap; overflow-x: auto; } }
.chart svg { width: 100%; height: 22px; } i.dot, i.range, i.blind { display: inline-block; vertical-align: middle; margin: 0 3px 0 10px; }
i.dot { width: 9px; height: 9px; border-radius: 5px; background: #3b5bdb; } i.range { width: 22px; height: 2px; background: #3b5bdb; }
.chart svg { overflow: visible; } .chart .axis { fill: #eceef2; } .chart line.blind { stroke: #adb5bd; stroke-width: 4; }
.chart line.range { stroke: #3b5bdb; stroke-width: 2.5; } .chart circle { fill: #3b5bdb; }
i.blind { width: 4px; height: 14px; background: #adb5bd; }
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
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta name='plait-runs' content='{folders}'><title>{title}</title><style>{STYLE}{PAGE_STYLE}</style></head>"
        f"<body><h1>{title}</h1><nav>{links}</nav>{''.join(body)}<p class='note'>{len(report.folders)} runs. Point at a number to see "
        f"where it was read; <code>plait-report verify=&lt;this page&gt;</code> reads them all again.</p></body></html>\n"
    )


def place_blocks(report: Report) -> Mapping[Block, str]:
    """The pictures and samples that are on the page, as they stand there; what would make it too large is not among them."""
    return _Page(report).embedded


def relate(folders: Mapping[str, str], place: Path) -> dict[str, str]:
    """id -> folder as seen from `place`."""
    return {run: Path(os.path.relpath(folder, place)).as_posix() for run, folder in folders.items()}


class _Page:
    """Writes blocks."""

    def __init__(self, report: Report) -> None:
        self.report = report
        kinds = {Picture: self.picture, Samples: self.samples, Strip: self.strip}
        self.embedded = embed(report, kinds, LARGEST * 0.9)

    def section(self, section: Section) -> str:
        parts = [f"<h2>{html.escape(section.title)}</h2>"] if section is not self.report.sections[0] else []
        parts += [f"<p class='note'>{html.escape(section.note)}</p>"] if section.note else []
        plots = [block for block in section.blocks if isinstance(block, Plot)]
        if plots:
            labels = max(([curve.label for curve in plot.curves] for plot in plots), key=len)
            parts.append(f"{draw_legend(labels)}<div class='plots'>{''.join(map(draw_plot, plots))}</div>")
        return "".join([*parts, *(self.block(block) for block in section.blocks if not isinstance(block, Plot))])

    def block(self, block: Any) -> str:
        if isinstance(block, Picture | Samples | Strip):
            return self.embedded.get(block) or _name_left_out(block)
        writers: dict[type, Callable[[Any], str]] = {
            Prose: self.prose,
            Chart: self.chart,
            Table: self.table,
            Lineage: self.lineage,
            Text: self.text,
        }
        return writers[type(block)](block)

    def table(self, table: Table) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
        body = f"<div class='wide'><table><tr>{head}</tr>{rows}</table></div>"
        return _fold(table.title, body, False) if table.is_folded else f"{_heading(table.title)}{body}"

    def prose(self, prose: Prose) -> str:
        return f"<ul class='verdict'>{''.join(f'<li>{_sentence(sentence)}</li>' for sentence in prose.sentences)}</ul>"

    def strip(self, strip: Strip) -> str:
        shown = [_shorten(s, one.title) for one in strip.samples for s in open_samples(self.report, one)[1]]
        return f"<div class='strip'>{render_bare_cards(shown, picture_size=84)}</div>"

    def chart(self, chart: Chart) -> str:
        key = (
            "<p class='note'><i class='dot'></i> value <i class='range'></i> 95 % interval "
            "<i class='blind'></i> best answer that did not need the skill</p>"
        )
        return f"{_heading(chart.title)}{key}<div class='chart'>{''.join(map(_bar, chart.bars))}</div>"

    def picture(self, picture: Picture) -> str:
        body = f"<img src='{embed_picture(self.report, picture)}' alt='{html.escape(picture.title, quote=True)}'>"
        return _fold(f"{picture.title}: sheet", body, not picture.is_folded)

    def samples(self, samples: Samples) -> str:
        total, shown = open_samples(self.report, samples)
        return _fold(f"{samples.title}: {len(shown)} of {total} documents", render_bare_cards(shown), not samples.is_folded)

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


def _shorten(sample: StoredSample, title: str) -> StoredSample:
    """As it stands at the top: whether it is right, and nothing that needs explaining."""
    right = sample.scores.get("right")
    scores = {"right" if right else "not right": right} if isinstance(right, bool) else {}
    return replace(sample, title=title, seed=None, scores=scores)


def _sentence(sentence: Sequence[str | Number]) -> str:
    """What it is about in bold."""
    first, *rest = sentence
    head, colon, tail = first.partition(": ") if isinstance(first, str) else ("", "", "")
    said = f"<b>{html.escape(head)}</b>{colon}{html.escape(tail)}" if colon else _piece(first)
    return "".join([said, *map(_piece, rest)])


def _piece(piece: str | Number) -> str:
    return _number(piece) if isinstance(piece, Number) else html.escape(piece)


def _name_left_out(block: Picture | Samples) -> str:
    what = f"{block.title}: not on this page, which would grow too large; it is {block.file} of run {block.run}."
    return f"<p class='note'>{html.escape(what)}</p>"


def _bar(bar: Bar) -> str:
    ends = f"[{_number(bar.low)}, {_number(bar.high)}]"
    blind = f"{html.escape(bar.blind_name)} {_number(bar.blind)}" if bar.blind else ""
    return (
        f"<div class='bar'><div><b>{html.escape(bar.name.text)}</b><small>{html.escape(bar.name.about)}</small></div>{draw_bar(bar)}"
        f"<div>{_number(bar.value)} <small>{ends} {blind}</small></div></div>"
    )


def _weights(link: Any) -> str:
    parents = "".join(
        f"<div>{html.escape(part)} from <code>{html.escape(identity[:12])}</code></div>"
        for part, identity in link.parents.items()
    )
    return (
        f"<div class='weights'><b>{html.escape(link.name)}</b> <code>{html.escape(link.identity[:12])}</code>"
        f"<div>{html.escape(link.note)}</div>{parents}</div>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, Number):
        return f"<td class='number'>{_number(cell)}</td>"
    if isinstance(cell, Term):
        return f"<td>{_word(cell.text)}<small>{html.escape(cell.about)}</small></td>"
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
