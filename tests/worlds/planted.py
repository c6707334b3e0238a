"""Wrong pictures made on purpose, to test the oracle and to bound its thresholds: what a person would not accept as the scene.

Each kind takes the picture of a scene and gives a picture that no longer shows it: a patchwork of patches of several scenes, a
blend of two scenes, a blob of colour, the object off its slot, half an object, an impossible colour, a mix of two objects. A
planted picture may show another scene of the world (half of the wrong colours do): the oracle must call it wrong then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Scene, slot_area
from plait.worlds.emoji.world import EmojiWorld

Plant = Callable[[EmojiWorld, Scene, Sequence[Scene], Random], np.ndarray]
"""(world, scene, further scenes, dice) -> uint8 (h w 3)"""


def plant_patchwork(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """Patches of a quarter of the width, about half of them from other scenes; at least a quarter of an object is exchanged."""
    picture, unit = _draw(world, scene), world.image_size // 4
    for _ in range(20):
        result = picture.copy()
        for row in range(4):
            for column in range(4):
                if random.random() < 0.5:
                    place = slice(row * unit, (row + 1) * unit), slice(column * unit, (column + 1) * unit)
                    result[place] = _draw(world, random.choice(others))[place]
        if _changed_share(picture, result) > 0.25:
            return result
    return result


def plant_blend(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """The scene and another one, half transparent over each other."""
    return np.round((_draw(world, scene).astype(np.float32) + _draw(world, random.choice(others))) / 2).astype(np.uint8)


def plant_blob(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """A disc of the right colour instead of one thing."""
    thing = random.choice(scene.things)
    rows, columns = slot_area(thing.slot, world.image_size)
    result = _draw(world, scene).copy()
    area = result[rows, columns]
    painted = np.abs(area.astype(int) - 255).sum(axis=2) > 90
    colour = np.median(area[painted], axis=0)
    y, x = np.mgrid[: area.shape[0], : area.shape[1]] - (area.shape[0] - 1) / 2
    radius = area.shape[0] * random.uniform(0.25, 0.48)
    area[:] = np.where((y**2 + x**2 < radius**2)[..., None], colour.astype(np.uint8), np.uint8(255))
    return result


def plant_wrong_slot(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """Everything moved by an eighth, a quarter or half of the width: things stand where no slot is, or in another slot."""
    unit = world.image_size // 8
    down, right = random.choice([(0, 1), (1, 0), (0, -1), (-1, 0), (2, 0), (0, 2), (1, 1), (0, 4)])
    return np.roll(_draw(world, scene), (down * unit, right * unit), axis=(0, 1))


def plant_half(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """One thing cut: one of its halves is white."""
    thing = random.choice(scene.things)
    result = _draw(world, scene).copy()
    area = result[slot_area(thing.slot, world.image_size)]
    middle = area.shape[0] // 2
    _halves(area, middle)[random.randrange(4)][:] = 255
    return result


def plant_wrong_colour(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """One thing in another colour of the world, or halfway between two colours."""
    thing = random.choice(scene.things)
    other = replace(thing, colour=random.choice([colour for colour in COLOURS if colour != thing.colour]))
    wrong = _draw(world, Scene(tuple(other if own is thing else own for own in scene.things)))
    if random.random() < 0.5:
        return wrong
    return ((wrong.astype(np.uint16) + _draw(world, scene)) // 2).astype(np.uint8)


def plant_mix(world: EmojiWorld, scene: Scene, others: Sequence[Scene], random: Random) -> np.ndarray:
    """One half of a thing exchanged for that half of another object of the same colour."""
    thing = random.choice(scene.things)
    name = random.choice([name for name in OBJECTS if name not in scene.objects])
    other = Scene(tuple(replace(own, object=name) if own is thing else own for own in scene.things))
    result, place = _draw(world, scene).copy(), slot_area(thing.slot, world.image_size)
    half = random.randrange(4)
    middle = result[place].shape[0] // 2
    _halves(result[place], middle)[half][:] = _halves(_draw(world, other)[place], middle)[half]
    return result


PLANTS: Mapping[str, Plant] = {
    "patchwork": plant_patchwork,
    "blend": plant_blend,
    "blob": plant_blob,
    "wrong_slot": plant_wrong_slot,
    "half": plant_half,
    "wrong_colour": plant_wrong_colour,
    "mix": plant_mix,
}


def plant(world: EmojiWorld, kind: str, scenes: Sequence[Scene], seed: int = 0) -> np.ndarray:
    """A wrong picture of a kind for each scene; the other scenes of the sequence lend their parts.

    Returns:
        uint8 (n h w 3).
    """
    random = Random(f"{seed}/{kind}")
    pictures = []
    for scene in scenes:
        others = [other for other in random.sample(scenes, 9) if other != scene]
        pictures.append(PLANTS[kind](world, scene, others, random))
    return np.stack(pictures)


def _draw(world: EmojiWorld, scene: Scene) -> np.ndarray:
    return world.pixels([scene.id])[0]


def _halves(area: np.ndarray, middle: int) -> tuple[np.ndarray, ...]:
    return area[:middle], area[middle:], area[:, :middle], area[:, middle:]


def _changed_share(picture: np.ndarray, result: np.ndarray) -> float:
    """Share of the drawn pixels that are different now."""
    drawn = (picture != 255).any(axis=2)
    return float((picture != result).any(axis=2)[drawn].mean())
