"""Questions about a scene with exact answers of one word. Every type is balanced by construction, so that the most frequent
answer is right in at most 60 % of cases, in every split.

A type is asked through `ask(kind, scene, ...)` with numbers in [0, 1) as the only source of choice; callers hand in numbers
that are evenly spread (`writers.py`), and scenes of which half are of one colour. Knows no split: which negatives may be asked
is an argument.
"""

import re
from collections.abc import Callable, Sequence
from itertools import product

from plait.worlds.emoji.captions import add_article
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Cell, Scene, Thing

TYPES = ("colour", "what", "where", "count", "exists", "same_colour")
NUMBERS = ("zero", "one", "two")
PLACE_NAMES = {"centre": "middle", "left": "left", "right": "right", "top": "top", "bottom": "bottom"}
PLACE_PHRASES = {
    "centre": "in the middle",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
}

Negatives = Callable[[Scene], tuple[tuple[Cell, ...], ...]]
"""scene -> groups of coloured objects that are not in it and may be asked for; groups are used equally often"""


def ask(kind: str, scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    """A question of a type and its answer.

    Args:
        wish: in [0, 1), decides between the possible answers (yes or no, zero or more), evenly spread over questions.
        pick: in [0, 1), decides which thing is asked about and which negative is used.
        negatives: for questions with the answer no.
    """
    return _ASKERS[kind](scene, wish, pick, negatives)


def answer(question: str, scene: Scene) -> str | None:
    """The answer to a question that `ask` could have asked; None where the scene does not have what it is about, or the text is no such
    question."""
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(question):
            return _ANSWERS[kind](scene, *match.groups())
    return None


def _choose(options: Sequence, pick: float):
    return options[int(pick * len(options))]


def _ask_colour(scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    thing = _choose(scene.things, pick)
    return f"what colour is the {thing.object} ?", thing.colour


def _ask_what(scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    thing = _choose(scene.things, pick)
    return f"what is {PLACE_PHRASES[thing.slot]} ?", thing.object


def _ask_where(scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    thing = _choose(scene.things, pick)
    return f"where is the {thing.object} ?", PLACE_NAMES[thing.slot]


def _ask_count(scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    present = [thing.colour for thing in scene.things]
    # A third of the answers is zero; half of the scenes of two things are of one colour, so one and two get a third each.
    options = [colour for colour in COLOURS if colour not in present] if wish < 1 / 3 else present
    colour = _choose(options, pick)
    return f"how many {colour} objects are there ?", NUMBERS[present.count(colour)]


def _ask_exists(scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    if wish < 0.5:
        thing = _choose(scene.things, pick)
        return f"is there {add_article(' '.join(thing.cell))} ?", "yes"
    groups = negatives(scene)
    cell = _choose(_choose(groups, pick), pick * len(groups) % 1)
    return f"is there {add_article(' '.join(cell))} ?", "no"


def _ask_same_colour(scene: Scene, wish: float, pick: float, negatives: Negatives) -> tuple[str, str]:
    return "are the objects the same colour ?", "yes" if len({thing.colour for thing in scene.things}) == 1 else "no"


def list_negatives(scene: Scene, may_mention: Callable[[Cell], bool]) -> tuple[tuple[Cell, ...], ...]:
    """Coloured objects that are nearly in the scene, in groups: first an object of the scene in the colour of the other one,
    then an object of the scene in a further colour or a colour of the scene on a further object; without empty groups.

    Args:
        may_mention: whether a question about this scene may name the coloured object.
    """
    colours, objects = {thing.colour for thing in scene.things}, scene.objects
    crossed, near = [], []
    for cell in product(COLOURS, OBJECTS):
        shared = (cell[0] in colours) + (cell[1] in objects)
        if shared and cell not in scene.cells and may_mention(cell):
            (crossed if shared == 2 else near).append(cell)
    return tuple(tuple(group) for group in (crossed, near) if group)


_ASKERS = {
    "colour": _ask_colour,
    "what": _ask_what,
    "where": _ask_where,
    "count": _ask_count,
    "exists": _ask_exists,
    "same_colour": _ask_same_colour,
}

_PATTERNS = {
    "colour": re.compile(r"what colour is the (\w+) \?"),
    "where": re.compile(r"where is the (\w+) \?"),
    "what": re.compile(rf"what is ({'|'.join(PLACE_PHRASES.values())}) \?"),
    "count": re.compile(r"how many (\w+) objects are there \?"),
    "exists": re.compile(r"is there an? (\w+) (\w+) \?"),
    "same_colour": re.compile(r"are the objects the same colour \?"),
}


def _say(thing: Thing | None, attribute: str) -> str | None:
    return None if thing is None else getattr(thing, attribute)


def _place(scene: Scene, name: str) -> str | None:
    return PLACE_NAMES.get(_say(scene.find(name), "slot") or "")


def _stands_there(scene: Scene, phrase: str) -> str | None:
    return _say(next((thing for thing in scene.things if PLACE_PHRASES[thing.slot] == phrase), None), "object")


_ANSWERS: dict[str, Callable[..., str | None]] = {
    "colour": lambda scene, name: _say(scene.find(name), "colour"),
    "where": _place,
    "what": _stands_there,
    "count": lambda scene, colour: NUMBERS[sum(thing.colour == colour for thing in scene.things)],
    "exists": lambda scene, colour, name: "yes" if (colour, name) in scene.cells else "no",
    "same_colour": lambda scene: "yes" if len({thing.colour for thing in scene.things}) == 1 else "no",
}
