"""Pictures by their ids, in the form in which a document is to hold them: as codes of a tokenizer or as pixels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from plait.document import Document, ImageSpan
from plait.errors import RecipeError


def _no_codes(image_id: str) -> tuple[np.ndarray, ...]:
    raise RecipeError(
        f"Picture {image_id!r} was asked for as codes, and nothing here makes codes: expected a vision tokenizer. Next: "
        "choose a system that reads pictures as they are, or give base.vision_tokenizer."
    )


@dataclass(frozen=True)
class Pictures:
    """A provider of pictures; mixture, bench, gallery and desk are handed one.

    Args:
        codes: image id -> one grid (gh gw) per level, of a picture in several tiles (t gh gw).
        pixels: image id -> uint8 (h w 3), of a picture in several tiles (t h w 3).
    """

    codes: Callable[[str], tuple[np.ndarray, ...]] = _no_codes
    pixels: Callable[[str], np.ndarray] | None = None

    def fill(self, span: ImageSpan) -> ImageSpan:
        """The span with its content, where it has a form and nothing in it."""
        if not span.is_hole:
            return span
        if span.form == "codes":
            return replace(span, codes=tuple(np.asarray(grid) for grid in self.codes(span.image_id)))
        return replace(span, pixels=self.pixels(span.image_id))


def fill_images(document: Document, pictures: Pictures) -> Document:
    """The document with the content of its pictures."""
    spans = tuple(pictures.fill(span) if isinstance(span, ImageSpan) else span for span in document.spans)
    return replace(document, spans=spans)
