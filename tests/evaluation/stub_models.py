"""Models of a few lines that know the truth, half of it, or nothing. Their codes name scenes of the world by number, so that
drawing is deciding which scene to show.
"""

import random
import re
from dataclasses import replace

import numpy as np
import torch

from plait.data.emoji_world import EmojiWorld, Scene
from plait.data.emoji_world.captions import describe, parse
from plait.data.emoji_world.questions import NUMBERS, PLACE_NAMES, PLACE_PHRASES
from plait.data.emoji_world.scenes import COLOURS, list_scenes
from plait.data.emoji_world.stories import follow
from plait.document import Document, ImageSpan, TextSpan
from plait.images import to_tensor

SCENES = tuple(list_scenes())
NUMBER_OF = {scene: number for number, scene in enumerate(SCENES)}
END = "<end>"


def codes_of(scene: Scene) -> tuple[np.ndarray]:
    return (np.full((1, 1), NUMBER_OF[scene]),)


def codes(image_id: str) -> tuple[np.ndarray]:
    return codes_of(Scene.from_id(image_id))


class StubTemplate:
    """The wording of no system: task markers a model of a few lines can tell apart."""

    def draw_prompt(self, caption):
        return Document((TextSpan(f"draw {caption}"), ImageSpan("drawn", form="codes")), ends=False)

    def caption_prompt(self, image):
        return Document((image, TextSpan("caption")), ends=False)

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
        verb, _, rest = prompt.spans[1 if shown else 0].text.partition(" ")
        if verb == "draw":
            return self._fill(prompt, [self.scene(parse(rest), None, choice)])
        if verb == "edit":
            return self._fill(prompt, [self.scene(follow(shown[0], rest), shown[0], choice)])
        if verb == "caption":
            return self._add(prompt, TextSpan(f"{self.say(describe(shown[0]), choice)} {END}"))
        if verb == "ask":
            return self._add(prompt, TextSpan(f"{self.say(self._answer(shown[0], rest), choice)} {END}"))
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

    def _answer(self, scene: Scene, question: str) -> str:
        """The answer to a question, from its words and the scene alone (not from the data's own code)."""
        if match := re.fullmatch(r"what colour is the (\w+) \?", question):
            return scene.find(match[1]).colour
        if match := re.fullmatch(r"where is the (\w+) \?", question):
            return PLACE_NAMES[scene.find(match[1]).slot]
        if match := re.fullmatch(r"how many (\w+) objects are there \?", question):
            return NUMBERS[sum(thing.colour == match[1] for thing in scene.things)]
        if match := re.fullmatch(r"is there an? (\w+) (\w+) \?", question):
            return "yes" if (match[1], match[2]) in scene.cells else "no"
        if question == "are the objects the same colour ?":
            return "yes" if len({thing.colour for thing in scene.things}) == 1 else "no"
        slot = next(slot for slot, phrase in PLACE_PHRASES.items() if question == f"what is {phrase} ?")
        return scene.find(slot).object


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
