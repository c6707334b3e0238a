"""Models of a few lines that know the truth, half of it, or nothing. Their codes name scenes of the world by number, so that
drawing is deciding which scene to show.
"""

import random
import re
from dataclasses import replace

import numpy as np
import torch

from plait.data.filling import Pictures
from plait.document import Document, ImageSpan, TextSpan
from plait.images import to_tensor
from plait.worlds.emoji import EmojiWorld, Scene
from plait.worlds.emoji.captions import describe, parse
from plait.worlds.emoji.examinations.instructions import FORMS
from plait.worlds.emoji.questions import NUMBERS, PLACE_NAMES, PLACE_PHRASES
from plait.worlds.emoji.scenes import COLOURS, list_scenes
from plait.worlds.emoji.stories import follow

SCENES = tuple(list_scenes())
NUMBER_OF = {scene: number for number, scene in enumerate(SCENES)}
END = "<end>"


def codes_of(scene: Scene) -> tuple[np.ndarray]:
    return (np.full((1, 1), NUMBER_OF[scene]),)


PICTURES = Pictures(lambda image_id: codes_of(Scene.from_id(image_id)))


class StubTemplate:
    """The wording of no system: task markers a model of a few lines can tell apart."""

    form = "codes"

    def texts(self):
        yield "caption"

    def wrap(self, document, counter):
        image, question, answer = document.spans
        return Document((image, TextSpan(f"ask {question.text}"), answer))

    def draw_prompt(self, caption, instruction=None):
        text = f"draw {caption}" if instruction is None else f"draw {caption} | {instruction}"
        return Document((TextSpan(text), ImageSpan("drawn", form="codes")), ends=False)

    def caption_prompt(self, image, instruction=None):
        return Document((image, TextSpan("caption" if instruction is None else f"caption | {instruction}")), ends=False)

    def question_prompt(self, image, question):
        return Document((image, TextSpan(f"ask {question}")), ends=False)

    def edit_prompt(self, before, instruction):
        return Document((before, TextSpan(f"edit {instruction}"), ImageSpan("drawn", form="codes")), ends=False)

    def story_prompt(self, spans):
        return Document(tuple(spans), ends=False)

    def answer(self, text):
        return text.replace(END, "").strip()


class StubTokenizer:
    grid_shapes = ((1, 1),)
    digit_sizes = ((len(SCENES),),)
    code_sizes = (len(SCENES),)


class PerfectModel:
    """Does everything right, and says where it decides what."""

    positions_per_image, image_size = 1, None

    def __init__(self, world: EmojiWorld) -> None:
        self.world, self.template, self.vision_tokenizer = world, StubTemplate(), StubTokenizer()
        self.calls: list[int] = []

    def scene(self, truth: Scene, before: Scene | None, choice: random.Random) -> Scene:
        """What is drawn where `truth` is right."""
        return truth

    def say(self, text: str, choice: random.Random) -> str:
        """What is written where `text` is right."""
        return text

    def pictures(self, spans):
        return to_tensor([self.world.picture(SCENES[int(span.codes[0].item())].id) for span in spans])

    def generate(self, documents, policies, seeds, max_images=0, max_tokens=1):
        assert set(policies) == {"text", "image"}
        self.calls.append(len(documents))
        return [self._complete(*item, max_images) for item in zip(documents, seeds, strict=True)]

    def _complete(self, prompt: Document, seed: int, max_images: int) -> Document:
        choice = random.Random(seed)
        shown = [SCENES[int(image.codes[0].item())] for image in prompt.images if image.codes is not None]
        # what is asked stands last: solved documents may stand before it
        verb, _, rest = [span for span in prompt.spans if isinstance(span, TextSpan)][-1].text.partition(" ")
        if verb == "draw":
            return self._fill(prompt, [self.scene(parse(rest.partition(" | ")[0]), None, choice)])
        if verb == "edit":
            return self._fill(prompt, [self.scene(follow(shown[-1], rest), shown[-1], choice)])
        if verb == "caption":
            return self._add(prompt, TextSpan(f"{self.say(describe(shown[-1]), choice)} {END}"))
        if verb == "ask":
            return self._add(prompt, TextSpan(f"{self.say(self.answer(shown[-1], rest), choice)} {END}"))
        if verb == "Draw":
            scenes = [parse(caption) for caption in rest.removesuffix(".").split(". Draw ")]
            return self._add(prompt, *(self._draw(scene, None, choice) for scene in scenes))
        return self._tell(prompt, choice, max_images)

    def _tell(self, prompt: Document, choice: random.Random, max_images: int) -> Document:
        if any(image.is_hole for image in prompt.images):
            states: list[Scene] = []
            for span in prompt.spans[::2]:
                states.append(follow(states[-1] if states else None, span.text))
            return self._fill(prompt, [self.scene(state, states[0], choice) for state in states])
        first = follow(None, prompt.spans[0].text)
        spans, state = [self._draw(first, first, choice)], first
        for number in range(2):
            name = state.things[0].object
            colour = COLOURS[(COLOURS.index(state.things[0].colour) + 1 + number) % len(COLOURS)]
            sentence = self.say(f"the {name} turns {colour} .", choice)
            state = follow(state, f"the {name} turns {colour} .")
            spans += [TextSpan(sentence), self._draw(state, first, choice)]
        closing = self.say(f"question : what colour is the {name} ? answer : {colour}", choice)
        return self._add(prompt, *spans, TextSpan(closing))

    def _draw(self, truth: Scene, before: Scene, choice: random.Random) -> ImageSpan:
        return ImageSpan("written", form="codes", codes=codes_of(self.scene(truth, before, choice)))

    def _fill(self, prompt: Document, scenes) -> Document:
        rest = iter(scenes)
        spans = [
            replace(span, codes=codes_of(next(rest))) if isinstance(span, ImageSpan) and span.is_hole else span
            for span in prompt.spans
        ]
        return replace(prompt, spans=tuple(spans), ends=True)

    def _add(self, prompt: Document, *spans) -> Document:
        return replace(prompt, spans=(*prompt.spans, *spans), ends=True)

    def answer(self, scene: Scene, text: str) -> str:
        """The answer to one question or two, in the form that is asked."""
        question, _, rest = text.partition(" ? ")
        if not rest:
            return self._answer(scene, text)
        if rest.startswith("what"):
            return f"{self._answer(scene, f'{question} ?')} {self._answer(scene, rest)}"
        name, colour = question.split()[-1], self._answer(scene, f"{question} ?")
        form = next(name for name, instruction in FORMS.items() if instruction == rest)
        return {"as_caption": describe(scene), "sentence": f"the {name} is {colour} ."}.get(form, colour)

    def _answer(self, scene: Scene, question: str) -> str:
        """The answer to a question, from its words and the scene alone (not from the data's own code)."""
        kind, *words = read_question(question)
        if kind == "colour":
            return scene.find(words[0]).colour
        if kind == "where":
            return PLACE_NAMES[scene.find(words[0]).slot]
        if kind == "count":
            return NUMBERS[sum(thing.colour == words[0] for thing in scene.things)]
        if kind == "exists":
            return "yes" if tuple(words) in scene.cells else "no"
        if kind == "same_colour":
            return "yes" if len({thing.colour for thing in scene.things}) == 1 else "no"
        return scene.find(next(slot for slot, phrase in PLACE_PHRASES.items() if words[0] == phrase)).object


