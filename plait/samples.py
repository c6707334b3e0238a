"""The durable record of an interleaved sample: what was given and what a model made, in order, with its pictures, scores and seed.

A `Sample` is what a program has in its hands: a document and pictures. `Sample.stored` is its record: what people are shown, span by
span, each with who made it and whose turn it is, free of the strings of a wording, pictures inside. It is JSON, and every picture of a
sample (pages, notebooks, W&B, reports, sheets) is made of it alone by `plait.rendering`. The exact document stands beside it.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError
from plait.images import open_image
from plait.sequence.chat import ROLES, ChatWording, read_turns
from plait.sequence.markers import BEGIN_IMAGE, END, END_IMAGE, UNCONDITIONAL

Pictures = Mapping[str, Image.Image] | Callable[[ImageSpan], Image.Image | None]
GIVEN, MADE = "given", "made by the model"
"""who made a span, as it is stored and shown"""
SPEAKERS = dict(zip(ROLES, ("user", "model"), strict=True))
INLINE = re.compile(r"data:image/(?:png|webp|jpeg);base64,([A-Za-z0-9+/]+={0,2})")
SILENT = re.compile("|".join((BEGIN_IMAGE, END_IMAGE, END)))
"""markers that say nothing to people: the picture or the end is there to be seen"""


@dataclass(frozen=True)
class ShownSpan:
    """One span as people see it.

    Args:
        kind: text or image.
        text: of a text, without the strings of a wording; of an image its name.
        by: `GIVEN`, `MADE`, or None where nothing was generated.
        role: whose turn it is, user or model; None outside of a dialogue.
        turn: number of the turn; spans of one turn stand together.
        picture: of an image, as a data URI; None where there is none.
        is_hole: the picture is still to be drawn.
    """

    kind: Literal["text", "image"]
    text: str
    by: Literal["given", "made by the model"] | None = None
    role: Literal["user", "model"] | None = None
    turn: int = 0
    picture: str | None = None
    is_hole: bool = False

    def open(self) -> Image.Image | None:
        """The picture, decoded; None where there is none.

        Raises:
            DocumentError: it is damaged or too large.
        """
        if self.picture is None:
            return None
        try:
            data = base64.b64decode(self.picture.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise DocumentError(f"Picture {self.text!r} of a sample is no base64: {error}. Make the sample anew.") from error
        return open_image(data, name=f"{self.text!r} of a sample")


@dataclass(frozen=True)
class StoredSample:
    """The record.

    Args:
        spans: what is shown, in order.
        document: what was read and drawn, exactly.
        scores: name -> number, yes/no or word.
        seed: of the generator that drew it; a string in JSON, because JavaScript rounds whole numbers above 2^53.
        page: of the file that it was read from.
    """

    spans: tuple[ShownSpan, ...]
    document: Document
    scores: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    title: str = ""
    page: Path | None = field(default=None, compare=False)

    @property
    def stored(self) -> "StoredSample":
        """Itself: what takes samples takes records as well."""
        return self

    @property
    def asked(self) -> str:
        """The text that was given."""
        return " ".join(span.text for span in self.spans if span.kind == "text" and span.by != MADE)

    @property
    def answer(self) -> str:
        """The text that the model wrote."""
        return " ".join(span.text for span in self.spans if span.kind == "text" and span.by == MADE)

    def _repr_html_(self) -> str:
        from plait.rendering import render_cards  # which is made of records: a cell of a notebook is the one that asks back

        return render_cards([self], picture_size=120)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `from_json` is the inverse."""
        seed = None if self.seed is None else str(self.seed)
        spans = [_write_span(span) for span in self.spans]
        facts = {"title": self.title, "seed": seed, "scores": dict(self.scores), "spans": spans}
        return facts | {"document": self.document.to_json()}

    @classmethod
    def from_json(cls, data: Any, page: Path | None = None) -> "StoredSample":
        """Read what `to_json` wrote. A record without spans (from before they were stored) shows its document, without pictures.

        Raises:
            DocumentError: it is no such record; the first thing that is wrong is named.
        """
        if not isinstance(data, Mapping) or "document" not in data:
            raise DocumentError(f"A stored sample is an object with a document, found {_short(data)}. Make the samples anew.")
        document = Document.from_json(data["document"])
        scores, seed, title = data.get("scores", {}), data.get("seed"), data.get("title", "")
        if not isinstance(scores, Mapping) or not all(isinstance(value, str | int | float | None) for value in scores.values()):
            raise _refuse(document, "scores", scores, "names with numbers, words or yes and no")
        if not (seed is None or isinstance(seed, int) or (isinstance(seed, str) and re.fullmatch(r"-?\d{1,30}", seed))):
            raise _refuse(document, "seed", seed, "a whole number as a string")
        if not isinstance(title, str):
            raise _refuse(document, "title", title, "a string")
        seed = None if seed is None else int(seed)
        if "spans" not in data:
            return replace(Sample(document, {}, scores, seed, title=title).stored, page=page)
        if not isinstance(data["spans"], Sequence) or isinstance(data["spans"], str):
            raise _refuse(document, "spans", data["spans"], "a list")
        spans = tuple(_read_span(document, item) for item in data["spans"])
        return cls(spans, document, dict(scores), seed, title, page)


