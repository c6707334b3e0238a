"""How a seen or described scene is compared with the one that was asked for. Knows scenes; neither pictures nor models."""

from collections import Counter
from collections.abc import Collection

from plait.data.emoji_world.scenes import Scene, Thing

RELATED = 2
"""things that a relation needs"""


def compare_scenes(found: Collection[Thing], expected: Scene) -> dict[str, float]:
    """Scores of what was found against the scene that was expected, each 0 or 1.

    Returns:
        objects: the same objects. colours: the same colours, whatever carries them. places: the same slots are filled.
        relation (two things only): the same objects in the same slots. all: everything, each colour on its own object.
    """
    scores = {
        "all": _same(found, expected.things, "colour", "object", "slot"),
        "objects": _same(found, expected.things, "object"),
        "colours": _same(found, expected.things, "colour"),
        "places": _same(found, expected.things, "slot"),
    }
    if len(expected.things) == RELATED:
        scores["relation"] = _same(found, expected.things, "object", "slot")
    return scores


def _same(found: Collection[Thing], expected: Collection[Thing], *names: str) -> float:
    def facts(things: Collection[Thing]) -> Counter:
        return Counter(tuple(getattr(thing, name) for name in names) for thing in things)

    return float(facts(found) == facts(expected))


def describe_things(things: Collection[Thing]) -> str:
    """The things in words for people, such as "red car left, blue house right"."""
    return ", ".join(f"{thing.colour} {thing.object} {thing.slot}" for thing in things) or "nothing recognisable"
