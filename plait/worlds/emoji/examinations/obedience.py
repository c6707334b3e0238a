"""The exact rules of instructions: which form, content, count and order an answer has, and how a question is put in other words.

Everything is read with the closed grammar and the words of the world; who asked, and in which words, is not known here.
"""

import re
from collections.abc import Sequence

from plait.evaluation.figures import MAIN, Scores
from plait.worlds.emoji.captions import parse, spell
from plait.worlds.emoji.examinations.requests import Answer
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Scene, Thing
from plait.worlds.emoji.scoring import score_scene

QUESTIONS = (
    (r"what colour is the (\w+) \?", r"the \1 is what colour ?"),
    (r"what is (.+) \?", r"\1 is what ?"),
    (r"where is the (\w+) \?", r"the \1 is where ?"),
    (r"how many (\w+) objects are there \?", r"there are how many \1 objects ?"),
    (r"is there (an? \w+ \w+) \?", r"there is \1 ?"),
    (r"are the objects the same colour \?", r"is the colour of the objects the same ?"),
)
"""a question of the world -> the same in other words; the first that fits"""


def paraphrase(question: str) -> str:
    """A question of the world in words that no document of the world has."""
    for pattern, other in QUESTIONS:
        if re.fullmatch(pattern, question):
            return re.sub(pattern, other, question)
    return question


def judge_form(answer: Answer, form: str, scene: Scene, thing: Thing) -> Scores:
    """Form and content of an answer to "what colour is the <thing> ?".

    In one word or three, the content is right if the colour of the thing is the only colour named. In a sentence or caption, what is
    claimed of coloured objects ("a red car", "the car is red") must be true of the scene, and the thing among it.
    """
    words = spell(answer.text).removesuffix(" .").split()
    named = [word for word in words if word in COLOURS]
    claims = _read_claims(answer.text)
    is_true = thing.cell in claims and claims <= scene.cells
    has_form, has_content = {
        "one_colour": (len(words) == 1, named == [thing.colour]),
        "one_word": (len(words) == 1, named == [thing.colour]),
        "three_words": (1 <= len(words) <= 3, named == [thing.colour]),
        "as_caption": (parse(answer.text) is not None, parse(answer.text) == scene),
        "sentence": (len(words) > 3 and bool(claims), is_true),
    }[form]
    return {MAIN: float(has_form and has_content), "form": float(has_form), "content": float(has_content)}


def judge_order(answer: Answer, colours: Sequence[str]) -> Scores:
    """Exactly these colours in this order; `count`: as many words; `order`: these colours in this order, whatever stands between."""
    words = spell(answer.text).split()
    named = [word for word in words if word in COLOURS]
    return {
        MAIN: float(words == list(colours)),
        "count": float(len(words) == len(colours)),
        "order": float(named == list(colours)),
    }


def judge_pictures(answer: Answer, scenes: Sequence[Scene]) -> Scores:
    """Exactly these pictures in this order; `count`: as many; `order`: all of them, in this order, whatever stands between."""
    rest = iter(answer.seen)
    in_order = all(any(score_scene(finding, scene)[MAIN] for finding in rest) for scene in scenes)
    has_count = len(answer.seen) == len(scenes)
    return {MAIN: float(in_order and has_count), "count": float(has_count), "order": float(in_order)}


def _read_claims(text: str) -> frozenset[tuple[str, str]]:
    colour, name = "|".join(COLOURS), "|".join(OBJECTS)
    before = re.findall(rf"\b({colour}) ({name})\b", text)
    after = re.findall(rf"\b({name}) is ({colour})\b", text)
    return frozenset(before) | frozenset((colour, name) for name, colour in after)
