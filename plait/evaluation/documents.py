"""What is asked of data that knows no more than its documents: data of one's own, of the Hub, of a world without a judge.

Every split that is not for training is asked for what its documents have, by their kinds: the loss of what is learned (all), the choice
among answers by their likelihood (all that answer something), exact answers (dialogues), and documents that the model goes on with, to be
looked at. `Documents` words them as a model learns them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from plait.data.filling import Pictures, fill_images
from plait.document import Document
from plait.errors import RecipeError
from plait.evaluation import answers, choice, continuation, held_out_loss
from plait.evaluation.about import About
from plait.evaluation.bench import Bench
from plait.evaluation.examination import Choice, Examination, Examinations
from plait.evaluation.questions import Question, list_questions
from plait.protocols import Policy, World

NUM_TRAINING = 1500
"""training documents that blind answers learn from"""
WORDINGS = 128
"""of a pair that are tried to find both directions"""
LOSS, CHOICE, ANSWERS, SAMPLES = "loss", "choice", "answers", "samples"
EXAMINATIONS: Mapping[str, Examination] = {
    LOSS: Examination(held_out_loss.judge_loss, needs_pictures=False, draws=False),
    CHOICE: Examination(choice.judge_choice, needs_pictures=False, draws=False),
    ANSWERS: Examination(answers.judge_answers, needs_pictures=False, draws=False),
    SAMPLES: Examination(continuation.judge_continuations, needs_pictures=False),
}
ASKED_OF = {
    "text": (LOSS, SAMPLES),
    "pair": (LOSS, CHOICE, SAMPLES),
    "dialogue": (LOSS, CHOICE, ANSWERS, SAMPLES),
    "document": (LOSS, CHOICE, SAMPLES),
}
"""kind of a document -> what can be asked of it"""
_FIGURES = {name: words for module in (held_out_loss, choice, answers, continuation) for name, words in module.ABOUT.items()}


class Documents:
    """The documents of a world in the wording of a template, encoded.

    Args:
        worded: documents of the validation split that are worded already, where a recipe words them in a way of its own.
    """

    def __init__(self, world: World, template: Any, pictures: Pictures, worded: Sequence[Document] = ()) -> None:
        self.world, self.template, self.pictures, self.worded = world, template, pictures, worded

    def take(self, split: str, n: int) -> list[list[Document]]:
        """Up to `n` documents of a split, each in every way in which it is learned: a pair in both directions, with its whole caption."""
        sources = [self.worded] if self.worded and split == self.world.splits[1] else list_sources(self.world, split)
        raws = [raw for source in sources for raw in _first(source, n)][:n]
        return [[fill_images(worded, self.pictures) for worded in self._word(raw)] for raw in raws]

    def list_questions(self, split: str, n: int, kinds: Sequence[str] = tuple(ASKED_OF)) -> list[Question]:
        """What the first `n` documents of a split ask."""
        return [
            question
            for ways in self.take(split, n)
            for worded in ways
            for question in list_questions(worded, self.template)
            if question.kind in kinds
        ]

    @cached_property
    def training(self) -> list[Document]:
        """Documents that training shows, every way; none where the data is never trained on."""
        if len(self.world.splits) == 1:
            return []
        return [worded for ways in self.take(self.world.splits[0], NUM_TRAINING) for worded in ways]

    @cached_property
    def answers(self) -> Mapping[str, Counter[str]]:
        """Question, and "" for all of them -> how often training gave each answer."""
        counted: dict[str, Counter[str]] = {"": Counter()}
        for question in (own for worded in self.training for own in list_questions(worded, self.template)):
            for name in ("", question.text):
                counted.setdefault(name, Counter())[question.answer] += 1
        return counted

    def _word(self, raw: Document) -> list[Document]:
        if raw.kind != "pair":
            return [self.template.wrap(raw, 0)]
        found: dict[bool, Document] = {}
        for counter in range(WORDINGS):
            worded = self.template.wrap(raw, counter)
            if raw.text in worded.text:  # otherwise the caption, or a part of it, was dropped
                found.setdefault(any(span.loss for span in worded.images), worded)
            if len(found) == 2:
                break
        return list(found.values())


@dataclass(frozen=True)
class DocumentExaminations:
    """See `plait.evaluation.examination.Examinations`.

    Args:
        worded: see `Documents`.
    """

    world: World
    worded: Sequence[Document] = ()
    examinations = EXAMINATIONS
    judge = None

    @property
    def held_out(self) -> tuple[str, ...]:
        """The splits that nothing is trained on; of data that is never trained on, all."""
        return tuple(self.world.splits[1:] or self.world.splits)

    @cached_property
    def plan(self) -> Mapping[str, Sequence[str]]:
        """Of every split what its documents have."""
        plan = {}
        for split in self.held_out:
            kinds = {raw.kind for source in list_sources(self.world, split) for raw in _first(source, 50)}
            plan[split] = tuple(name for name in EXAMINATIONS if any(name in ASKED_OF.get(kind, ()) for kind in kinds))
        return plan

    @property
    def about(self) -> About:
        """The words for them."""
        return About(
            figures=_FIGURES,
            scores={**choice.SCORES, **answers.SCORES},
            splits=dict.fromkeys(self.held_out, "documents kept out of training"),
            headlines=(*_FIGURES, *(f"{name}_kept" for name in _FIGURES)),
            losses=held_out_loss.LOSSES,
            shown={name: name for name in (SAMPLES, ANSWERS, CHOICE)},
            is_open=(SAMPLES,),
        )

    @property
    def training_pictures(self) -> list[str]:
        """All of them."""
        return self.world.image_ids(self.world.splits[0])

    def calibrate(self, bench: Bench) -> dict[str, Any]:
        """Nobody judges pictures."""
        return {}

    def choose(self, bench: Bench, candidates: Mapping[str, Policy], n: int) -> Choice:
        """The first: nobody says which one draws better."""
        name, policy = next(iter(candidates.items()))
        return Choice(name, policy, {})

    def prepare(self, bench: Bench, *, is_brief: bool = False) -> Documents:
        """The documents, and what training says about their answers."""
        return Documents(self.world, bench.model.template, bench.pictures, self.worded)


def open_examinations(world: World, worded: Sequence[Document] = ()) -> Examinations:
    """What a world asks by itself, else what its documents ask."""
    return world.examinations if world.examinations is not None else DocumentExaminations(world, worded)


def list_sources(world: World, split: str) -> list[Sequence[Document]]:
    """The sources of a split, one per task that has documents there."""
    found = []
    for task in world.tasks:
        try:
            found.append(world.source(task, split))
        except RecipeError:  # a task that this split has not
            continue
    return found


def _first(source: Sequence[Document], n: int) -> list[Document]:
    return [source[number] for number in range(min(n, len(source)))]
