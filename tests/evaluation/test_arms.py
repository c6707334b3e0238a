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
        "plain": {1: items([0, 0, 0, 0], [0, None, 0, None]), 2: items([0, 0, 0, 1], [0, None, 0, None])},
        "better": {1: items([1, 1, 1, 1], [1, None, 1, None])},
    }
    found = compare_arms(runs, reference="plain")
    assert list(found) == ["plain", "better"]
    assert set(found["plain"]) == {"val/captions", "val/captions_relation"}
    plain, better = (found[arm]["val/captions"] for arm in ("plain", "better"))
    assert (plain["value"], plain["n"], plain["seeds"]) == (0.125, 4, {"1": 0.0, "2": 0.25})
    assert "minus_reference" not in plain
    assert better["minus_reference"]["value"] == 0.875
    assert better["minus_reference"]["low"] > 0
    assert found["better"]["val/captions_relation"]["n"] == 2


def test_a_figure_counts_the_runs_that_were_examined_on_it():
    more = {**items([0, 1]), "val/vqa": items([1, 1])["val/captions"]}
    found = compare_arms({"plain": {1: items([0, 0]), 2: more}, "other": {1: items([1, 1])}}, reference="plain")
    assert found["plain"]["val/captions"]["seeds"] == {"1": 0.0, "2": 0.5}
    assert found["plain"]["val/vqa"]["seeds"] == {"2": 1.0}
    assert "val/vqa" not in found["other"]


def test_runs_that_were_asked_something_else_are_refused():
    with pytest.raises(DocumentError, match="other, seed 3 was not asked the 3 items of the reference"):
        compare_arms({"plain": {1: items([0, 0, 1])}, "other": {3: items([1, 1])}}, reference="plain")
    with pytest.raises(DocumentError, match="No run of the reference arm 'plain' has finished; finished are \\['other'\\]"):
        compare_arms({"other": {3: items([1, 1])}}, reference="plain")
