"""Planted wrong models land on their baselines, in every column: constant picture, copied input, shuffled answers, majority answers."""

from collections import Counter

import pytest

from plait.evaluation.protocol import evaluate
from plait.worlds.emoji.captions import describe
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.plan import DEFAULT_PLAN, list_training_scenes
from tests.worlds.stub_models import (
    PICTURES,
    ConstantModel,
    CopyModel,
    MajorityModel,
    ParrotModel,
    PerfectModel,
    ShuffledModel,
)
from tests.worlds.test_protocol import POLICIES

N = 24
PLAN = {"test_pair": tuple(name for name in DEFAULT_PLAN["test_pair"] if name != "reconstruction")}
DRAWN = (
    "two_objects",
    "edits",
    "stories_told",
    "interleaved",
    "context_0_drawing",
    "context_2_drawing",
    "instructions_drawing",
)
READ = ("captions", "context_0_captions", "context_4_captions", "instructions_captions")
ASKED = tuple(f"vqa_{kind}" for kind in ("colour", "what", "where", "count", "exists", "same_colour"))
TOLERANCE = 0.05


def examine(model, world, oracle, *names):
    plan = {"test_pair": names} if names else PLAN
    return evaluate(model, world, oracle, PICTURES, POLICIES, n=N, plan=plan, is_calibrated=True)


@pytest.fixture(scope="module")
def blind(world):
    return BlindAnswers(list_training_scenes(world))


@pytest.fixture(scope="module")
def perfect(world, oracle):
    return examine(PerfectModel(world), world, oracle)


def land(results, names, baseline, tolerance=TOLERANCE):
    for name in names:
        figure = results[f"test_pair/{name}"]
        assert figure["value"] == pytest.approx(figure["baselines"][baseline], abs=tolerance), name


def test_nothing_of_the_table_is_left_out_here(perfect):
    columns = {head.partition("/")[2] for head in perfect.facts["headlines"]}
    assert columns >= {*PLAN["test_pair"], "interleaved_slope", "context_4", "context_gain"} - {"context"}
    zero = ("unrecognisable", "ungrammatical", "slope", "gain", "gain_drawing", "gain_captions", "gain_questions")
    for key, figure in perfect.results.items():
        assert figure["value"] == (0.0 if key.endswith(zero) else 1.0), key


def test_a_constant_picture_is_the_majority_picture(world, oracle, blind):
    results = examine(ConstantModel(world, blind.majority(2)), world, oracle).results
    land(results, DRAWN, "majority")
    assert results["test_pair/instructions_two_pictures"]["value"] == 0.0
    assert results["test_pair/instructions_two_pictures_count"]["value"] == 1.0  # counting alone is not obeying
    assert results["test_pair/vqa"]["value"] == 1.0  # it reads as well as ever


def test_majority_answers_are_the_majority(world, oracle, blind, perfect):
    most = {
        kind: Counter(record.expected for record in perfect.select(f"test_pair/vqa_{kind}")).most_common(1)[0][0]
        for kind in ("colour", "what", "where", "count", "exists", "same_colour")
    }
    results = examine(MajorityModel(world, most, describe(blind.majority(2))), world, oracle).results
    land(results, (*ASKED, *READ), "majority")
    # the best constant of a dozen items is not that of all
    for name in ("context_0_questions", "instructions_questions", "instructions_one_colour", "instructions_one_word"):
        figure = results[f"test_pair/{name}"]
        assert figure["value"] <= figure["baselines"]["majority"] + TOLERANCE, name
    for name in ("instructions_as_caption", "instructions_sentence", "instructions_two_answers"):
        assert results[f"test_pair/{name}"]["value"] == 0.0, name


def test_shuffled_answers_land_on_the_answers_to_the_item_before(world, oracle):
    results = examine(ShuffledModel(world), world, oracle).results
    land(
        results, (*DRAWN, *READ, "instructions_one_colour", "instructions_as_caption", "instructions_two_pictures"), "shuffled"
    )
    land(results, (*ASKED, "context_0_questions", "instructions_questions"), "shuffled", 1.5 / 4)  # types follow one another
    assert results["test_pair/vqa"]["value"] < 0.7


def test_a_copied_input_is_copy_input(world, oracle):
    results = examine(CopyModel(world), world, oracle, "edits", "stories", "stories_told", "interleaved").results
    land(results, ("edits", "edits_change", "edits_rest", "stories_agreement", "stories_told"), "copy_input")
    land(results, ("interleaved", "interleaved_slope", "interleaved_picture_1", "interleaved_picture_8"), "copy_input")
    assert results["test_pair/interleaved_picture_1"]["value"] == 1.0
    assert results["test_pair/interleaved_slope"]["high"] < 0  # it falls for sure


def test_a_parrot_is_copy_context(world, oracle):
    results = examine(ParrotModel(world), world, oracle, "context").results
    names = [f"context_{k}_{task}" for k in (2, 4) for task in ("drawing", "captions", "questions")]
    land(results, names, "copy_context", 1e-9)
    assert results["test_pair/context_0"]["value"] == 1.0
    assert results["test_pair/context_gain"]["high"] < -0.5
