"""The document: text and images in one order, with the spans that carry loss.

A document is what users write, what the data yields, what a model reads and what it draws. It knows nothing of ids, tokenizers
or models: an image is named by its `image_id` (a store of the data resolves it) and, once it is loaded, holds its codes or its pixels. A
picture that is still to be drawn is an `ImageSpan` with a form and without content: a prompt is a document with such a hole.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from plait.errors import DocumentError

Form = Literal["codes", "features"]
Kind = Literal["text", "pair", "dialogue", "document"]
"""What a document is, said by whoever makes it: words alone; one caption and its picture; turns of a user (without loss) and a model (with
loss); anything else in reading order (a story), whose loss flags say what is learned."""


@dataclass(frozen=True)
class TextSpan:
    """A run of text; `loss` says whether the model is trained to write it."""

    text: str
    loss: bool = False


@dataclass(frozen=True, eq=False)
class ImageSpan:
    """An image.

    Args:
        image_id: name by which an image store finds the pixels.
        loss: the model is trained to draw this image (its codes and its end marker).
        begin_loss: the model is trained to decide that an image begins here (the begin marker). Liquid never supervises it in
            pretraining, where the prompt ends with the marker; interleaved documents and instruction answers do.
        form: how the image enters a model, set by the template: its codes, or features of its pixels. None before.
        codes: one grid (gh, gw) of integers per code level. None: not encoded, or still to be drawn.
        pixels: (h w 3) uint8, or its tiles (t h w 3), where the form is "features". They stay out of JSON.
    """

    image_id: str
    loss: bool = False
    begin_loss: bool = False
    form: Form | None = None
    codes: tuple[np.ndarray, ...] | None = None
    pixels: np.ndarray | None = None

    @property
    def is_hole(self) -> bool:
        """Whether this picture is still to be drawn."""
        return self.form is not None and (self.codes if self.form == "codes" else self.pixels) is None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageSpan):
            return NotImplemented
        same = all(getattr(self, name) == getattr(other, name) for name in ("image_id", "loss", "begin_loss", "form"))
        return same and _are_equal(self.codes, other.codes) and _are_equal(_listed(self.pixels), _listed(other.pixels))

    __hash__ = None


Span = TextSpan | ImageSpan


def _are_equal(ours: Sequence[np.ndarray] | None, theirs: Sequence[np.ndarray] | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _listed(pixels: np.ndarray | None) -> list[np.ndarray] | None:
    return None if pixels is None else [pixels]


@dataclass(frozen=True)
class Document:
    """Ordered spans.

    Args:
        spans: text and image spans in reading order.
        id: name of the document in its data set.
        ends: whether an end-of-document token follows the last span (supervised if the last span carries loss).
        kind: how a template is to word it. None: it is worded already, or nobody will.
        is_worded: whether a template has written texts of it already: they hold markers, and it is not worded again.
        meta: free facts for people and metrics (scene graph, task, split); never seen by a model, left out of equality.
    """

    spans: tuple[Span, ...]
    id: str = ""
    ends: bool = True
    kind: Kind | None = field(default=None, compare=False)
    is_worded: bool = field(default=False, compare=False, repr=False)
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.spans:
            raise DocumentError(
                f"Document {self.id!r} has no spans: expected at least one text or image span. Add one, or leave the document out."
            )
        for index, span in enumerate(self.spans):
            if not isinstance(span, TextSpan | ImageSpan):
                raise DocumentError(
                    f"Document {self.id!r}: span {index} is a {type(span).__name__}, expected TextSpan or ImageSpan. Wrap it."
                )

    @property
    def images(self) -> tuple[ImageSpan, ...]:
        """The image spans in order."""
        return tuple(span for span in self.spans if isinstance(span, ImageSpan))

    @property
    def text(self) -> str:
        """All text, joined by single spaces, images left out."""
        return " ".join(span.text for span in self.spans if isinstance(span, TextSpan))

    def merged(self) -> "Document":
        """The same document with neighbouring text spans of equal loss joined by a space: the normal form of `read(build(d))`."""
        spans: list[Span] = []
        for span in self.spans:
            last = spans[-1] if spans else None
            if isinstance(span, TextSpan) and isinstance(last, TextSpan) and span.loss == last.loss:
                spans[-1] = TextSpan(f"{last.text} {span.text}", span.loss)
            else:
                spans.append(span)
        return replace(self, spans=tuple(spans))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `Document.from_json` is the inverse."""
        return {
            "id": self.id,
            "ends": self.ends,
            **({"kind": self.kind} if self.kind else {}),
            "spans": [_span_to_json(span) for span in self.spans],
            "meta": json.loads(json.dumps(dict(self.meta))),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Document":
        """Read what `to_json` wrote, or a person did: only `spans` must be there.

        Raises:
            DocumentError: a key is missing or unknown, or a value is of another kind; every span that is wrong is named.
        """
        name = data.get("id", "?") if isinstance(data, Mapping) else "?"
        problems = _check_json(data, {"spans": list}, {"id": str, "ends": bool, "kind": str | None, "meta": Mapping})
        if not problems and data.get("kind") not in (*get_args(Kind), None):
            problems = [f"has the kind {data['kind']!r}, none of {get_args(Kind)}"]
        if not problems:
            problems = [
                f"span {index} {problem}"
                for index, item in enumerate(data["spans"])
                if (problem := ", ".join(_check_span(item)))
            ]
        if problems:
            raise DocumentError(
                f"Document {name!r} cannot be read from JSON, {len(problems)} problems: {'; '.join(problems[:5])}. Expected "
                "spans of the form {'type': 'text', 'text': ...} or {'type': 'image', 'image_id': ...}. Correct the JSON."
            )
        spans = tuple(_span_from_json(item) for item in data["spans"])
        facts = {
            "id": data.get("id", ""),
            "ends": data.get("ends", True),
            "kind": data.get("kind"),
            "meta": data.get("meta", {}),
        }
        return cls(spans, **facts)


def _span_to_json(span: Span) -> dict[str, Any]:
    if isinstance(span, TextSpan):
        return {"type": "text", "text": span.text, "loss": span.loss}
    codes = None if span.codes is None else [grid.tolist() for grid in span.codes]
    return {
        "type": "image",
        "image_id": span.image_id,
        "loss": span.loss,
        "begin_loss": span.begin_loss,
        "form": span.form,
        "codes": codes,
    }


def _span_from_json(item: Mapping[str, Any]) -> Span:
    if item["type"] == "text":
        return TextSpan(item["text"], item.get("loss", False))
    codes = item.get("codes")
    grids = None if codes is None else tuple(np.asarray(grid, dtype=np.int64) for grid in codes)
    return ImageSpan(item["image_id"], item.get("loss", False), item.get("begin_loss", False), item.get("form"), grids)


def _check_span(item: Any) -> list[str]:
    """What is wrong with the JSON of one span."""
    kind = item.get("type") if isinstance(item, Mapping) else None
    if kind == "text":
        return _check_json(item, {"type": str, "text": str}, {"loss": bool})
    if kind != "image":
        return [f"has the type {kind!r}, neither 'text' nor 'image'" if isinstance(item, Mapping) else f"is {item!r}"]
    flags = {"loss": bool, "begin_loss": bool}
    problems = _check_json(item, {"type": str, "image_id": str}, {**flags, "form": str | None, "codes": list | None})
    if item.get("form") not in (*get_args(Form), None):
        problems.append(f"has the form {item['form']!r}, none of {get_args(Form)}")
    if item.get("codes") is not None and not _are_grids(item["codes"]):
        problems.append("has `codes` that are no grids of whole numbers, one per level")
    return problems


def _are_grids(codes: Any) -> bool:
    try:
        arrays = [np.asarray(grid) for grid in codes]
    except (TypeError, ValueError):  # rows of different length
        return False
    return all(array.ndim == 2 and np.issubdtype(array.dtype, np.integer) for array in arrays)


def _check_json(item: Any, required: Mapping[str, Any], optional: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of an object: missing, unknown (a misspelt `loss` must not be lost), or of another kind."""
    if not isinstance(item, Mapping):
        return [f"it is a {type(item).__name__}, no JSON object"]
    known = {**required, **optional}
    problems = [f"lacks {key!r}" for key in required if key not in item]
    problems += [f"has the unknown key {key!r}" for key in item if key not in known]
    wrong = [key for key in item if key in known and not isinstance(item[key], known[key])]
    return problems + [f"has {key} = {item[key]!r}, which is a {type(item[key]).__name__}" for key in wrong]
