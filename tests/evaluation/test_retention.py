"""What is kept of a base: ratios on the same items, whichever way is better, and no ratio to nothing."""

import pytest

from plait.errors import DocumentError, RecipeError
from plait.evaluation.retention import keep_shares


def items(key: str, values: list[float]) -> dict:
    return {
        key: [
            {"scores": {"all": value}, "expected": f"item {index}", "cluster": f"{index % 20}"}
            for index, value in enumerate(values)
        ]
    }


def test_shares_and_losses_are_both_1_where_all_is_kept_and_below_where_less_is() -> None:
    base = items("val/choice", [1.0, 1.0, 0.0, 1.0] * 15) | items("val/loss_image", [2.0, 3.0, 4.0] * 20)
    worse = items("val/choice", [1.0, 0.0, 0.0, 1.0] * 15) | items("val/loss_image", [4.0, 6.0, 8.0] * 20)
    same = keep_shares(base, base, ("loss_image",))
    assert all(figure.value == figure.low == figure.high == 1.0 for figure in same.values())
    kept = keep_shares(worse, base, ("loss_image",))
    assert kept.keys() == {"val/choice_kept", "val/loss_image_kept"}
    assert kept["val/choice_kept"].value == pytest.approx(2 / 3)
    assert kept["val/choice_kept"].low < 2 / 3 < kept["val/choice_kept"].high
    # every item costs twice as much: paired, there is no doubt about the ratio
    assert kept["val/loss_image_kept"].value == kept["val/loss_image_kept"].low == kept["val/loss_image_kept"].high == 0.5


def test_other_items_are_refused_and_a_ratio_to_nothing_is_counted() -> None:
    base, mine = items("val/choice", [0.0] * 8), items("val/choice", [1.0] * 8)
    (figure,) = keep_shares(mine, base, ()).values()
    assert (figure.n, figure.skipped) == (0, 8)
    assert "some resamples of 8 items give 0" in figure.reason
    with pytest.raises(DocumentError, match="examined on 7 other items than the model"):
        keep_shares(mine, {"val/choice": base["val/choice"][1:]}, ())
    with pytest.raises(RecipeError, match=r"share no figure: the model has .*evaluate the base on the data"):
        keep_shares(mine, items("test/answers", [1.0]), ())
