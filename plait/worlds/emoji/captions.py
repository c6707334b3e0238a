"""The closed grammar of captions, both ways: scene -> caption, caption -> scene. Captions match if their scenes are equal.

    one object   "a red car" (in the centre), "a red car on the left | on the right | at the top | at the bottom"
    two objects  "a red car to the left of a blue house", "a blue house to the right of a red car",
                 "a red car above a blue house", "a blue house below a red car"
Words and punctuation marks are separated by single spaces.
"""

import re

from plait.errors import DocumentError
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Scene, Thing

PLACES = {"centre": "", "left": " on the left", "right": " on the right", "top": " at the top", "bottom": " at the bottom"}
RELATIONS = {
    "to the left of": ("left", "right"),
    "to the right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}
"""relation -> (slot of the thing named first, slot of the thing named second)"""

_SAID_AS_U = ("uni", "united", "uk", "ur", "us", "eu", "ut", "one", "ouija")
_PHRASE = rf"an? ({'|'.join(COLOURS)}) ({'|'.join(OBJECTS)})"
_ONE = re.compile(rf"{_PHRASE}({'|'.join(place for place in PLACES.values() if place)})?")
_TWO = re.compile(rf"{_PHRASE} ({'|'.join(RELATIONS)}) {_PHRASE}")
_SLOT_OF_PLACE = {place: slot for slot, place in PLACES.items()}


def spell(text: str) -> str:
    """Text as the world spells it: words and punctuation marks apart, single spaces (tokenizers join marks to words)."""
    return " ".join(re.sub(r"([.,:?!])", r" \1 ", text).split())


def add_article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    is_vowel = phrase[:1] in "aeiou" and not phrase.startswith(_SAID_AS_U)
    return f"{'an' if is_vowel or phrase.startswith('hour') else 'a'} {phrase}"


def describe_thing(thing: Thing) -> str:
    """For example "a red car"."""
    return add_article(f"{thing.colour} {thing.object}")


def relate(first: Thing, second: Thing) -> str:
    """The relation of the first thing to the second, for example "to the left of"."""
    for relation, slots in RELATIONS.items():
        if slots == (first.slot, second.slot):
            return relation
    raise DocumentError(f"No relation between {first} and {second}: expected left and right, or top and bottom.")


def describe(scene: Scene, variant: int = 0) -> str:
    """A caption of a scene.

    Args:
        variant: which wording; odd numbers begin with the second thing.
    """
    if len(scene.things) == 1:
        return describe_thing(scene.things[0]) + PLACES[scene.things[0].slot]
    first, second = scene.things if variant % 2 == 0 else scene.things[::-1]
    return f"{describe_thing(first)} {relate(first, second)} {describe_thing(second)}"


def parse(caption: str) -> Scene | None:
    """The scene that a caption describes, or None if it is not a caption of the world."""
    text = spell(caption).removesuffix(" .")
    if match := _ONE.fullmatch(text):
        colour, name, place = match.groups()
        scene = Scene((Thing(colour, name, _SLOT_OF_PLACE[place or ""]),))
    elif match := _TWO.fullmatch(text):
        colour, name, relation, other_colour, other_name = match.groups()
        if name == other_name:
            return None
        slots = RELATIONS[relation]
        things = (Thing(colour, name, slots[0]), Thing(other_colour, other_name, slots[1]))
        scene = Scene(things if slots[0] in ("left", "top") else things[::-1])
    else:
        return None
    # The articles must be right as well: what is parsed is what could have been written.
    return scene if text in (describe(scene), describe(scene, 1)) else None
