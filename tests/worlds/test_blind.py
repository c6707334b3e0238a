"""Blind answers on training sets whose counts are known by hand."""

import numpy as np
import pytest

from plait.document import Document, TextSpan
from plait.errors import DocumentError
from plait.evaluation.figures import Figure, Record, stand, summarise
from plait.worlds.emoji import Scene, Thing
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.interleaved import guess_states
from plait.worlds.emoji.scoring import describe_finding, imagine, score_edit, score_scene


def one(colour, name, slot="centre"):
    return Scene((Thing(colour, name, slot),))


def two(a, b, c, d):
    return Scene((Thing(a, b, "left"), Thing(c, d, "right")))


def test_each_blind_system_sees_what_it_says():
    blind = BlindAnswers([one("red", "car"), one("red", "car"), one("blue", "car"), one("blue", "key"), one("blue", "key")])
    assert blind.majority(1) == one("red", "car")
    assert blind.object_only(one("blue", "car")) == one("red", "car").things
    assert blind.colour_only(one("blue", "car")) == one("blue", "key").things
    scores = blind.score([one("blue", "car"), one("red", "car")])
    assert [item["all"] for item in scores["majority"]] == [0.0, 1.0]
    assert [item["colours"] for item in scores["colour_only"]] == [1.0, 1.0]
    assert [item["objects"] for item in scores["object_only"]] == [1.0, 1.0]
    with pytest.raises(DocumentError, match="training scenes of 2 things"):
        blind.majority(2)


def test_chance_is_the_share_of_the_scene_in_training():
    blind = BlindAnswers([one("red", "car")] * 3 + [one("blue", "key")] * 7, draws=400)
    chance = blind.score([one("red", "car")], names=("chance",))["chance"][0]
    assert chance["all"] == pytest.approx(0.3, abs=0.07)


def test_the_nearest_caption_shares_words_and_the_nearest_picture_pixels(world):
    training = [two("red", "car", "blue", "house"), two("green", "key", "blue", "cat"), two("red", "house", "blue", "car")]
    blind = BlindAnswers(training)
    asked = [two("red", "car", "blue", "cat")]
    assert blind.nearest_by_caption(asked)[0] in (training[0], training[2])
    assert blind.nearest_by_caption([training[2]]) == [training[2]]
    assert blind.nearest_by_picture(training, world.pixels) == training
    pixels = world.pixels([scene.id for scene in (*asked, *training)]).astype(float)
    pooled = pixels.reshape(4, 16, 4, 16, 4, 3).mean((2, 4)).reshape(4, -1)
    by_hand = int(np.square(pooled[1:] - pooled[0]).sum(1).argmin())
    assert blind.nearest_by_picture(asked, world.pixels) == [training[by_hand]]


def test_described_scenes_are_compared_like_pictures():
    truth = two("red", "car", "blue", "house")
    swapped = score_scene(imagine(two("red", "house", "blue", "car").things), truth)
    assert swapped == {"all": 0, "objects": 1, "colours": 1, "cells": 0, "places": 1, "unrecognisable": 0, "relation": 0}
    assert score_scene(imagine(()), truth)["unrecognisable"] == 1.0
    twice = imagine((Thing("red", "car", "left"), Thing("blue", "car", "right")))
    assert score_scene(twice, truth)["places"] == 1.0
    assert describe_finding(twice) == "red car left, blue car right"
    assert describe_finding(imagine(())) == "rejected (nothing there)"
    assert describe_finding(None) == "no picture"


def test_an_edit_is_a_change_and_a_rest():
    before, after = two("red", "car", "blue", "house"), two("red", "car", "green", "house")
    copied = score_edit(imagine(before.things), before, after)
    assert (copied["all"], copied["change"], copied["rest"]) == (0, 0, 1)
    spoiled = score_edit(imagine(two("blue", "car", "green", "house").things), before, after)
    assert (spoiled["all"], spoiled["change"], spoiled["rest"]) == (0, 1, 0)
    assert score_edit(imagine(after.things), before, after)["all"] == 1.0


def record(scores, cluster="c"):
    return Record("val/x", Document((TextSpan("t"),)), (), scores, "e", "f", cluster)


def test_figures_keep_scores_apart_and_name_their_gap():
    records = [record({"all": 1.0, "relation": 0.0}, "a"), record({"all": 0.0}, "b"), record({"all": 1.0}, "c")]
    blind = {"majority": [{"all": 1.0, "relation": 1.0}, {"all": 0.0}, {"all": 0.0}]}
    figures = summarise("val/x", records, blind, "greedy")
    assert set(figures) == {"val/x", "val/x_relation"}
    assert figures["val/x"].value == pytest.approx(2 / 3)
    assert figures["val/x"].baselines == {"majority": pytest.approx(1 / 3)}
    assert figures["val/x"].gap_closed == pytest.approx(0.5)
    assert figures["val/x_relation"].n == 1
    assert figures["val/x"].to_dict()["gap_from"] == "majority"
    assert figures["val/x_relation"].gap_closed is None
    assert "gap_closed" not in figures["val/x_relation"].to_dict()
    with pytest.raises(DocumentError, match="'val/x' has no items"):
        summarise("val/x", [])
    with pytest.raises(DocumentError, match="baseline 'majority' has 3 items, the model 2"):
        summarise("val/x", records[:2], blind)


def test_the_gap_is_measured_from_the_best_blind_answer_and_lookups_stand_beside_it():
    baselines = {"majority": 0.46, "object_only": 0.737, "original": 1.0, "usual_wording": 0.9, "slot_lookup": 0.997}
    found = Figure(0.637, 0.58, 0.69, 300, {**baselines, "nearest_caption": 0.2}).to_dict()
    assert found["gap_from"] == "object_only"
    assert found["gap_closed"] == pytest.approx((0.637 - 0.737) / (1 - 0.737))
    assert (found["lookup"], found["exceeds_lookup"]) == ("slot_lookup", False)
    assert stand(1.0, 0.99, {"slot_lookup": 0.5}) == {"lookup": "slot_lookup", "exceeds_lookup": True}
    assert stand(1.0, 1.0, {"copy_input": 1.0}) == {"gap_from": "copy_input"}  # no gap is left
    assert stand(1.0, 1.0, {"original": 1.0}) == {}


def test_what_is_no_share_has_no_gap():
    records = [record({"all": 0.9, "slope": 0.1, "pixel_error": 0.2}, "a")]
    blind = {"trigram": [{"all": 0.5, "slope": 0.0, "pixel_error": 0.4}]}
    figures = summarise("val/x", records, blind)
    assert [key for key, figure in figures.items() if "gap_from" in figure.to_dict()] == ["val/x"]
    assert "gap_closed" not in summarise("val/bits", records, blind, is_share=False)["val/bits"].to_dict()


def test_a_story_without_scenes_has_no_guesses_and_lends_none():
    first, second = two("red", "car", "blue", "house"), two("green", "key", "blue", "cat")
    blind = BlindAnswers([first, second])
    full = guess_states(blind, [[first], [second, first]])
    holey = guess_states(blind, [[], [first], [], [], [second, first], []])
    assert holey == {name: [[], own, [], [], others, []] for name, (own, others) in full.items()}
    assert all(guesses == [[], []] for guesses in guess_states(blind, [[], []]).values())
