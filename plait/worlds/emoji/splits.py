"""Which contents belong to which split: by content, never by row.

- train: cells (colour x object) and pairs of objects that are not held out.
- val: the same cells and pairs in two-object scenes that training never shows (a tenth of the coloured pairs, by content hash,
  in all four placements). One-object scenes are all trained on, so on val they measure recall.
- test_pair: scenes of two objects that never meet in training: neither in a picture nor in the texts of one document.
- test_combo: scenes with a cell that training neither shows nor mentions.
Scenes that hold both a held-out cell and a held-out pair belong to no split. Knows no captions and no pixels.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import combinations
from types import MappingProxyType

from plait.errors import RecipeError
from plait.worlds.emoji.scenes import Cell, Scene, list_scenes

SPLITS = ("train", "val", "test_pair", "test_combo")

_RING = ("car", "tree", "key", "cat", "umbrella", "fish", "star", "shirt", "house", "guitar", "butterfly", "balloon")

HELD_OUT_PAIRS = frozenset(frozenset((first, second)) for first, second in zip(_RING, _RING[1:] + _RING[:1], strict=True))
"""12 of the 66 pairs of objects: neighbours in a ring, so each object is in exactly two"""

HELD_OUT_CELLS: frozenset[Cell] = frozenset(
    {
        ("red", "fish"),
        ("red", "star"),
        ("red", "umbrella"),
        ("yellow", "butterfly"),
        ("yellow", "balloon"),
        ("yellow", "guitar"),
        ("green", "car"),
        ("green", "shirt"),
        ("blue", "cat"),
        ("blue", "key"),
        ("purple", "house"),
        ("purple", "tree"),
    }
)
"""12 of the 60 cells: one per object, at most three per colour, never the colour in which the glyph is drawn"""

VAL_SHARE = 10
"""one in so many coloured pairs and numbers, and one in 20 glyphs, is held out for val"""


def check_split(split: str) -> None:
    """Raises:
    RecipeError: there is no such split.
    """
    if split not in SPLITS:
        raise RecipeError(f"EmojiWorld has no split {split!r}: expected one of {SPLITS}.")


@cache
def has_held_out_pair(objects: frozenset[str]) -> bool:
    """Whether two of the objects never meet in training."""
    return any(frozenset(pair) in HELD_OUT_PAIRS for pair in combinations(objects, 2))


def has_held_out_cell(cells: Iterable[Cell]) -> bool:
    """Whether one of the coloured objects is absent from training."""
    return any(cell in HELD_OUT_CELLS for cell in cells)


def assign_scene(scene: Scene) -> str | None:
    """The split of a scene; None if it belongs to none. One-object scenes of seen cells are "train" (val shows them again)."""
    pair, cell = has_held_out_pair(scene.objects), has_held_out_cell(scene.cells)
    if pair or cell:
        return None if pair and cell else "test_pair" if pair else "test_combo"
    if len(scene.things) == 1:
        return "train"
    return "val" if _draw_lot("+".join(sorted("-".join(cell) for cell in scene.cells)), VAL_SHARE) else "train"


@cache
def assign_scenes() -> Mapping[Scene, str | None]:
    """Every scene of the world, in a fixed order, and its split."""
    return MappingProxyType({scene: assign_scene(scene) for scene in list_scenes()})


def assign_glyph(code: str) -> str:
    """The split of a real glyph: "val" for one in 20, "train" for the rest."""
    return "val" if _draw_lot(code, 2 * VAL_SHARE) else "train"


def assign_number(digits: str) -> str:
    """The split of a string of digits on a board: "val" for one in ten, "train" for the rest."""
    return "val" if _draw_lot(f"number/{digits}", VAL_SHARE) else "train"


def _draw_lot(content: str, share: int) -> bool:
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") % share == 0
