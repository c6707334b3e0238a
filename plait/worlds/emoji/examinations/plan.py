"""What EmojiWorld asks, by name, and on which split: the examinations behind an evaluation of the default world.

The oracle is loosened once, on reconstructions of training pictures, and never again. Glosses of WordNet are asked too: they are the text
that language bases of this world are trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

from plait.evaluation.about import About
from plait.evaluation.bench import Bench
from plait.evaluation.examination import Choice, Examination
from plait.protocols import Policy, World
from plait.worlds.emoji.examinations import (
    context,
    decay,
    editing,
    generation,
    instructions,
    interleaved,
    reconstruction,
    understanding,
)
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.lookup import SlotLookup
from plait.worlds.emoji.examinations.tuning import choose_image_policy
from plait.worlds.emoji.examinations.understanding import judge_captions, judge_questions
from plait.worlds.emoji.oracle import Oracle
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import ABOUT_SCORES
from plait.worlds.emoji.world import EmojiWorld
from plait.worlds.wordnet import WordNet, glosses, open_wordnet

LONG = 3
"""sequences of many pictures take a third of the prompts (`interleaved` draws eight, `context` reads up to five)"""
EXAMINATIONS: Mapping[str, Examination] = {
    "reconstruction": Examination(reconstruction.judge_reconstruction),
    "one_object": Examination(partial(generation.judge_generation, num_things=1)),
    "two_objects": Examination(partial(generation.judge_generation, num_things=2)),
    "captions": Examination(partial(judge_captions, task="two_objects"), draws=False),
    "captions_one_object": Examination(partial(judge_captions, task="one_object"), draws=False),
    "vqa": Examination(lambda bench, blind, split: judge_questions(bench, split, lookup=blind.lookup), draws=False),
    # of a world with dense pictures
    "dense_vqa": Examination(lambda bench, blind, split: judge_questions(bench, split, "dense_vqa"), draws=False),
    "edits": Examination(editing.judge_edits),
    "stories": Examination(interleaved.judge_stories),
    "stories_told": Examination(interleaved.judge_told_stories),
    "interleaved": Examination(decay.judge_decay, divisor=LONG),
    "context": Examination(context.judge_context, divisor=LONG),
    "instructions": Examination(instructions.judge_instructions),
    "glosses": Examination(glosses.judge_glosses, needs_pictures=False, draws=False),
}

_EVERYWHERE = ("reconstruction", "two_objects", "captions", "vqa", "edits")
DEFAULT_PLAN: Mapping[str, Sequence[str]] = {
    "val": ("one_object", *_EVERYWHERE),
    # no scene of one object is of this split
    "test_pair": (*_EVERYWHERE, "stories", "stories_told", "interleaved", "context", "instructions"),
    "test_combo": ("one_object", *_EVERYWHERE, "captions_one_object"),
}
"""split -> examinations; what costs most (stories, sequences) once, on the split that the claims are about"""
TEXT_PLAN: Mapping[str, Sequence[str]] = {"held_out": ("glosses",)}
"""the same for the texts of WordNet, whose splits are its own"""

_MODULES = (generation, understanding, editing, interleaved, decay, context, instructions, reconstruction, glosses)
ABOUT = About(
    figures={name: words for module in _MODULES for name, words in module.ABOUT.items()},
    scores=ABOUT_SCORES,
    splits={
        "val": "recall: scenes made like those of training",
        "test_pair": "two things that training never showed together",
        "test_combo": "things in colours that training never showed them in",
        "held_out": "words kept out of training",
    },
    recall=("val",),
    headlines=(
        *EXAMINATIONS,
        *("stories_grammar", "stories_agreement", "interleaved_slope"),
        *("context_0", "context_2", "context_4", "context_gain", "instructions_english"),
        *("bits_per_byte", "bits_per_byte_kept", "gloss_choice", "gloss_choice_kept"),
    ),
    losses=(glosses.BITS,),
    shown={"two_objects": "two_objects", "edits": "edits", "captions": "captions", "vqa_where": "vqa", "stories": "stories"},
    is_open=("two_objects", "captions", "edits", "stories"),
)
NUM_TRAINING_SCENES = 2000


@dataclass(frozen=True)
class EmojiExaminations:
    """See `plait.evaluation.examination.Examinations`.

    Args:
        wordnet: opens WordNet, for those that ask for it.
    """

    world: EmojiWorld
    wordnet: Callable[[], WordNet] = open_wordnet
    plan = DEFAULT_PLAN | TEXT_PLAN
    about = ABOUT

    @cached_property
    def examinations(self) -> Mapping[str, Examination]:
        """All of them, by name."""
        judge = partial(glosses.judge_glosses, wordnet=self.wordnet)
        return {**EXAMINATIONS, "glosses": Examination(judge, needs_pictures=False, draws=False)}

    @cached_property
    def judge(self) -> Oracle:
        """The oracle."""
        return Oracle(self.world)

    @property
    def training_pictures(self) -> list[str]:
        """Scenes."""
        return self.world.image_ids("train", "scenes")

    def calibrate(self, bench: Bench) -> dict[str, Any]:
        """Loosen the oracle within its limits."""
        return asdict(reconstruction.calibrate_oracle(bench))

    def choose(self, bench: Bench, candidates: Mapping[str, Policy], n: int) -> Choice:
        """The policy that draws most val scenes rightly."""
        return choose_image_policy(bench, candidates, n)

    def prepare(self, bench: Bench, *, is_brief: bool = False) -> BlindAnswers:
        """Blind answers from training scenes, and the table of seen blocks."""
        if is_brief:
            return BlindAnswers(list_training_scenes(self.world, 50))
        training = list_training_scenes(self.world)
        return BlindAnswers(training, lookup=SlotLookup.of(bench, training))


def list_training_scenes(world: World, num_scenes: int = NUM_TRAINING_SCENES) -> list[Scene]:
    """Scenes of the training split as they occur there, so many of each kind."""
    scenes = []
    for task in ("one_object", "two_objects"):
        source = world.source(task, "train")
        scenes += [Scene.from_json(source[index].meta["scene"]) for index in range(min(num_scenes, len(source)))]
    return scenes
