"""Questions about boards: who knows every answer is right on all of them, who looks at nothing is where the baselines are."""

import numpy as np
import pytest

from plait.data.filling import Pictures
from plait.document import Document, TextSpan
from plait.errors import RecipeError
from plait.evaluation.bench import Bench
from plait.sampling.policies import SamplingPolicy
from plait.worlds.emoji import EmojiWorld
from plait.worlds.emoji.board_texts import BOARD_TYPES
from plait.worlds.emoji.examinations.understanding import judge_questions, list_questions, take_questions
from tests.worlds.stub_models import StubTemplate

POLICIES = {name: SamplingPolicy(temperature=0.0) for name in ("text", "image")}


class Short(EmojiWorld):
    """Boards, few of them."""

    def source(self, task, split, size=None):
        return super().source(task, split, 60)


class Answers:
    """Says what it was told that the answer is; where it was told nothing, always the same."""

    template = StubTemplate()

    def __init__(self, known: dict[tuple[str, str], str]) -> None:
        self.known = known

    def generate(self, documents, policies, seeds, max_images, max_tokens):
        return [self._complete(document) for document in documents]

    def _complete(self, document: Document) -> Document:
        image, question = document.spans
        said = self.known.get((image.image_id, question.text.removeprefix("ask ")), "one")
        return Document((*document.spans, TextSpan(said)), id=document.id)


@pytest.fixture(scope="module")
def world() -> Short:
    return Short(dense_size=128)


def ask(world: EmojiWorld, known: dict[tuple[str, str], str]) -> dict:
    bench = Bench(Answers(known), world, None, Pictures(lambda name: (np.zeros((5, 1, 1), int),)), POLICIES, n=20)
    return judge_questions(bench, "test_pair", "dense_vqa", num_training=60)[0]


def test_the_answers_of_the_world_are_right_and_a_constant_one_is_the_majority_at_best(world) -> None:
    documents = list(world.source("dense_vqa", "test_pair"))
    known = {(q.image_id, q.text): q.answer for document in documents for q in list_questions(document)}
    right, constant = ask(world, known), ask(world, {})
    assert list(right) == ["test_pair/dense_vqa", *(f"test_pair/dense_vqa_{kind}" for kind in sorted(BOARD_TYPES))]
    assert {figure.value for figure in right.values()} == {1.0}
    assert {figure.n for key, figure in right.items() if key.count("_") > 2} == {20}
    for key, figure in constant.items():
        assert set(figure.baselines) == {"chance", "majority", "shuffled", "question_only"}, key
        assert figure.value <= figure.baselines["majority"] + 1e-9, key
    assert constant["test_pair/dense_vqa_where"].value == 0.0
    assert constant["test_pair/dense_vqa_count"].value > 0.0, "one is what boards are counted to most often"


def test_as_many_questions_of_each_type_are_taken(world) -> None:
    bench = Bench(Answers({}), world, None, Pictures(lambda name: ()), POLICIES, n=15)
    kinds = [question.kind for question in take_questions(bench, "val", "dense_vqa")]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(sorted(BOARD_TYPES), 15)


def test_a_world_without_boards_says_so() -> None:
    bench = Bench(Answers({}), EmojiWorld(), None, Pictures(lambda name: ()), POLICIES, n=2)
    with pytest.raises(RecipeError, match="no task 'dense_vqa'"):
        judge_questions(bench, "val", "dense_vqa")
