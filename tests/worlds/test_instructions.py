"""The rules of instructions, answer by answer; wording that is held out; documents before the prompt; the slope of a decay."""

import pytest

from plait.document import ImageSpan, TextSpan
from plait.errors import VocabularyError
from plait.evaluation.bench import Bench
from plait.evaluation.protocol import evaluate
from plait.systems.liquid import CAPTION, DRAWING_INSTRUCTIONS, LiquidTemplate
from plait.worlds.emoji.captions import spell
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.context import judge_context
from plait.worlds.emoji.examinations.decay import score_decay
from plait.worlds.emoji.examinations.instructions import CAPTIONS, DRAWING, ENGLISH, FORMS
from plait.worlds.emoji.examinations.obedience import judge_form, judge_order, judge_pictures, paraphrase
from plait.worlds.emoji.examinations.plan import list_training_scenes
from plait.worlds.emoji.examinations.requests import Answer, show
from plait.worlds.emoji.questions import TYPES
from plait.worlds.emoji.scenes import Scene, Thing
from tests.worlds.stub_models import PICTURES, PerfectModel, read_question
from tests.worlds.test_protocol import POLICIES

SCENE = Scene((Thing("red", "car", "left"), Thing("blue", "house", "right")))
OTHER = Scene((Thing("green", "cat", "top"), Thing("blue", "key", "bottom")))


@pytest.mark.parametrize(
    ("form", "text", "has_form", "has_content"),
    [
        ("one_word", "red", 1, 1),
        ("one_word", "red.", 1, 1),
        ("one_word", "the car is red .", 0, 1),
        ("one_word", "blue", 1, 0),
        ("one_colour", "red blue", 0, 0),
        ("three_words", "it is red", 1, 1),
        ("three_words", "the car is red", 0, 1),
        ("three_words", "", 0, 0),
        ("as_caption", "a red car to the left of a blue house", 1, 1),
        ("as_caption", "a blue house to the right of a red car", 1, 1),
        ("as_caption", "a red car", 1, 0),
        ("as_caption", "red", 0, 0),
        ("sentence", "the car is red .", 1, 1),
        ("sentence", "there is a red car", 1, 1),
        ("sentence", "the car is blue .", 1, 0),
        ("sentence", "the car is red and the house is green .", 1, 0),
        ("sentence", "red car", 0, 1),
        ("sentence", "the house is blue .", 1, 0),
    ],
)
def test_form_and_content_are_judged_apart(form, text, has_form, has_content):
    scores = judge_form(Answer(text), form, SCENE, SCENE.things[0])
    assert scores == {"all": has_form * has_content, "form": has_form, "content": has_content}


def test_count_and_order_of_answers_and_pictures():
    assert judge_order(Answer("red blue"), ["red", "blue"]) == {"all": 1, "count": 1, "order": 1}
    assert judge_order(Answer("red and blue"), ["red", "blue"]) == {"all": 0, "count": 0, "order": 1}
    assert judge_order(Answer("blue red"), ["red", "blue"]) == {"all": 0, "count": 1, "order": 0}
    wanted = (SCENE, OTHER)
    assert judge_pictures(show(SCENE, OTHER), wanted) == {"all": 1, "count": 1, "order": 1}
    assert judge_pictures(show(OTHER, SCENE), wanted) == {"all": 0, "count": 1, "order": 0}
    assert judge_pictures(show(SCENE, SCENE, OTHER), wanted) == {"all": 0, "count": 0, "order": 1}
    assert judge_pictures(show(SCENE), wanted) == {"all": 0, "count": 0, "order": 0}
    assert judge_pictures(Answer(), wanted) == {"all": 0, "count": 0, "order": 0}


def test_no_wording_is_one_of_training(world):
    trained = {spell(text) for text in (*DRAWING_INSTRUCTIONS, CAPTION, *LiquidTemplate().texts())}
    assert not trained & {spell(text) for text in (*DRAWING, *CAPTIONS, *FORMS.values())}
    questions = {
        (kind, span.text)
        for document in (world.source("vqa", "train")[index] for index in range(200))
        for kind, span in zip(document.meta["types"], document.spans[1::2], strict=True)
    }
    assert {kind for kind, _ in questions} == set(TYPES)
    for kind, question in questions:
        other = paraphrase(question)
        assert other != question
        assert read_question(other) == read_question(question)
        assert read_question(other)[0] == kind
        assert paraphrase(other) == other  # no paraphrase is a question of the world


def test_words_that_are_unknown_are_skipped_and_counted(world, oracle):
    class Closed(PerfectModel):
        def generate(self, documents, policies, seeds, **budget):
            if any("word" in document.text for document in documents):
                raise VocabularyError("Unknown word 'word'")
            return super().generate(documents, policies, seeds, **budget)

    plan = {"test_pair": ("instructions",)}
    found = evaluate(Closed(world), world, oracle, PICTURES, POLICIES, n=12, plan=plan, is_calibrated=True)
    skipped = found.facts["skipped"]
    assert skipped["test_pair/instructions_one_word"] == {"prompts": 12, "reason": "Unknown word 'word'"}
    assert skipped["test_pair/instructions_english"]["prompts"] == 24  # `sentence` could be asked
    assert "test_pair/instructions" not in skipped
    assert "test_pair/instructions_one_word" not in found.results
    assert found.results["test_pair/instructions_english"]["n"] == 12
    assert set(ENGLISH) < set(FORMS)


def test_solved_documents_stand_before_the_prompt_and_are_the_same_for_every_model(world, oracle):
    asked: dict[str, list] = {}

    class Noted(PerfectModel):
        def generate(self, documents, policies, seeds, **budget):
            asked.setdefault(documents[0].text.split()[0] + str(len(documents[0].images)), []).extend(documents)
            return super().generate(documents, policies, seeds, **budget)

    bench = Bench(Noted(world), world, oracle, PICTURES, POLICIES, n=6)
    figures, records = judge_context(bench, BlindAnswers(list_training_scenes(world, 50)), "test_pair")
    four = asked["draw5"][0]
    assert [type(span) for span in four.spans] == [TextSpan, ImageSpan] * 5
    assert [image.is_hole for image in four.images] == [False] * 4 + [True]
    train = set(world.image_ids("train", "scenes"))
    assert all(image.image_id in train for image in four.images[:-1])
    assert four.spans[:4] == asked["draw3"][0].spans[:4]  # two are the first two of four
    assert not any(span.loss for span in four.spans)
    question = asked["ask5"][0]
    assert [span.text for span in question.spans[2::3]] != []
    assert len(question.spans) == 4 * 3 + 2
    assert figures["test_pair/context_gain"].value == 0.0
    assert {record.part_of for record in records} == {f"test_pair/context_{name}" for name in ("0", "2", "4", "gain")}


def test_the_slope_is_that_of_a_line_through_right_and_wrong():
    assert score_decay([1.0] * 4)["slope"] == 0
    assert score_decay([1.0, 0.75, 0.5, 0.25])["slope"] == pytest.approx(-0.25)
    falling = score_decay([1.0, 1.0, 0.0, 0.0])
    assert falling["slope"] == pytest.approx(-0.4)
    assert (falling["all"], falling["picture_1"], falling["picture_4"]) == (0.5, 1, 0)
