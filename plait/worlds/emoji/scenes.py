"""Scene graphs of the world and their pictures: which coloured objects stand in which slots, and nothing else.

A scene has exactly one picture (no jitter), so the picture is named by its scene: "scene/red-car@left+blue-house@right". The
small slots fill areas of a quarter of the canvas that lie exactly on its 4 x 4 grid, the centre is large and for one-object
scenes only. This file does not know of splits, captions or where glyphs come from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from typing import Any

import numpy as np

from plait.errors import DocumentError

OBJECTS = ("car", "house", "cat", "fish", "butterfly", "tree", "umbrella", "key", "star", "guitar", "shirt", "balloon")
COLOURS = ("red", "yellow", "green", "blue", "purple")
SLOTS = ("centre", "left", "right", "top", "bottom")
AXES = (("left", "right"), ("top", "bottom"))

# Slot areas as (row, column, size) in units of an eighth of the canvas: 8 pixels at 64 x 64.
AREAS = {"centre": (1, 1, 6), "left": (2, 0, 4), "right": (2, 4, 4), "top": (0, 2, 4), "bottom": (4, 2, 4)}

Cell = tuple[str, str]
"""(colour, object)"""


@dataclass(frozen=True)
class Thing:
    """A coloured object in a slot."""

    colour: str
    object: str
    slot: str

    @property
    def cell(self) -> Cell:
        """(colour, object)"""
        return (self.colour, self.object)


@dataclass(frozen=True)
class Scene:
    """One thing in any slot, or two things of different objects at left and right or at top and bottom (in this order).

    Raises:
        DocumentError: the things make no scene of the world.
    """

    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        for thing in self.things:
            if thing.object not in OBJECTS or thing.colour not in COLOURS or thing.slot not in SLOTS:
                raise DocumentError(
                    f"{thing} is not of the world: expected an object of {OBJECTS}, a colour of {COLOURS}, a slot of {SLOTS}."
                )
        slots = tuple(thing.slot for thing in self.things)
        if len(slots) != 1 and not (slots in AXES and self.things[0].object != self.things[1].object):
            raise DocumentError(
                f"{self.things} is no scene: expected one thing, or two different objects at left and right or top and bottom."
            )

    @cached_property
    def id(self) -> str:
        """The name of the scene and of its only picture."""
        return "scene/" + "+".join(f"{thing.colour}-{thing.object}@{thing.slot}" for thing in self.things)

    @cached_property
    def _hash(self) -> int:
        return hash(self.things)

    def __hash__(self) -> int:
        # Kept: scenes are looked up far more often than they are made.
        return self._hash

    @cached_property
    def objects(self) -> frozenset[str]:
        """The objects in the scene."""
        return frozenset(thing.object for thing in self.things)

    @cached_property
    def cells(self) -> frozenset[Cell]:
        """The coloured objects in the scene."""
        return frozenset(thing.cell for thing in self.things)

    def find(self, name: str) -> Thing | None:
        """The thing that is this object, or that stands in this slot."""
        return next((thing for thing in self.things if name in (thing.object, thing.slot)), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `Scene.from_json` is the inverse."""
        return {"objects": [{"colour": t.colour, "object": t.object, "slot": t.slot} for t in self.things]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scene":
        """Read what `to_json` wrote.

        Raises:
            DocumentError: a key is missing or the things make no scene.
        """
        try:
            return cls(tuple(Thing(item["colour"], item["object"], item["slot"]) for item in data["objects"]))
        except (KeyError, TypeError) as error:
            raise DocumentError(
                f"Scene cannot be read from {data!r}: {error!r}. Expected {{'objects': [{{'colour', 'object', 'slot'}}, ...]}}."
            ) from error

    @classmethod
    def from_id(cls, image_id: str) -> "Scene":
        """Read the name of a scene picture.

        Raises:
            DocumentError: it does not name a scene of the world.
        """
        kind, _, body = image_id.partition("/")
        parts = [part.replace("@", "-").split("-") for part in body.split("+")]
        if kind != "scene" or any(len(part) != 3 for part in parts):
            raise DocumentError(f"{image_id!r} names no scene: expected for example 'scene/red-car@left+blue-house@right'.")
        return cls(tuple(Thing(*part) for part in parts))


def list_scenes() -> Iterator[Scene]:
    """Every scene of the world in a fixed order: 300 with one object, 6,600 with two."""
    for name, colour, slot in product(OBJECTS, COLOURS, SLOTS):
        yield Scene((Thing(colour, name, slot),))
    for (first, second), one, two, axis in product(permutations(OBJECTS, 2), COLOURS, COLOURS, AXES):
        yield Scene((Thing(one, first, axis[0]), Thing(two, second, axis[1])))


def slot_area(slot: str, image_size: int) -> tuple[slice, slice]:
    """Rows and columns that belong to a slot."""
    unit = image_size // 8
    row, column, size = (unit * value for value in AREAS[slot])
    return slice(row, row + size), slice(column, column + size)


def draw_scene(scene: Scene, sprites: Mapping[tuple[str, str, bool], np.ndarray], image_size: int) -> np.ndarray:
    """The picture of a scene.

    Args:
        sprites: (colour, object, is large) -> uint8 picture of a slot area on white.

    Returns:
        uint8 (h w 3).
    """
    canvas = np.full((image_size, image_size, 3), 255, dtype=np.uint8)
    for thing in scene.things:
        canvas[slot_area(thing.slot, image_size)] = sprites[thing.colour, thing.object, thing.slot == "centre"]
    return canvas
