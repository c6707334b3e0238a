"""The oracle of dense pictures: reads each place of a board by the nearest template, or rejects the picture. Nothing learned, numpy only.

A picture is averaged to the smallest size (128 pixels), cut into places, and each place is compared with every coloured object, with the
empty place, and with the number that its best digits make. As for scenes (`verifier.py`) a picture is rejected where a single patch is
far from what was read, or where a place lies between two templates of a kind (two objects, two digits). What stands on the rim counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji.boards import (
    DIGITS,
    NUMBER_LENGTHS,
    PLACES,
    SMALLEST,
    Board,
    Content,
    draw_number,
    locate,
    place_digits,
)
from plait.worlds.emoji.oracle import DEFAULTS, Thresholds
from plait.worlds.emoji.world import EmojiWorld

PATCH = 8
"""pixels of the smallest size, as in the oracle of scenes: an eighth of a scene"""
_BLOCK = 4
"""pixels that are averaged before a patch is judged: structure stays, noise goes"""


@dataclass(frozen=True)
class BoardFinding:
    """What the oracle reads.

    Args:
        contents: the nearest content of each place (None: empty), in the order of `PLACES`, whether the picture was rejected or not.
        board: what is on it; None where it was rejected.
        reason: of the rejection; empty where there was none.
        worst, margin: largest distance within a patch and least margin (see `Thresholds`).
    """

    contents: tuple[Content | None, ...]
    board: Board | None
    reason: str
    worst: float
    margin: float


class BoardOracle:
    """Reads dense pictures of a world.

    Args:
        world: one with a `dense_size`.
        thresholds: when a picture is rejected.

    Raises:
        RecipeError: the world has no dense pictures.
    """

    def __init__(self, world: EmojiWorld, thresholds: Thresholds = DEFAULTS) -> None:
        if world.dense_size is None:
            raise RecipeError("This EmojiWorld has no dense pictures, expected some to read. Next: set world.dense_size=128.")
        self.size, self.thresholds = world.dense_size, thresholds
        self._names = tuple(world.board_sprites)
        sprites = [*world.board_sprites.values(), np.full_like(next(iter(world.board_sprites.values())), 255)]
        self._templates = _average(np.stack(sprites), self.size // SMALLEST)
        self._gaps = _square_distances(self._templates, self._templates)
        self._digits = np.repeat(DIGITS[..., None], 3, axis=3) / 255
        self._digit_gaps = _square_distances(self._digits, self._digits)

    def read(self, pictures: np.ndarray) -> list[BoardFinding]:
        """What each picture shows.

        Args:
            pictures: uint8 (n h w 3).

        Raises:
            DocumentError: the pictures are not of this kind and size.
        """
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (self.size, self.size, 3):
            raise DocumentError(
                f"The oracle of boards reads uint8 pictures (n {self.size} {self.size} 3), found {pictures.dtype} {pictures.shape}: "
                "draw them at world.dense_size."
            )
        return [self._read(_average(picture[None], self.size // SMALLEST)[0]) for picture in pictures]

    def share_right(self, pictures: np.ndarray, boards: Sequence[Board]) -> list[float]:
        """The share of the occupied places of each board that were read rightly; 0 where the picture was rejected."""
        shares = []
        for finding, board in zip(self.read(pictures), boards, strict=True):
            found = dict(zip(PLACES, finding.contents, strict=True))
            right = sum(found[place] == content for place, content in board.contents)
            shares.append(0.0 if finding.reason else right / len(board.contents))
        return shares

    def _read(self, picture: np.ndarray) -> BoardFinding:
        cells = np.stack([picture[locate(place, 1)] for place in PLACES])
        distances = _square_distances(cells, self._templates)
        margins = _margins(distances, self._gaps)
        contents: list[Content | None] = [self._name(int(best)) for best in distances.argmin(axis=1)]
        nearest = distances.min(axis=1)
        for digits, own, lead in map(self._read_numbers, [cells] * len(NUMBER_LENGTHS), NUMBER_LENGTHS):
            for index in np.flatnonzero(own < nearest):
                contents[index], nearest[index], margins[index] = "".join(map(str, digits[index])), own[index], lead[index]
        expected = np.ones_like(picture)
        for place, content in zip(PLACES, contents, strict=True):
            if content is not None:
                expected[locate(place, 1)] = (
                    draw_number(content, 1) / 255 if isinstance(content, str) else self._templates[self._names.index(content)]
                )
        worst, margin = _worst_patch(picture - expected), float(margins.min())
        reason = self._reject(contents, worst, margin)
        named = [(place, content) for place, content in zip(PLACES, contents, strict=True) if content is not None]
        return BoardFinding(tuple(contents), None if reason else Board(tuple(named)), reason, worst, margin)

    def _name(self, template: int) -> Content | None:
        return self._names[template] if template < len(self._names) else None

    def _read_numbers(self, cells: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per place its best digits (n length), its squared distance to them, and their least margin."""
        from_white = ((cells - 1) ** 2).sum(axis=-1)
        distance, digits, margins = from_white.sum(axis=(1, 2)), [], []
        for rows, columns, _ in place_digits("0" * length):
            own = _square_distances(cells[:, rows, columns], self._digits)
            digits.append(own.argmin(axis=1))
            distance += own.min(axis=1) - from_white[:, rows, columns].sum(axis=(1, 2))
            margins.append(_margins(own, self._digit_gaps))
        return np.stack(digits, axis=1), distance, np.min(margins, axis=0)

    def _reject(self, contents: Sequence[Content | None], worst: float, margin: float) -> str:
        if not any(contents):
            return "nothing there"
        if worst > self.thresholds.worst:
            return "far from every template"
        return "between two templates" if margin < self.thresholds.margin else ""


def _margins(distances: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(n k) -> (n): position on the line from the nearest template to each other one, 1 at the nearest, 0 halfway; the least of all."""
    best = distances.argmin(axis=1)
    own = gaps[best]
    lead = (distances - distances.min(axis=1, keepdims=True)) / np.where(own > 0, own, np.inf)
    lead[np.arange(len(best)), best] = np.inf
    return lead.min(axis=1)


def _worst_patch(residual: np.ndarray) -> float:
    """Largest root mean square within a patch, after averaging blocks."""
    blocks = _average(residual[None] * 255, _BLOCK)[0] ** 2
    steps = PATCH // _BLOCK
    count = SMALLEST // PATCH
    return float(np.sqrt(blocks.reshape(count, steps, count, steps, 3).mean(axis=(1, 3, 4)).max()))


def _average(pictures: np.ndarray, unit: int) -> np.ndarray:
    """(n h w 3) of 255 -> (n h/unit w/unit 3) of 1."""
    count, height, width, channels = pictures.shape
    blocks = pictures.reshape(count, height // unit, unit, width // unit, unit, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float64) / 255


def _square_distances(cells: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """(n ...) and (k ...) -> (n k) squared distances."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (cells, templates))
    return np.maximum((a * a).sum(axis=1)[:, None] - 2 * a @ b.T + (b * b).sum(axis=1)[None], 0)