@dataclass(frozen=True)
class Sample:
    """One interleaved sample in the hands of a program.

    Args:
        document: what was read and drawn, in order.
        pictures: image id -> picture, or a callable on image spans.
        scores: name -> number, yes/no or word (numpy and tensor scalars too).
        seed: of the generator that drew it.
        given: what was given: the prompt (its holes and all that stands behind its last span were made by the model), or the number of
            leading spans that were the prompt. None where nothing was generated.
        title: a few words above the card.
        wording: of the system, whose strings become turns of a dialogue.
    """

    document: Document
    pictures: Pictures = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    given: int | Document | None = None
    title: str = ""
    wording: ChatWording | None = None

    @property
    def made(self) -> tuple[bool, ...] | None:
        """Per span of the document, whether the model made it; None where nothing was generated."""
        if self.given is None:
            return None
        if isinstance(self.given, Document):
            given = [not (isinstance(span, ImageSpan) and span.is_hole) for span in self.given.spans]
        else:
            given = [True] * self.given
        return tuple(index >= len(given) or not given[index] for index in range(len(self.document.spans)))

    @cached_property
    def stored(self) -> StoredSample:
        """Its record; pictures are stored as they are."""
        scores = {name: value.item() if hasattr(value, "item") else value for name, value in self.scores.items()}
        return StoredSample(tuple(_join(self._iterate_spans())), self.document, scores, self.seed, self.title)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return self.stored.to_json()

    def _repr_html_(self) -> str:
        return self.stored._repr_html_()

    def _iterate_spans(self) -> Iterator[ShownSpan]:
        made, turn = self.made, 0
        pieces = ((i, None, span) for i, span in enumerate(self.document.spans))
        for index, role, piece in pieces if self.wording is None else read_turns(self.document, self.wording):
            if piece is None:
                turn += 1
                continue
            by = None if made is None else MADE if made[index] else GIVEN
            if isinstance(piece, ImageSpan):
                picture = self.pictures.get(piece.image_id) if isinstance(self.pictures, Mapping) else self.pictures(piece)
                shown = None if picture is None else inline_picture(picture)
                yield ShownSpan("image", piece.image_id, by, SPEAKERS.get(role), turn, shown, piece.is_hole)
                continue
            text = piece.text if isinstance(piece, TextSpan) else piece
            text = SILENT.sub(" ", text).replace(UNCONDITIONAL, "(no description)").strip()
            if text:
                yield ShownSpan("text", text, by, SPEAKERS.get(role), turn)


def inline_picture(picture: Image.Image) -> str:
    """A picture as a data URI (PNG, lossless)."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def read_samples(data: Any, page: Path | None = None) -> list[StoredSample]:
    """The records of a list, as the files samples/*.json hold them.

    Raises:
        DocumentError: it is no list of records.
    """
    if not isinstance(data, list):
        raise DocumentError(f"Stored samples are a list of records, found {_short(data)}. Make the samples anew.")
    return [StoredSample.from_json(item, page) for item in data]


def _join(spans: Iterator[ShownSpan]) -> Iterator[ShownSpan]:
    """Neighbouring texts of one hand and one turn are one text."""
    last: ShownSpan | None = None
    for span in spans:
        if last and span.kind == last.kind == "text" and (span.by, span.turn, span.role) == (last.by, last.turn, last.role):
            last = replace(last, text=f"{last.text} {span.text}")
            continue
        if last:
            yield last
        last = span
    if last:
        yield last


def _write_span(span: ShownSpan) -> dict[str, Any]:
    facts = {"kind": span.kind, "by": span.by, "role": span.role, "turn": span.turn}
    if span.kind == "text":
        return facts | {"text": span.text}
    return facts | {"image_id": span.text, "picture": span.picture, "is_hole": span.is_hole}


def _read_span(document: Document, item: Any) -> ShownSpan:
    kinds = {"text": "text", "image": "image_id"}
    if not isinstance(item, Mapping) or item.get("kind") not in kinds:
        raise _refuse(document, "a span", item, "an object of the kind text or image")
    text, picture = item.get(kinds[item["kind"]]), item.get("picture")
    allowed = {"by": (GIVEN, MADE, None), "role": (*SPEAKERS.values(), None), "is_hole": (True, False, None)}
    for name, values in allowed.items():
        if item.get(name) not in values:
            raise _refuse(document, f"{name} of a span", item.get(name), f"one of {values}")
    if not isinstance(text, str) or not isinstance(item.get("turn", 0), int):
        raise _refuse(document, "a span", item, "its text (or image_id) as a string and its turn as a number")
    if picture is not None and not (isinstance(picture, str) and INLINE.fullmatch(picture)):
        raise _refuse(document, f"the picture {text!r}", picture, "a picture inside the record: data:image/png;base64,...")
    return ShownSpan(
        item["kind"], text, item.get("by"), item.get("role"), item.get("turn", 0), picture, bool(item.get("is_hole"))
    )


def _refuse(document: Document, what: str, found: Any, expected: str) -> DocumentError:
    return DocumentError(
        f"Sample {document.id!r} holds {what} = {_short(found)}, expected {expected}. The file was damaged or changed: make it anew."
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
