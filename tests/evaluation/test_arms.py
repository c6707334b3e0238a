"""Arms side by side: figures over seeds and items, differences from the reference, and that all were asked the same."""

import pytest

from plait.errors import DocumentError
from plait.evaluation.arms import compare_arms


def items(right: list[int], relation: list[int | None] | None = None) -> dict:
    """One figure whose i-th item is right or not."""
    scores = [{"all": float(value)} for value in right]
    for score, value in zip(scores, relation or [], strict=False):
        if value is not None:
            score["relation"] = float(value)
    return {
        "val/captions": [{"expected": f"scene {i}", "found": "", "cluster": f"c{i}", "scores": s} for i, s in enumerate(scores)]
    }


def test_every_arm_has_every_figure_and_its_distance_from_the_reference():
    runs = {
        "plain": {
            seed: items(right, [0, None, 0, None]) for seed, right in enumerate(([0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]), 1)
        },
        "better": {1: items([1, 1, 1, 1], [1, None, 1, None])},
    }
    found = compare_arms(runs, reference="plain")
    assert list(found) == ["plain", "better"]
    assert set(found["plain"]) == {"val/captions", "val/captions_relation"}
    plain, better = (found[arm]["val/captions"] for arm in ("plain", "better"))
    assert (plain["value"], plain["n"], plain["seeds"]) == (0.5 / 3, 4, {"1": 0.0, "2": 0.25, "3": 0.25})
    assert "minus_reference" not in plain
    assert better["minus_reference"]["value"] == pytest.approx(1 - 0.5 / 3)
    assert better["minus_reference"]["low"] > 0
    assert found["better"]["val/captions_relation"]["n"] == 2


def test_two_seeds_that_differ_show_no_difference_however_large_it_is():
    runs = {"plain": {1: items([0] * 20), 2: items([0] * 14 + [1] * 6)}, "better": {1: items([1] * 20)}}
    gap = compare_arms(runs, reference="plain")["better"]["val/captions"]["minus_reference"]
    assert gap["value"] == pytest.approx(0.85)
    assert gap["low"] < 0  # Student's t with one degree of freedom
    assert gap["p_value"] > 0.05


def test_an_average_of_figures_is_compared_as_a_whole():
    parts = {"val/vqa_colour": items([1, 1, 0, 0])["val/captions"], "val/vqa_where": items([1, 0])["val/captions"]}
    runs = {"one": {1: {key: [{**item, "part_of": "val/vqa"} for item in listed] for key, listed in parts.items()}}}
    found = compare_arms(runs, reference="one")["one"]
    assert (found["val/vqa"]["value"], found["val/vqa"]["n"]) == (0.5, 6)
    runs["one"][1]["val/vqa_colour"][2]["scores"]["all"] = 1.0
    assert compare_arms(runs, reference="one")["one"]["val/vqa"]["value"] == pytest.approx((0.75 + 0.5) / 2)


def test_what_was_asked_decides_and_not_what_followed_from_the_model():
    """Free stories expect what their own sentences say, and only some close with a question."""
    first = {
        "val/stories": [{"asked": "here is a cat .", "expected": "cat", "cluster": "1", "scores": {"all": 1.0, "answers": 1.0}}]
    }
    other = {"val/stories": [{"asked": "here is a cat .", "expected": "cat | dog", "cluster": "1", "scores": {"all": 0.0}}]}
    found = compare_arms({"one": {1: first}, "other": {1: other}}, reference="one")
    assert found["other"]["val/stories"]["minus_reference"]["value"] == -1.0
    assert "val/stories_answers" not in found["other"]


def test_a_figure_counts_the_runs_that_were_examined_on_it():
    more = {**items([0, 1]), "val/vqa": items([1, 1])["val/captions"]}
    found = compare_arms({"plain": {1: items([0, 0]), 2: more}, "other": {1: items([1, 1])}}, reference="plain")
    assert found["plain"]["val/captions"]["seeds"] == {"1": 0.0, "2": 0.5}
    assert found["plain"]["val/vqa"]["seeds"] == {"2": 1.0}
    assert "val/vqa" not in found["other"]


def test_runs_that_were_asked_something_else_are_refused():
    with pytest.raises(DocumentError, match="other, seed 3 was not asked the 3 items of plain, seed 1"):
        compare_arms({"plain": {1: items([0, 0, 1])}, "other": {3: items([1, 1])}}, reference="plain")
    with pytest.raises(DocumentError, match="No run of the reference arm 'plain' has finished; finished are \\['other'\\]"):
        compare_arms({"other": {3: items([1, 1])}}, reference="plain")
