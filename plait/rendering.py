"""Samples for people: self-contained HTML with inline pictures, and PIL sheets. One renderer for all places.

Everything is drawn from the records of `plait.samples` alone, so a sample looks the same in the run folder, in W&B, in a notebook and in
a report. What a model made stands in a solid frame under the words "made by the model", what it was given in a dotted one under "given".
All text is escaped. It does not know what a score means.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from plait.atomic import write_json
from plait.samples import MADE, Sample, ShownSpan, StoredSample

INK, SOFT, LINE, PAPER, CARD = "#1f2430", "#6b7280", "#d9dce3", "#fafaf8", "#ffffff"
RIGHT, WRONG, ACCENT = "#1a7f4b", "#c2372e", "#3b5bdb"
NARROWEST = 112
"""pixels of a text beside a picture"""
LEGEND = f"What stands in a solid frame under “{MADE}” was written or drawn by the model; it was given the rest."

STYLE = f"""
.plait {{ font: 14px/1.45 system-ui, sans-serif; color: {INK}; }}
.plait h1 {{ font-size: 20px; margin: 0 0 4px; }} .plait .note {{ color: {SOFT}; margin: 0 0 16px; }}
.plait .cards {{ display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }}
.plait .card {{ background: {CARD}; color: {INK}; border: 1px solid {LINE}; border-radius: 8px; padding: 10px 12px;
  max-width: 100%; box-sizing: border-box; }}
