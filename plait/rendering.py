"""Documents and pictures for people: self-contained HTML with inline pictures, and PIL sheets. One renderer for all places.

The same bytes go to the run folder, to W&B, to a notebook and to the report. It does not know where pictures come from (a
mapping or a callable resolves them), what a score means, or who drew what beyond "n spans were given". All text is escaped.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from plait.document import Document, ImageSpan, TextSpan

Pictures = Mapping[str, Image.Image] | Callable[[ImageSpan], Image.Image | None]

INK, SOFT, LINE, PAPER, CARD = "#1f2430", "#6b7280", "#d9dce3", "#fafaf8", "#ffffff"
RIGHT, WRONG, ACCENT = "#1a7f4b", "#c2372e", "#3b5bdb"
NARROW = ".plait .narrow .card { max-width: 430px; } .plait .narrow .head { overflow-wrap: anywhere; }"
CARD_OPENING = "<div class='card'>"
"""how a card begins, for those who take some from a page"""

STYLE = f"""
.plait {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; }}
.plait h1 {{ font-size: 20px; margin: 0 0 4px; }} .plait .note {{ color: {SOFT}; margin: 0 0 16px; }}
.plait .cards {{ display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }}
.plait .card {{ background: {CARD}; border: 1px solid {LINE}; border-radius: 8px; padding: 12px 14px; max-width: 720px; }}
.plait .head {{ color: {SOFT}; font-size: 12px; margin-bottom: 6px; }}
.plait .spans {{ display: flex; flex-wrap: wrap; gap: 8px 10px; align-items: center; }}
.plait .text {{ padding: 1px 8px; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; background: #f1f2f5; }}
.plait .made.text {{ background: #e8edff; }} .plait figure {{ margin: 0; }}
.plait img {{ display: block; border: 1px solid {LINE}; border-radius: 6px; }}
.plait figure.made img {{ border-color: {ACCENT}; }}
.plait .hole {{ border: 1px dashed {SOFT}; border-radius: 6px; color: {SOFT}; font-size: 12px; padding: 20px 8px; }}
.plait .score {{ display: inline-block; font-size: 12px; margin: 8px 10px 0 0; }}
.plait .right {{ color: {RIGHT}; }} .plait .wrong {{ color: {WRONG}; }} .plait .key {{ color: {SOFT}; }}
"""


@dataclass(frozen=True)
class Sample:
    """One interleaved sample, the durable record behind every picture of it.

    Args:
        document: what was read and drawn, in order.
        pictures: image id -> picture, or a callable on image spans.
        scores: name -> number, yes/no or word (numpy and tensor scalars too).
        seed: of the generator that drew it.
        given: number of leading spans that were the prompt; None where nothing was generated.
        title: a few words above the card.
    """

    document: Document
    pictures: Pictures = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    given: int | None = None
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        """The record without its pictures (they are in the page, by image id)."""
        scores = {name: value.item() if hasattr(value, "item") else value for name, value in self.scores.items()}
        record = {"title": self.title, "seed": self.seed, "given": self.given, "scores": scores}
        return {**record, "document": self.document.to_json()}

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style><div class='plait'>{_card(self, 128)}</div>"


def render_html(samples: Iterable[Sample], title: str = "", note: str = "", picture_size: int = 128) -> str:
    """A complete page that needs no other file.

    Args:
        picture_size: longer side of a picture on the page, in pixels; stored pictures are never scaled.
    """
    cards = "\n".join(_card(sample, picture_size) for sample in samples)
    heading = f"<h1>{html.escape(title)}</h1>" if title else ""
    heading += f"<p class='note'>{html.escape(note)}</p>" if note else ""
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{html.escape(title or 'samples')}</title>"
        f"<style>body {{ margin: 20px; background: {PAPER}; }}{STYLE}</style></head>\n"
        f"<body><div class='plait'>{heading}<div class='cards'>{cards}</div></div></body></html>\n"
    )


def render_cards(samples: Iterable[Sample], title: str = "", picture_size: int = 96) -> str:
    """Samples side by side as a piece of HTML that leaves the page around it alone, for a cell of a notebook."""
    return _fragment("\n".join(_card(sample, picture_size) for sample in samples), title)


def read_cards(page: str, count: int, title: str = "") -> str:
    """The first `count` samples of a page of `render_html`, as `render_cards` writes them."""
    inside = page.partition("<body>")[2].partition("</div></div></body>")[0]
    return _fragment("".join(f"{CARD_OPENING}{card}" for card in inside.split(CARD_OPENING)[1 : count + 1]), title)


def _fragment(cards: str, title: str) -> str:
    heading = f"<div class='head'><b>{html.escape(title)}</b></div>" if title else ""
    return f"<style>{STYLE}{NARROW}</style><div class='plait'>{heading}<div class='cards narrow'>{cards}</div></div>"


def inline_picture(picture: Image.Image) -> str:
    """A picture as a data URI (PNG, lossless)."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _card(sample: Sample, size: int) -> str:
    spans = []
    for index, span in enumerate(sample.document.spans):
        made = " made" if sample.given is not None and index >= sample.given else ""
        if isinstance(span, TextSpan):
            spans.append(f"<span class='text{made}'>{html.escape(span.text)}</span>")
            continue
        picture, name = _find(sample.pictures, span), html.escape(span.image_id, quote=True)
        if picture is None:
            spans.append(f"<span class='hole'>{'to be drawn' if span.is_hole else f'no picture {name}'}</span>")
            continue
        scale = size / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        spans.append(
            f"<figure class='{made.strip()}'><img src='{inline_picture(picture)}' width='{width}' height='{height}' "
            f"alt='{name}' title='{name}'></figure>"
        )
    head = [sample.title, sample.document.id, "" if sample.seed is None else f"seed {sample.seed}"]
    scores = "".join(_score(name, value) for name, value in sample.scores.items())
    line = html.escape(" · ".join(word for word in head if word))
    return f"{CARD_OPENING}<div class='head'>{line}</div><div class='spans'>{''.join(spans)}</div>{scores}</div>"


def _score(name: str, value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    key = f"<span class='key'>{html.escape(name)}</span>"
    if isinstance(value, bool):
        return f"<span class='score {'right' if value else 'wrong'}'>{'✓' if value else '✗'} {key}</span>"
    return f"<span class='score'>{key} {html.escape(_number(value))}</span>"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _find(pictures: Pictures, span: ImageSpan) -> Image.Image | None:
    return pictures.get(span.image_id) if isinstance(pictures, Mapping) else pictures(span)


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


def render_sheet(document: Document, pictures: Pictures, *, width: int = 640, picture_size: int = 128) -> Image.Image:
    """A document as one picture: text wrapped over the whole width, neighbouring pictures side by side."""
    gap, font = 12, _font(15)
    placed: list[tuple[int, int, Any]] = []
    left = top = gap
    row_height = 0
    for span in document.spans:
        if isinstance(span, ImageSpan):
            if left > gap and left + picture_size > width - gap:
                left, top = gap, top + row_height + gap
            placed.append((left, top, (_find(pictures, span), span)))
            left, row_height = left + picture_size + gap, picture_size
            continue
        if left > gap:
            left, top = gap, top + row_height + gap
        for line in _wrap(span.text, font, width - 2 * gap):
            placed.append((gap, top, line))
            top += 21
        top, row_height = top + 4, 0
    sheet = Image.new("RGB", (width, top + row_height + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for x, y, item in placed:
        if isinstance(item, str):
            draw.text((x, y), item, fill=INK, font=font)
        elif item[0] is not None:
            _paste(sheet, draw, item[0], x, y, picture_size)
        else:
            draw.rectangle((x, y, x + picture_size - 1, y + picture_size - 1), outline=SOFT)
            label = "to be drawn" if item[1].is_hole else f"no picture {item[1].image_id}"
            for number, line in enumerate(_wrap(label, _font(12), picture_size - 12)):
                draw.text((x + 6, y + 6 + 15 * number), line, fill=SOFT, font=_font(12))
    return sheet


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


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image, left: int, top: int, size: int) -> None:
    scale = size / max(picture.size)
    shape = tuple(max(1, round(side * scale)) for side in picture.size)
    # small pictures grow in whole pixels: what the model drew is seen as it is
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    sheet.paste(picture.convert("RGB").resize(shape, method), (left, top))
    draw.rectangle((left - 1, top - 1, left + shape[0], top + shape[1]), outline=LINE)


def _mark(draw: ImageDraw.ImageDraw, is_right: bool | None, left: int, top: int, size: int) -> None:
    if is_right is None:
        return
    color, x, y = (RIGHT if is_right else WRONG), left + size - 18, top + 2
    draw.rectangle((left - 2, top - 2, left + size + 1, top + size + 1), outline=color, width=2)
    draw.rectangle((x, y, x + 15, y + 15), fill=color)
    if is_right:
        draw.line([(x + 3, y + 8), (x + 6, y + 12), (x + 12, y + 4)], fill="white", width=2)
    else:
        draw.line([(x + 4, y + 4), (x + 11, y + 11)], fill="white", width=2)
        draw.line([(x + 4, y + 11), (x + 11, y + 4)], fill="white", width=2)
