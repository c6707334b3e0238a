"""Boards: dense pictures of 4 to 16 small coloured objects and 1 to 4 strings of digits on a grid of 5 x 5 places.

The same objects, colours, held-out pairs and held-out cells as in scenes, and what scenes do not ask for: counting beyond two, looking
things up by row and column, reading. A picture has 128 pixels or a multiple; its grid is the same at every size. This file knows scene
graphs, their split and their drawing; what is said of a board is `board_texts.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Cell
from plait.worlds.emoji.splits import assign_number, has_held_out_cell, has_held_out_pair

SIDE = 5
SMALLEST, LARGEST = 128, 512
"""pixels; a picture has a multiple of the smallest size"""
CELL, MARGIN = 24, 4
"""pixels of a place and of the white rim around the grid, at the smallest size"""
NUM_OBJECTS = range(4, 17)
NUM_NUMBERS = range(1, 5)
NUMBER_LENGTHS = (2, 3)

Place = tuple[int, int]
"""(row, column), each from 1"""
PLACES: tuple[Place, ...] = tuple(product(range(1, SIDE + 1), repeat=2))
Content = Cell | str
"""a coloured object, or the digits of a number"""

# Drawn here and not by a font: fonts differ from version to version, and the picture is the data.
_STROKES = (
    ".###. #...# #..## #.#.# ##..# #...# .###.",
    "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    ".###. #...# ....# ...#. ..#.. .#... #####",
    ".###. #...# ....# ..##. ....# #...# .###.",
    "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "##### #.... ####. ....# ....# #...# .###.",
    "..##. .#... #.... ####. #...# #...# .###.",
    "##### ....# ...#. ..#.. .#... .#... .#...",
    ".###. #...# #...# .###. #...# #...# .###.",
    ".###. #...# #...# .#### ....# ...#. .##..",
)
DIGITS = np.array([[[255 * (mark == ".") for mark in row] for row in rows.split()] for rows in _STROKES], np.uint8)
"""(10 7 5) pictures of the digits, black on white"""


@dataclass(frozen=True)
class Board:
    """What stands where, in reading order; a place that is not named is empty.

    Raises:
        DocumentError: the contents make no board.
    """

    contents: tuple[tuple[Place, Content], ...]

    def __post_init__(self) -> None:
        places = [place for place, _ in self.contents]
        wrong = [content for _, content in self.contents if not _is_content(content)]
        if wrong or not places or not set(places) <= set(PLACES) or places != sorted(set(places)):
            raise DocumentError(
                f"{self.contents} is no board: expected places from (1, 1) to ({SIDE}, {SIDE}) in reading order, each once, with "
                f"(colour, object) of the world or {NUMBER_LENGTHS[0]} to {NUMBER_LENGTHS[-1]} digits."
            )

    @cached_property
    def id(self) -> str:
        """The name of the board and of its only picture, for example "dense/red-car@1.2+407@1.4"."""
        return "dense/" + "+".join(
            f"{content if isinstance(content, str) else '-'.join(content)}@{row}.{column}"
            for (row, column), content in self.contents
        )

    @cached_property
    def coloured(self) -> tuple[Cell, ...]:
        """The coloured objects, as often as they are there."""
        return tuple(content for _, content in self.contents if not isinstance(content, str))

    @cached_property
    def objects(self) -> frozenset[str]:
        """Which objects are there."""
        return frozenset(name for _, name in self.coloured)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The strings of digits."""
        return tuple(content for _, content in self.contents if isinstance(content, str))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `Board.from_json` is the inverse."""
        return {"places": [[row, column, content] for (row, column), content in self.contents]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Board":
        """Read what `to_json` wrote.

        Raises:
            DocumentError: it makes no board.
        """
        try:
            found = [((row, column), content) for row, column, content in data["places"]]
            return cls(tuple((place, own if isinstance(own, str) else tuple(own)) for place, own in found))
        except (KeyError, TypeError, ValueError) as error:
            raise DocumentError(
                f"Board cannot be read from {data!r}: {error!r}. Expected {{'places': [[row, column, content], ...]}}."
            ) from error

    @classmethod
    def from_id(cls, image_id: str) -> "Board":
        """Read the name of a board's picture.

        Raises:
            DocumentError: it does not name a board.
        """
        kind, _, body = image_id.partition("/")
        try:
            if kind != "dense":
                raise ValueError(kind)
            contents = []
            for part in body.split("+"):
                what, where = part.split("@")
                row, column = map(int, where.split("."))
                contents.append(((row, column), what if what.isdecimal() else tuple(what.split("-"))))
        except ValueError as error:
            raise DocumentError(f"{image_id!r} names no board: expected for example 'dense/red-car@1.2+407@1.4'.") from error
        return cls(tuple(contents))


def assign_board(board: Board) -> str | None:
    """The split of a board by what is new in it (objects that never meet, a held-out cell, a held-out number); None for more than one."""
    new = {
        "test_pair": has_held_out_pair(board.objects),
        "test_combo": has_held_out_cell(board.coloured),
        "val": any(assign_number(digits) == "val" for digits in board.numbers),
    }
    found = [split for split, is_new in new.items() if is_new]
    return "train" if not found else found[0] if len(found) == 1 else None


def check_board_size(size: int) -> None:
    """Raises:
    RecipeError: boards are not drawn at this size.
    """
    if size % SMALLEST or not SMALLEST <= size <= LARGEST:
        raise RecipeError(
            f"Dense pictures of {size} pixels were asked for, expected a multiple of {SMALLEST} up to {LARGEST}. Set world.dense_size."
        )


def draw_number(digits: str, unit: int) -> np.ndarray:
    """The picture of a place with a number: digits of 5 x 7 with gaps of 1, times the unit, in the middle.

    Returns:
        uint8 (h w 3).
    """
    canvas = np.full((CELL, CELL), 255, np.uint8)
    for rows, columns, digit in place_digits(digits):
        canvas[rows, columns] = DIGITS[digit]
    return np.repeat(canvas.repeat(unit, 0).repeat(unit, 1)[..., None], 3, axis=2)


def place_digits(digits: str) -> list[tuple[slice, slice, int]]:
    """Rows, columns and value of each digit within its place, at the smallest size."""
    height, width = DIGITS.shape[1:]
    top, left = (CELL - height) // 2, (CELL - (width + 1) * len(digits) + 1) // 2
    starts = (left + (width + 1) * number for number in range(len(digits)))
    return [
        (slice(top, top + height), slice(start, start + width), int(digit)) for start, digit in zip(starts, digits, strict=True)
    ]


def locate(place: Place, unit: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that belong to a place."""
    row, column = (unit * (MARGIN + CELL * (number - 1)) for number in place)
    return slice(row, row + unit * CELL), slice(column, column + unit * CELL)


def draw_board(board: Board, sprites: Mapping[Cell, np.ndarray], size: int) -> np.ndarray:
    """The picture of a board.

    Args:
        sprites: coloured object -> its picture, as large as a place.

    Returns:
        uint8 (h w 3).
    """
    unit = size // SMALLEST
    canvas = np.full((size, size, 3), 255, np.uint8)
    for place, content in board.contents:
        canvas[locate(place, unit)] = draw_number(content, unit) if isinstance(content, str) else sprites[content]
    return canvas


def _is_content(content: Any) -> bool:
    if isinstance(content, str):
        return len(content) in NUMBER_LENGTHS and content.isascii() and content.isdecimal()
    return isinstance(content, tuple) and len(content) == 2 and content[0] in COLOURS and content[1] in OBJECTS
