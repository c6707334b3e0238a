"""Other real glyphs in the colours of the world, each standing in one of its slots: more kinds of things in more colours than the
12 x 5 grid itself has. An option of the world (`has_painted`), for training only.

What the splits hold out stays out: a glyph whose name contains an object of the world is not painted (no "blue cat face"), and the
world's own glyphs are none of them. A glyph may still resemble an object (a taxi a car): tests/data/test_splits.py asks the
oracle. Left out besides: names with a colour, skin tones, flags, kinds of which dozens are drawn alike, and glyphs with little to paint.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from plait.errors import DocumentError
from plait.worlds.emoji.captions import PLACES, add_article
from plait.worlds.emoji.glyphs import OBJECT_CODES, Glyph, fit_glyph, list_glyphs, open_glyph
from plait.worlds.emoji.recolour import painted_share, recolour
from plait.worlds.emoji.scenes import AREAS, COLOURS, OBJECTS, SLOTS, slot_area
from plait.worlds.emoji.splits import assign_glyph

OTHER_COLOURS = ("orange", "brown", "black", "white", "pink", "grey", "dark", "light", "rainbow")
KINDRED = ("automobile", "taxi", "vehicle", "home", "kitten", "heart")
"""words of names that are drawn nearly as an object of the world; hearts come in every colour, under its name"""

ALIKE = ("man", "woman", "person", "men", "women", "people", "family", "face", "button", "input", "keycap", "clock")
"""words of names of which dozens are drawn alike"""

LEAST_SHARE = 0.4
"""of the drawn area must take the colour"""

_REFUSED = frozenset((*OBJECTS, *COLOURS, *OTHER_COLOURS, *KINDRED, *ALIKE, "flag", "skin", "tone", ":"))


@dataclass(frozen=True)
class PaintedGlyph:
    """A real glyph in a colour of the world, in a slot."""

    glyph: Glyph
    colour: str
    slot: str

    @property
    def id(self) -> str:
        """The name of its picture."""
        return f"painted/{self.colour}-{self.glyph.code}@{self.slot}"

    @property
    def caption(self) -> str:
        """For example "a blue apple on the left"."""
        return add_article(f"{self.colour} {self.glyph.name}") + PLACES[self.slot]


@cache
def list_painted() -> tuple[PaintedGlyph, ...]:
    """Every training glyph that can be painted, in all colours; the slot follows from glyph and colour."""
    glyphs = [glyph for glyph in list_glyphs() if assign_glyph(glyph.code) == "train" and _is_paintable(glyph)]
    return tuple(PaintedGlyph(glyph, colour, _choose_slot(glyph, colour)) for glyph, colour in product(glyphs, COLOURS))


def draw_painted(image_id: str, image_size: int) -> np.ndarray:
    """The picture of a painted glyph, uint8 (h w 3).

    Raises:
        DocumentError: the id names none.
    """
    match = re.fullmatch(rf"painted/({'|'.join(COLOURS)})-([0-9a-f-]+)@({'|'.join(SLOTS)})", image_id)
    if match is None or match[2] in OBJECT_CODES.values():
        raise DocumentError(f"{image_id!r} names no painted glyph: expected for example 'painted/red-1f34e@left'.")
    colour, code, slot = match.groups()
    unit = image_size // 8
    canvas = np.full((image_size, image_size, 3), 255, dtype=np.uint8)
    glyph = recolour(open_glyph(code), "", colour)
    canvas[slot_area(slot, image_size)] = fit_glyph(glyph, unit * AREAS[slot][2], margin=max(1, unit // 8))
    return canvas


def _is_paintable(glyph: Glyph) -> bool:
    return _REFUSED.isdisjoint(glyph.name.split()) and painted_share(open_glyph(glyph.code)) >= LEAST_SHARE


def _choose_slot(glyph: Glyph, colour: str) -> str:
    return SLOTS[hashlib.sha256(f"{glyph.code}/{colour}".encode()).digest()[0] % len(SLOTS)]
