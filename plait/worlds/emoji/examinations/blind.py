"""Baselines: what systems answer that are blind to part of the task. All are computed from training scenes; none is typed in.

    chance          a training scene drawn at random (the mean over a few draws per item)
    majority        the most frequent training scene
    colour_only     sees which colour stands where, and takes for each the object that training shows most often there
    object_only     sees which object stands where, and takes for each the colour that training shows most often there
    shuffled        the right answer to the item before
    nearest_caption the training scene whose caption shares most words and neighbouring word pairs with the right caption; where
                    pictures are read, the caption of the training picture that is nearest in pixels
Each is told how many things there are. On seen cells `nearest_caption` may well be right: that is recall, and it shows. It sees all that
is asked, as does `slot_lookup` (lookup.py): both are lookups and not blind (figures.py says what follows).
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from einops import reduce

from plait.errors import DocumentError
from plait.worlds.emoji.agreement import Finding
from plait.worlds.emoji.captions import describe
from plait.worlds.emoji.examinations.lookup import SlotLookup
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Scene, Thing
from plait.worlds.emoji.scoring import imagine, score_scene

NAMES = ("chance", "majority", "shuffled", "colour_only", "object_only", "nearest_caption")

Judge = Callable[[Finding], Mapping[str, float]]
"""what was found -> scores of one item"""


class BlindAnswers:
    """Blind answers for scenes, learned by counting.

    Args:
        training: scenes of the training split, as often as they occur.
        draws: random scenes per item behind `chance`.
        seed: of these draws.
        lookup: the table of seen blocks of the model's tokenizer, where it is to be asked too.
    """

    def __init__(self, training: Sequence[Scene], draws: int = 8, seed: int = 0, lookup: SlotLookup | None = None) -> None:
        if not training:
            raise DocumentError("Baselines need training scenes: the training split gave none.")
        self.training, self.draws, self.seed = tuple(training), draws, seed
        self.lookup = lookup
        self._by_size: dict[int, list[Scene]] = {}
        for scene in self.training:
            self._by_size.setdefault(len(scene.things), []).append(scene)
        self._majority = {size: Counter(scenes).most_common(1)[0][0] for size, scenes in self._by_size.items()}
        things = [thing for scene in training for thing in scene.things]
        self._colours = Counter((thing.object, thing.slot, thing.colour) for thing in things)
        self._objects = Counter((thing.colour, thing.slot, thing.object) for thing in things)

    def score(
        self,
        expected: Sequence[Scene],
        judges: Sequence[Judge] | None = None,
        names: Sequence[str] = NAMES,
        nearest: Sequence[Scene] | None = None,
    ) -> dict[str, list[Mapping[str, float]]]:
        """Scores of the baselines on every expected scene.

        Args:
            judges: one per scene; None compares whole scenes.
            names: which baselines make sense for the task.
            nearest: answers of the nearest neighbour; None finds them by captions.
        """
        judges = [partial(score_scene, expected=scene) for scene in expected] if judges is None else judges
        answers = {
            "majority": lambda: [self.majority(len(scene.things)).things for scene in expected],
            "shuffled": lambda: [scene.things for scene in (*expected[-1:], *expected[:-1])],
            "colour_only": lambda: [self.colour_only(scene) for scene in expected],
            "object_only": lambda: [self.object_only(scene) for scene in expected],
            "nearest_caption": lambda: [scene.things for scene in nearest or self.nearest_by_caption(expected)],
        }
        scores = {
            name: [judge(imagine(answer)) for answer, judge in zip(answers[name](), judges, strict=True)]
            for name in names
            if name != "chance"
        }
        if "chance" in names:
            dice = random.Random(self.seed)
            scores["chance"] = [
                self._guess(dice, len(scene.things), judge) for scene, judge in zip(expected, judges, strict=True)
            ]
        return scores

    def look_up_drawn(self, asked: Sequence[Scene | None], judges: Sequence[Judge]) -> dict[str, list[Mapping[str, float]]]:
        """{"slot_lookup": scores of the pictures that the table makes of what was asked, one judge each}; empty without a table."""
        if self.lookup is None:
            return {}
        return {"slot_lookup": [judge(finding) for judge, finding in zip(judges, self.lookup.draw(asked), strict=True)]}

    def look_up_read(self, expected: Sequence[Scene]) -> dict[str, list[Mapping[str, float]]]:
        """{"slot_lookup": scores of what the table reads in the pictures of scenes}; empty without a table."""
        if self.lookup is None:
            return {}
        return {"slot_lookup": [score_scene(imagine(self.lookup.read(scene.id).things), scene) for scene in expected]}

    def majority(self, num_things: int) -> Scene:
        """The most frequent training scene with so many things; the first one of equally frequent ones."""
        return self._majority[len(self._of_size(num_things)[0].things)]

    def colour_only(self, scene: Scene) -> tuple[Thing, ...]:
        """The scene with each object replaced by the most frequent one of its colour and slot."""
        return tuple(
            Thing(t.colour, max(OBJECTS, key=lambda name, t=t: self._objects[t.colour, t.slot, name]), t.slot)
            for t in scene.things
        )

    def object_only(self, scene: Scene) -> tuple[Thing, ...]:
        """The scene with each colour replaced by the most frequent one of its object and slot."""
        return tuple(
            Thing(max(COLOURS, key=lambda name, t=t: self._colours[t.object, t.slot, name]), t.object, t.slot)
            for t in scene.things
        )

    def nearest_by_caption(self, expected: Sequence[Scene]) -> list[Scene]:
        """Per scene the training scene with the most similar caption."""
        places: dict[object, int] = {}

        def features(scenes: Sequence[Scene]) -> np.ndarray:
            table = np.zeros((len(scenes), 2**12), dtype=np.float32)
            for row, scene in enumerate(scenes):
                words = describe(scene).split()
                for token in (*words, *pairwise(words)):
                    table[row, places.setdefault(token, len(places))] = 1.0
            return table

        return self._nearest(expected, lambda asked, pool: features(asked) @ features(pool).T)

    def nearest_by_picture(self, expected: Sequence[Scene], pixels: Callable[[Sequence[str]], np.ndarray]) -> list[Scene]:
        """Per scene the training scene whose picture is nearest in squared pixel distance, pictures shrunk fourfold.

        Args:
            pixels: image ids -> uint8 pictures (n h w 3).
        """

        def features(scenes: Sequence[Scene]) -> np.ndarray:
            pictures = pixels([scene.id for scene in scenes]).astype(np.float32) / 255.0
            return reduce(pictures, "n (h i) (w j) c -> n (h w c)", "mean", i=4, j=4)

        def similarity(asked: Sequence[Scene], pool: Sequence[Scene]) -> np.ndarray:
            a, b = features(asked), features(pool)
            return 2 * a @ b.T - (b * b).sum(1)  # the squared distance, less what is the same for the whole row, negated

        return self._nearest(expected, similarity)

    def _nearest(
        self, expected: Sequence[Scene], similarity: Callable[[Sequence[Scene], Sequence[Scene]], np.ndarray]
    ) -> list[Scene]:
        found: dict[Scene, Scene] = {}
        for size in {len(scene.things) for scene in expected}:
            pool = list(dict.fromkeys(self._of_size(size)))
            asked = list(dict.fromkeys(scene for scene in expected if len(scene.things) == size))
            best = similarity(asked, pool).argmax(1).tolist()
            found |= {scene: pool[index] for scene, index in zip(asked, best, strict=True)}
        return [found[scene] for scene in expected]

    def _guess(self, dice: random.Random, num_things: int, judge: Judge) -> Mapping[str, float]:
        guesses = [judge(imagine(scene.things)) for scene in dice.choices(self._of_size(num_things), k=self.draws)]
        return {name: sum(guess[name] for guess in guesses) / self.draws for name in guesses[0]}

    def _of_size(self, num_things: int) -> list[Scene]:
        found = self._by_size.get(num_things)
        if not found:
            raise DocumentError(f"Baselines need training scenes of {num_things} things: there is none.")
        return found
