"""Stories: a scene that changes sentence by sentence, each sentence determining the next picture given the one before.

    "here is a red car ."                                 the first scene, as its caption says
    "a blue house appears to the right of the car ."      the new thing and the old one take the two places of the relation
    "the car turns green ."
    "they change places ."
    "the car goes away ."                                 the other thing stays where it is
`follow` is the inverse of the writers: it reads a sentence and gives the scene that must follow. Knows no split: which scenes
may follow is an argument.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from plait.worlds.emoji.captions import RELATIONS, add_article, describe, describe_thing, parse, relate, spell
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Scene, Thing

ACTIONS = ("appear", "turn", "swap", "leave")

MayFollow = Callable[[tuple[Scene, ...], Scene], bool]
"""(scenes so far, next scene) -> whether the story may go on so"""

_COLOUR, _OBJECT, _RELATION = (f"({'|'.join(words)})" for words in (COLOURS, OBJECTS, RELATIONS))
_APPEAR = re.compile(rf"an? {_COLOUR} {_OBJECT} appears {_RELATION} the {_OBJECT} \.")
_TURN = re.compile(rf"the {_OBJECT} turns {_COLOUR} \.")
_LEAVE = re.compile(rf"the {_OBJECT} goes away \.")
_SWAP = "they change places ."
_RELATIONS = tuple(RELATIONS)


@dataclass(frozen=True)
class Story:
    """Scenes and the sentence before each; `actions[0]` is "begin"."""

    scenes: tuple[Scene, ...]
    sentences: tuple[str, ...]
    actions: tuple[str, ...]


def follow(scene: Scene | None, sentence: str) -> Scene | None:
    """The scene after a sentence, or None if the sentence is no sentence of a story or cannot be said of this scene.

    Args:
        scene: the scene before; None at the beginning.
    """
    text = spell(sentence)
    if text.startswith("here is "):
        return parse(text.removeprefix("here is ")) if scene is None and text.endswith(" .") else None
    if scene is None:
        return None
    if match := _APPEAR.fullmatch(text):
        colour, name, relation, other = match.groups()
        if len(scene.things) != 1 or scene.things[0].object != other or name == other:
            return None
        after = _add(scene, colour, name, relation)
        return after if text == _write_appear(after, after.find(name)) else None
    if match := _TURN.fullmatch(text):
        name, colour = match.groups()
        thing = scene.find(name)
        return None if thing is None or thing.colour == colour else _turn(scene, name, colour)
    if match := _LEAVE.fullmatch(text):
        return _remove(scene, match[1]) if len(scene.things) == 2 and scene.find(match[1]) else None
    return _swap(scene) if text == _SWAP and len(scene.things) == 2 else None


def is_sentence(text: str) -> bool:
    """Whether a text is made by the rules of the sentences above, whatever it says: "a red car appears above the car ." is a
    sentence that no scene allows (`follow` says so)."""
    text = spell(text)
    if text.startswith("here is "):
        return text.endswith(" .") and parse(text.removeprefix("here is ")) is not None
    appears = _APPEAR.fullmatch(text)
    has_article = appears is None or text.startswith(f"{add_article(f'{appears[1]} {appears[2]}')} ")
    return has_article and (text == _SWAP or any(rule.fullmatch(text) for rule in (_APPEAR, _TURN, _LEAVE)))


def write_story(random: Random, length: int, first: Scene, may_follow: MayFollow) -> Story | None:
    """A story of `length` pictures from a first scene; None if it runs into a scene from which nothing may follow.

    Args:
        random: the only source of chance.
    """
    scenes, sentences, actions = [first], [f"here is {describe(first, random.randrange(2))} ."], ["begin"]
    while len(scenes) < length:
        for _ in range(12):
            action, sentence, after = _propose(random, scenes[-1])
            if after not in scenes and may_follow(tuple(scenes), after):
                break
        else:
            return None
        scenes.append(after)
        sentences.append(sentence)
        actions.append(action)
    return Story(tuple(scenes), tuple(sentences), tuple(actions))


def _propose(random: Random, scene: Scene) -> tuple[str, str, Scene]:
    if len(scene.things) == 1:
        action = "appear" if random.random() < 0.75 else "turn"
    else:
        action = random.choice(("turn", "swap", "leave"))
    if action == "appear":
        colour, name, relation = random.choice(COLOURS), random.choice(OBJECTS), random.choice(_RELATIONS)
        if name == scene.things[0].object:
            return action, "", scene
        after = _add(scene, colour, name, relation)
        return action, _write_appear(after, after.find(name)), after
    if action == "swap":
        return action, _SWAP, _swap(scene)
    thing = random.choice(scene.things)
    if action == "turn":
        colour = random.choice(COLOURS)
        return action, f"the {thing.object} turns {colour} .", _turn(scene, thing.object, colour)
    return action, f"the {thing.object} goes away .", _remove(scene, thing.object)


def _write_appear(after: Scene, new: Thing) -> str:
    old = next(thing for thing in after.things if thing is not new)
    return f"{describe_thing(new)} appears {relate(new, old)} the {old.object} ."


# The steps are cached: there are some 200,000 of them at most, and stories walk the same ones again and again.


@cache
def _add(scene: Scene, colour: str, name: str, relation: str) -> Scene:
    slots = RELATIONS[relation]
    new, old = Thing(colour, name, slots[0]), replace(scene.things[0], slot=slots[1])
    return Scene((new, old) if slots[0] in ("left", "top") else (old, new))


@cache
def _turn(scene: Scene, name: str, colour: str) -> Scene:
    return Scene(tuple(replace(thing, colour=colour) if thing.object == name else thing for thing in scene.things))


@cache
def _swap(scene: Scene) -> Scene:
    first, second = scene.things
    return Scene((replace(second, slot=first.slot), replace(first, slot=second.slot)))


@cache
def _remove(scene: Scene, name: str) -> Scene:
    return Scene(tuple(thing for thing in scene.things if thing.object != name))
