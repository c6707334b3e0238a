"""Reading a story that a model wrote: is it sentence, picture, sentence, picture ..., and what does each sentence make of
the world?

Form and sense are kept apart. A sentence has form if the rules of the world's sentences make it; it has sense if it can be said
of the scene that its own story has reached ("the crown goes away" needs a crown, and no second crown can appear beside it). The
last picture may be followed by one question and its answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from plait.document import ImageSpan, Span, TextSpan
from plait.worlds.emoji.captions import describe, spell
from plait.worlds.emoji.questions import ask
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Scene, Thing
from plait.worlds.emoji.stories import follow, is_sentence
from plait.worlds.emoji.writers import STORY_QUESTIONS

_CLOSING = re.compile(r"question : (.+ \?) answer : (.+)")


@dataclass(frozen=True)
class StoryReading:
    """What stands in a story.

    Args:
        sentences: the texts before pictures, in order.
        states: the scene that must be seen after each sentence; None once a sentence makes no sense.
        pictures: the picture after each sentence; None where there is none.
        question: the closing question, empty without one.
        answer: its answer.
        is_wellformed: the document is sentence, picture, ... as the grammar of stories has it.
    """

    sentences: tuple[str, ...]
    states: tuple[Scene | None, ...]
    pictures: tuple[ImageSpan | None, ...]
    question: str
    answer: str
    is_wellformed: bool

    @property
    def is_answer_right(self) -> bool:
        """Whether the closing answer is true of the last scene."""
        last = self.states[-1] if self.states else None
        return last is not None and (self.question, self.answer) in list_answers(last)


def read_story(spans: Sequence[Span]) -> StoryReading:
    """Read the spans of a story; neighbouring texts are read as one."""
    runs = _join(spans)
    sentences: list[str] = []
    pictures: list[ImageSpan | None] = []
    closing, is_wellformed = "", len(runs) >= 2
    for index, run in enumerate(runs):
        if isinstance(run, ImageSpan):
            is_wellformed &= len(pictures) < len(sentences)  # a sentence stands before every picture
            if len(pictures) < len(sentences):
                pictures.append(run)
            continue
        is_last = index == len(runs) - 1
        if is_last and sentences and run.startswith("question"):
            closing = run
            continue
        is_wellformed &= is_sentence(run) and not is_last
        pictures += [None] * (len(sentences) - len(pictures))
        sentences.append(run)
    pictures += [None] * (len(sentences) - len(pictures))
    match = _CLOSING.fullmatch(closing)
    question, answer = match.groups() if match else ("", "")
    if closing:
        is_wellformed &= question in list_questions() and bool(answer)
    return StoryReading(
        tuple(sentences), _follow_all(sentences), tuple(pictures), question, answer, is_wellformed and None not in pictures
    )


@cache
def list_answers(scene: Scene) -> frozenset[tuple[str, str]]:
    """Every closing question that can be asked of a scene, with each of its right answers."""
    found = {("what is in the picture ?", describe(scene, variant)) for variant in (0, 1)}
    for kind in STORY_QUESTIONS:
        if kind != "describe":
            for index in range(len(scene.things)):
                found.add(ask(kind, scene, 0.0, (index + 0.5) / len(scene.things), lambda _: ()))
    return frozenset(found)


@cache
def list_questions() -> frozenset[str]:
    """Every closing question of the world."""
    slots = [Scene((Thing(COLOURS[0], OBJECTS[0], slot),)) for slot in ("centre", "left", "right", "top", "bottom")]
    return frozenset(question for scene in (*slots, *_probes()) for question, _ in list_answers(scene))


def _follow_all(sentences: Sequence[str]) -> tuple[Scene | None, ...]:
    states: list[Scene | None] = []
    for sentence in sentences:
        is_lost = bool(states) and states[-1] is None
        # A story that has lost its scene does not begin anew: None would be read as "at the beginning".
        states.append(None if is_lost else follow(states[-1] if states else None, sentence))
    return tuple(states)


@cache
def _probes() -> tuple[Scene, ...]:
    """A few scenes such that every sentence of the grammar can be said of one of them."""
    single = [Scene((Thing(colour, name, "centre"),)) for name in OBJECTS for colour in COLOURS[:2]]
    double = [
        Scene((Thing(COLOURS[0], name, "left"), Thing(COLOURS[0], OBJECTS[index - 1], "right")))
        for index, name in enumerate(OBJECTS)
    ]
    return (*single, *double)


def _join(spans: Sequence[Span]) -> list[str | ImageSpan]:
    runs: list[str | ImageSpan] = []
    for span in spans:
        if isinstance(span, TextSpan) and runs and isinstance(runs[-1], str):
            runs[-1] = f"{runs[-1]} {spell(span.text)}"
        else:
            runs.append(spell(span.text) if isinstance(span, TextSpan) else span)
    return runs