.plait .head {{ color: {SOFT}; font-size: 12px; margin-bottom: 6px; overflow-wrap: anywhere; }}
.plait .turns, .plait .scenes {{ display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start; }}
.plait .who {{ font-size: 12px; font-weight: 600; }}
.plait .scene {{ display: flex; flex-direction: column; gap: 4px; max-width: min(100%, 320px); }}
.plait .scene.alone {{ flex-direction: row; flex-wrap: wrap; align-items: flex-start; max-width: 100%; }}
.plait .part {{ border: 1px dotted {SOFT}; border-radius: 6px; padding: 3px 7px 6px; overflow-wrap: anywhere; white-space: pre-wrap; }}
.plait .part.plain {{ border-style: none; padding: 0; }} .plait .part.made {{ border: 2px solid {ACCENT}; background: #f1f4ff; }}
.plait .tag {{ font-size: 10.5px; line-height: 1.6; color: {SOFT}; display: block; }}
.plait .made > .tag {{ color: {ACCENT}; font-weight: 700; }}
.plait img {{ display: block; border-radius: 3px; max-width: 100%; outline: 1px solid {LINE}; }}
.plait .hole {{ display: block; border: 1px dashed {SOFT}; border-radius: 6px; color: {SOFT}; font-size: 12px; padding: 20px 8px; }}
.plait .scores {{ width: 0; min-width: max(100%, 210px); }}
.plait .score {{ display: inline-block; font-size: 12px; margin: 5px 10px 0 0; overflow-wrap: anywhere; }}
.plait .right {{ color: {RIGHT}; }} .plait .wrong {{ color: {WRONG}; }} .plait .key {{ color: {SOFT}; }}
"""


def render_html(samples: Iterable[Sample | StoredSample], title: str = "", note: str = "", picture_size: int = 120) -> str:
    """A complete page that needs no other file.

    Args:
        picture_size: longer side of a picture on the page, in pixels; stored pictures are never scaled.
    """
    cards = _cards(samples, picture_size)
    heading = f"<h1>{html.escape(title)}</h1>" if title else ""
    heading += f"<p class='note'>{html.escape(f'{note}. {LEGEND}' if note else LEGEND)}</p>"
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title or 'samples')}</title>"
        f"<style>body {{ margin: 20px; background: {PAPER}; }}{STYLE}</style></head>\n"
        f"<body><div class='plait'>{heading}<div class='cards'>{cards}</div></div></body></html>\n"
    )


def write_samples(samples: Iterable[Sample | StoredSample], page: Path, title: str = "", note: str = "") -> str:
    """Write the records of samples as JSON and, made of them, a page beside it.

    Args:
        page: its path; the records have the same name and end in .json.

    Returns:
        The page.
    """
    records = [sample.stored for sample in samples]
    rendered = render_html(records, title, note)
    write_json(page.with_suffix(".json"), [record.to_json() for record in records])
    page.write_text(rendered, encoding="utf-8")
    return rendered


def render_cards(samples: Iterable[Sample | StoredSample], title: str = "", picture_size: int = 96) -> str:
    """Samples side by side as a piece of HTML that leaves the page around it alone, for a cell of a notebook."""
    return f"<style>{STYLE}</style>{render_bare_cards(samples, title, picture_size)}"


def render_bare_cards(samples: Iterable[Sample | StoredSample], title: str = "", picture_size: int = 96) -> str:
    """The same for a page that holds `STYLE` already."""
    heading = f"<div class='head'><b>{html.escape(title)}</b></div>" if title else ""
    return f"<div class='plait'>{heading}<div class='cards'>{_cards(samples, picture_size)}</div></div>"


def _cards(samples: Iterable[Sample | StoredSample], size: int) -> str:
    return "\n".join(_card(sample.stored, size) for sample in samples)


def _card(sample: StoredSample, size: int) -> str:
    turns = []
    for spans in list_turns(sample):
        who = f"<div class='who'>{html.escape(spans[0].role)}</div>" if spans[0].role else ""
        split = split_scenes(spans)
        kind = "scene" if len(split) > 1 else "scene alone"
        scenes = "".join(f"<div class='{kind}'>{_scene(scene, size)}</div>" for scene in split)
        turns.append(f"<div class='turn'>{who}<div class='scenes'>{scenes}</div></div>")
    head = [sample.title, sample.document.id, "" if sample.seed is None else f"seed {sample.seed}"]
    line = html.escape(" · ".join(dict.fromkeys(word for word in head if word)))
    scores = "".join(_score(name, value) for name, value in sample.scores.items())
    scores = f"<div class='scores'>{scores}</div>" if scores else ""
    return f"<div class='card'><div class='head'>{line}</div><div class='turns'>{''.join(turns)}</div>{scores}</div>"


def list_turns(sample: StoredSample) -> list[list[ShownSpan]]:
    """The spans of each turn, in order; without a dialogue there is one."""
    return [list(spans) for _, spans in groupby(sample.spans, key=lambda span: (span.turn, span.role))]


def split_scenes(spans: Sequence[ShownSpan]) -> list[list[ShownSpan]]:
    """What belongs together: a sentence and the picture after it; where a picture comes first, a picture and the words after it."""
    leads = bool(spans) and spans[0].kind == "image"
    scenes: list[list[ShownSpan]] = []
    for span in spans:
        if not scenes or (span.kind == "image" if leads else scenes[-1][-1].kind == "image"):
            scenes.append([])
        scenes[-1].append(span)
    return scenes


def _scene(spans: Sequence[ShownSpan], size: int) -> str:
    width = f" style='width: {max(size, NARROWEST)}px'" if any(span.kind == "image" for span in spans) else ""
    parts = []
    for by, run in groupby(spans, key=lambda span: span.by):
        tag = f"<span class='tag'>{html.escape(by)}</span>" if by else ""
        kind = "made" if by == MADE else "shown" if by else "plain"
        inside = "".join(
            _picture(span, size) if span.kind == "image" else f"<div{width}>{html.escape(span.text)}</div>" for span in run
        )
        parts.append(f"<div class='part {kind}'>{tag}{inside}</div>")
    return "".join(parts)


def _picture(span: ShownSpan, size: int) -> str:
    name = html.escape(span.text, quote=True)
    if span.picture is None:
        return f"<span class='hole'>{'to be drawn' if span.is_hole else f'no picture {name}'}</span>"
    return f"<img src='{html.escape(span.picture, quote=True)}' style='width: {size}px' alt='{name}' title='{name}'>"


def _score(name: str, value: Any) -> str:
    key = f"<span class='key'>{html.escape(name)}</span>"
    if isinstance(value, bool):
        return f"<span class='score {'right' if value else 'wrong'}'>{'✓' if value else '✗'} {key}</span>"
    return f"<span class='score'>{key} {html.escape(_number(value))}</span>"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Cell:
    """One picture of a contact sheet; `is_right` draws a tick or a cross, None neither."""

    picture: Image.Image
    caption: str = ""
    is_right: bool | None = None


def contact_sheet(cells: Sequence[Cell], *, columns: int = 8, picture_size: int = 96, title: str = "") -> Image.Image:
    """Many pictures in rows, each over its caption.

    Args:
        picture_size: longer side of a picture, in pixels.
    """
    gap, font = 12, _font(12)
    lines = [_wrap(cell.caption, font, picture_size) for cell in cells]
    rows = [range(start, min(start + columns, len(cells))) for start in range(0, len(cells), columns)]
    heights = [picture_size + 8 + 15 * max(len(lines[i]) for i in row) for row in rows]
    top = gap + (26 if title else 0)
    width = gap + min(columns, max(len(cells), 1)) * (picture_size + gap)
    width = max(width, round(_font(16).getlength(title)) + 2 * gap)
    sheet = Image.new("RGB", (width, top + sum(heights) + gap * len(rows)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap - 2), title, fill=INK, font=_font(16))
    for row, height in zip(rows, heights, strict=True):
        for column, index in enumerate(row):
            left = gap + column * (picture_size + gap)
            _paste(sheet, draw, cells[index].picture, left, top, picture_size)
            _mark(draw, cells[index].is_right, left, top, picture_size)
            for number, line in enumerate(lines[index]):
                draw.text((left, top + picture_size + 6 + 15 * number), line, fill=INK, font=font)
        top += height + gap
    return sheet


def draw_sample(
    sample: Sample | StoredSample, *, width: int = 640, picture_size: int = 64, is_right: bool | None = None
) -> Image.Image:
    """A sample as one picture: its scenes from left to right, each in its frame, as on a page.

    Args:
        width: of the picture in pixels, at most; its longer lines of scenes are broken.
        picture_size: longer side of a picture, in pixels.
        is_right: draws a tick or a cross, None neither.

    Raises:
        DocumentError: a picture of the record is damaged.
    """
    scenes = [scene for turn in list_turns(sample.stored) for scene in split_scenes(turn)]
    drawn = [_draw_scene(scene, picture_size) for scene in scenes]
    gap, places, left, top, lowest = 8, [], 8, 8, 0
    for one in drawn:
        if left > gap and left + one.width + gap > width:
            left, top = gap, lowest + gap
        places.append((left, top))
        left, lowest = left + one.width + gap, max(lowest, top + one.height)
    right = max(((x + one.width) for (x, _), one in zip(places, drawn, strict=True)), default=gap) + gap
    whole = Image.new("RGB", (right + (0 if is_right is None else 18), lowest + gap), CARD)
    draw = ImageDraw.Draw(whole)
    for place, one in zip(places, drawn, strict=True):
        whole.paste(one, place)
    draw.rectangle((0, 0, whole.width - 1, whole.height - 1), outline=LINE)
    if is_right is not None:
        _tick(draw, is_right, whole.width - 19, 3)
    return whole


def stack_samples(pictures: Sequence[Image.Image], *, title: str = "", width: int = 1320) -> Image.Image:
    """Pictures of samples in rows, as many to a row as have room."""
    gap, top = 10, 36 if title else 10
    left, lowest, places = gap, top, []
    for one in pictures:
        if left > gap and left + one.width + gap > width:
            left, top = gap, lowest + gap
        places.append((left, top))
        left, lowest = left + one.width + gap, max(lowest, top + one.height)
    sheet = Image.new("RGB", (width, lowest + gap), PAPER)
    ImageDraw.Draw(sheet).text((gap, gap), title, fill=INK, font=_font(16))
    for place, one in zip(places, pictures, strict=True):
        sheet.paste(one, place)
    return sheet


def _draw_scene(spans: Sequence[ShownSpan], size: int) -> Image.Image:
    """A column: parts of one hand in one frame under its words."""
    font, inner = _font(11), max(size, 98)
    parts: list[tuple[str | None, list[Any]]] = [
        (by, [_read_span(span, size, font, inner) for span in run]) for by, run in groupby(spans, key=lambda span: span.by)
    ]
    heights = [
        (14 if by else 0) + sum(item.height + 4 if isinstance(item, Image.Image) else 14 * len(item) + 2 for item in items) + 8
        for by, items in parts
    ]
    column = Image.new("RGB", (inner + 12, sum(heights) + 4 * (len(parts) - 1)), CARD)
    draw, top = ImageDraw.Draw(column), 0
    for (by, items), height in zip(parts, heights, strict=True):
        box = (0, top, column.width - 1, top + height - 1)
        if by == MADE:
            draw.rectangle(box, outline=ACCENT, fill="#f1f4ff", width=2)
        elif by:
            _dot(draw, box)
        y = top + 4
        if by:
            draw.text((6, y - 1), by, fill=ACCENT if by == MADE else SOFT, font=_font(10))
            y += 14
        for item in items:
            if isinstance(item, Image.Image):
                column.paste(item, (6, y))
                draw.rectangle((5, y - 1, 6 + item.width, y + item.height), outline=LINE)
                y += item.height + 4
                continue
            for line in item:
                draw.text((6, y), line, fill=INK, font=font)
                y += 14
            y += 2
        top += height + 4
    return column


def _read_span(span: ShownSpan, size: int, font: Any, width: int) -> Image.Image | list[str]:
    picture = span.open() if span.kind == "image" else None
    if picture is not None:
        return _fit(picture, size)
    if span.kind == "image":
        return _wrap("to be drawn" if span.is_hole else f"no picture {span.text}", font, width)
    return _wrap(span.text, font, width)


def _dot(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    for x in range(left, right, 4):
        draw.point([(x, top), (x, bottom)], fill=SOFT)
    for y in range(top, bottom, 4):
        draw.point([(left, y), (right, y)], fill=SOFT)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _wrap(text: str, font: Any, width: int) -> list[str]:
    """Lines no wider than `width`; a word that is wider alone is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            while font.getlength(word) > width and len(word) > 1:
                cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
                lines += [line] if line else []
                lines.append(word[:cut])
                line, word = "", word[cut:]
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _fit(picture: Image.Image, size: int) -> Image.Image:
    scale = size / max(picture.size)
    shape = tuple(max(1, round(side * scale)) for side in picture.size)
    # small pictures grow in whole pixels: what the model drew is seen as it is
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(shape, method)


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image, left: int, top: int, size: int) -> None:
    fitted = _fit(picture, size)
    sheet.paste(fitted, (left, top))
    draw.rectangle((left - 1, top - 1, left + fitted.width, top + fitted.height), outline=LINE)


def _mark(draw: ImageDraw.ImageDraw, is_right: bool | None, left: int, top: int, size: int) -> None:
    if is_right is None:
        return
    color = RIGHT if is_right else WRONG
    draw.rectangle((left - 2, top - 2, left + size + 1, top + size + 1), outline=color, width=2)
    _tick(draw, is_right, left + size - 18, top + 2)


def _tick(draw: ImageDraw.ImageDraw, is_right: bool, x: int, y: int) -> None:
    draw.rectangle((x, y, x + 15, y + 15), fill=RIGHT if is_right else WRONG)
    if is_right:
        draw.line([(x + 3, y + 8), (x + 6, y + 12), (x + 12, y + 4)], fill="white", width=2)
    else:
        draw.line([(x + 4, y + 4), (x + 11, y + 11)], fill="white", width=2)
        draw.line([(x + 4, y + 11), (x + 11, y + 4)], fill="white", width=2)