def read_question(question: str) -> tuple[str, ...]:
    """The type of a question, in the wording of the data or in other words, and what it is about."""
    for kind, pattern in {
        "colour": r"what colour is the (\w+) \?|the (\w+) is what colour \?",
        "where": r"where is the (\w+) \?|the (\w+) is where \?",
        "count": r"how many (\w+) objects are there \?|there are how many (\w+) objects \?",
        "exists": r"is there an? (\w+) (\w+) \?|there is an? (\w+) (\w+) \?",
        "same_colour": r"are the objects the same colour \?|is the colour of the objects the same \?",
        "what": r"what is (.+) \?|(.+) is what \?",
    }.items():
        if match := re.fullmatch(pattern, question):
            return (kind, *filter(None, match.groups()))
    raise AssertionError(question)


class CopyModel(PerfectModel):
    """Hands back the picture it was given, or the first of its story."""

    def scene(self, truth, before, choice):
        return before or truth


class RandomModel(PerfectModel):
    """Draws and says anything, all of it well formed."""

    def scene(self, truth, before, choice):
        return choice.choice([scene for scene in SCENES if len(scene.things) == len(truth.things)])

    def say(self, text, choice):
        if parse(text) is not None:
            return describe(self.scene(parse(text), None, choice))
        return text if text.startswith(("the ", "question")) else choice.choice(("yes", "no", "red", "left", "one", "cat"))


class MumblingModel(PerfectModel):
    """Pictures of nothing, and words that are no sentences."""

    def pictures(self, spans):
        return torch.rand(len(spans), 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def say(self, text, choice):
        return "red red red"


class ConstantModel(PerfectModel):
    """Always draws one picture."""

    def __init__(self, world, picture: Scene) -> None:
        super().__init__(world)
        self.picture = picture

    def scene(self, truth, before, choice):
        return self.picture


class MajorityModel(PerfectModel):
    """Answers every question of a type alike, and every picture with one caption."""

    def __init__(self, world, answers: dict[str, str], caption: str) -> None:
        super().__init__(world)
        self.answers, self.caption = answers, caption

    def say(self, text, choice):
        return self.caption if parse(text) is not None else text

    def answer(self, scene, text):
        return self.answers[read_question(text.partition(" ? ")[0].removesuffix(" ?") + " ?")[0]]


class ShuffledModel(PerfectModel):
    """Does to every prompt what is right for the prompt before it."""

    def generate(self, documents, policies, seeds, **budget):
        right = super().generate(documents, policies, seeds, **budget)
        return [
            replace(own, spans=self._swap(prompt, own, before_prompt, before))
            for prompt, own, before_prompt, before in zip(
                documents, right, (documents[-1], *documents), (right[-1], *right), strict=False
            )
        ]

    def _swap(self, prompt, own, other_prompt, other):
        drawn = [
            other.spans[i].codes for i, span in enumerate(other_prompt.spans) if isinstance(span, ImageSpan) and span.is_hole
        ]
        holes = iter([*drawn, *drawn[-1:] * len(own.spans)])
        kept = [
            replace(own.spans[i], codes=next(holes)) if isinstance(span, ImageSpan) and span.is_hole else span
            for i, span in enumerate(prompt.spans)
        ]
        return (*kept, *other.spans[len(other_prompt.spans) :])


class ParrotModel(PerfectModel):
    """Repeats what the last solved document before the prompt says, if there is one."""

    def _complete(self, prompt, seed, max_images):
        *before, _ = [index for index, span in enumerate(prompt.spans) if isinstance(span, TextSpan)]
        if not before:
            return super()._complete(prompt, seed, max_images)
        if any(image.is_hole for image in prompt.images):
            return self._fill(prompt, [SCENES[int(prompt.images[-2].codes[0].item())]])
        return self._add(prompt, TextSpan(f"{prompt.spans[before[-1]].text} {END}"))
