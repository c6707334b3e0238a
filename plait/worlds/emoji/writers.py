"""Documents of each task, written from scenes: a candidate is a pure function of (random numbers, its number, pools).

A writer returns None where its dice made no document of the split; `sources.py` then throws again. Choices that must be
balanced (answers, types of question) are not thrown but spread evenly over the numbers of the documents.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

from plait.document import Document, ImageSpan, TextSpan
from plait.worlds.emoji.captions import add_article, describe
from plait.worlds.emoji.glyphs import Glyph
from plait.worlds.emoji.painted import PaintedGlyph
from plait.worlds.emoji.pools import Pools
from plait.worlds.emoji.questions import TYPES, ask
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.splits import has_held_out_pair
from plait.worlds.emoji.stories import Story, write_story

Writer = Callable[[Random, int, Pools], Document | None]

ASKED_OF_EACH = ("what", "where")
"""Asked of every thing of a training picture, not of one: which thing stands where is the one answer that cannot be had without
looking a thing up, and a small model learns it sooner, or at all, where it is asked more often (reports/demo.md)."""
STORY_LENGTHS = (3, 4, 5)
STORY_QUESTIONS = ("describe", "colour", "what", "where")

_TYPES_OF_ONE = tuple(kind for kind in TYPES if kind != "same_colour")
_STRIDES = {name: math.sqrt(prime) for name, prime in zip(("colours", *TYPES), (2, 3, 5, 7, 11, 13, 17), strict=True)}


def spread(number: int, name: str) -> float:
    """A number in [0, 1): over consecutive documents, or every n-th one, the values of each name fill the interval evenly (a
    Weyl sequence), and those of different names do so independently."""
    return (number + 1) * _STRIDES[name] % 1


def write_pair(scene: Scene, variant: int) -> Document:
    """A caption and its picture."""
    return Document((TextSpan(describe(scene, variant)), ImageSpan(scene.id)), kind="pair", meta={"scene": scene.to_json()})


def write_glyph(glyph: Glyph) -> Document:
    """The name of a real glyph and its picture."""
    return Document(
        (TextSpan(add_article(glyph.name)), ImageSpan(f"glyph/{glyph.code}")), kind="pair", meta={"name": glyph.name}
    )


def write_painted(painted: PaintedGlyph) -> Document:
    """What a painted glyph is called, and its picture."""
    facts = {"name": painted.glyph.name, "colour": painted.colour, "slot": painted.slot}
    return Document((TextSpan(painted.caption), ImageSpan(painted.id)), kind="pair", meta=facts)


def write_vqa(random: Random, number: int, pools: Pools) -> Document | None:
    """Questions of all types about one picture, in random order. Half of the scenes with two things are of one colour."""
    if pools.split == "train" and number % 4 == 3:
        scene, types = random.choice(pools.one_object), _TYPES_OF_ONE
    else:
        scene, types = random.choice(pools.same_colour if spread(number, "colours") < 0.5 else pools.two_colours), TYPES
    asked: list[tuple[str, int | None]] = [(kind, None) for kind in types]
    if pools.split == "train":
        asked = [(kind, thing) for kind in types for thing in (range(len(scene.things)) if kind in ASKED_OF_EACH else (None,))]
    asked = random.sample(asked, len(asked))
    spans: list[ImageSpan | TextSpan] = [ImageSpan(scene.id)]
    for kind, thing in asked:
        pick = random.random() if thing is None else (thing + 0.5) / len(scene.things)
        question, answer = ask(kind, scene, spread(number, kind), pick, pools.negatives)
        spans += [TextSpan(question), TextSpan(answer, loss=True)]
    return Document(tuple(spans), kind="dialogue", meta={"scene": scene.to_json(), "types": [kind for kind, _ in asked]})


def write_story_document(random: Random, number: int, pools: Pools) -> Document | None:
    """A story of 3 to 5 pictures, a question about the last one, and its answer."""
    story = _draw_story(random, STORY_LENGTHS[number % len(STORY_LENGTHS)], pools)
    if story is None:
        return None
    spans: list[ImageSpan | TextSpan] = []
    for sentence, scene in zip(story.sentences, story.scenes, strict=True):
        spans += [TextSpan(sentence, loss=True), ImageSpan(scene.id, loss=True, begin_loss=True)]
    kind = STORY_QUESTIONS[number // len(STORY_LENGTHS) % len(STORY_QUESTIONS)]
    question, answer = _ask_last(random, kind, story.scenes[-1], pools)
    # the question is the writer's own too: whoever never learns to write it never ends a story
    spans += [TextSpan(f"question : {question}", loss=True), TextSpan(f"answer : {answer}", loss=True)]
    facts = {"states": [scene.to_json() for scene in story.scenes], "actions": list(story.actions), "question": kind}
    return Document(tuple(spans), kind="document", meta={**facts, "scene": facts["states"][-1], "answer": answer})


def write_edit(random: Random, number: int, pools: Pools) -> Document | None:
    """Two neighbouring pictures of a story and the sentence between them. Outside training the change is new content: one of
    the two pictures belongs to the split itself."""
    story = _draw_story(random, max(STORY_LENGTHS), pools)
    if story is None:
        return None
    steps = [step for step in range(1, len(story.scenes)) if _is_new(story.scenes[step - 1 : step + 1], pools)]
    if not steps:
        return None
    action = random.choice(sorted({story.actions[step] for step in steps}))
    step = random.choice([step for step in steps if story.actions[step] == action])
    before, after = story.scenes[step - 1 : step + 1]
    spans = (ImageSpan(before.id), TextSpan(story.sentences[step]), ImageSpan(after.id, loss=True))
    states = [before.to_json(), after.to_json()]
    return Document(spans, kind="dialogue", meta={"scene": states[1], "states": states, "action": action})


def write_text(random: Random, number: int, pools: Pools) -> Document | None:
    """Two captions, or the sentences of a story, without pictures."""
    if number % 2:
        story = _draw_story(random, STORY_LENGTHS[number // 2 % len(STORY_LENGTHS)], pools)
        if story is None:
            return None
        scenes, text = story.scenes, " ".join(story.sentences)
    else:
        scenes = (random.choice(pools.two_objects), random.choice(pools.one_object or pools.two_objects))
        if pools.is_strict and has_held_out_pair(scenes[0].objects | scenes[1].objects):
            return None
        text = " ".join(f"{describe(scene, random.randrange(2))} ." for scene in scenes)
    return Document(
        (TextSpan(text, loss=True),), ends=False, kind="text", meta={"states": [scene.to_json() for scene in scenes]}
    )


def _draw_story(random: Random, length: int, pools: Pools) -> Story | None:
    first = random.choice(pools.first_scenes[random.randrange(len(pools.first_scenes))])
    story = write_story(random, length, first, pools.may_follow)
    return story if story is not None and _is_new(story.scenes, pools) else None


def _is_new(scenes: Sequence[Scene], pools: Pools) -> bool:
    return any(scene in pools.own_scenes for scene in scenes)


def _ask_last(random: Random, kind: str, scene: Scene, pools: Pools) -> tuple[str, str]:
    if kind == "describe":
        return "what is in the picture ?", describe(scene, random.randrange(2))
    return ask(kind, scene, 0.0, random.random(), pools.negatives)


WRITERS: Mapping[str, Writer] = {
    "vqa": write_vqa,
    "stories": write_story_document,
    "edits": write_edit,
    "text": write_text,
}
"""tasks whose documents are drawn; pairs are enumerated from their pools (sources.py)"""
