"""The words of figures travel with an evaluation, and what somebody else wrote there is no word."""

import json

import pytest

from plait.errors import CheckpointError
from plait.evaluation.about import About

ABOUT = About(
    figures={"choice": ("choosing", "share of right choices"), "loss": ("", "nats")},
    scores={"mean": "per token"},
    recall=("val",),
    headlines=("choice",),
)


def test_words_survive_the_way_through_json() -> None:
    assert About.from_json(json.loads(json.dumps(ABOUT.to_json()))).to_json() == ABOUT.to_json()
    assert ABOUT.explain("val/choice") == "share of right choices"
    assert ABOUT.explain("val/choice_mean") == "choice: per token"
    assert ABOUT.explain("val/choice_kept").startswith("what is left of the base's choice")
    assert (ABOUT.name_skill("val/choice"), ABOUT.name_skill("val/loss")) == ("choosing", "loss")
    assert ABOUT.is_headline("test/choice")
    assert ABOUT.is_recall("val/choice")


@pytest.mark.parametrize(
    "damage",
    [
        {"figures": {"choice": "no pair"}},
        {"figures": {"choice": ["choosing", 3]}},
        {"recall": 5},
        {"shown": []},
        {"more": "words"},
    ],
)
def test_what_is_no_word_is_refused(damage: dict) -> None:
    with pytest.raises(CheckpointError, match=r"words of an evaluation .*evaluate that model anew"):
        About.from_json(ABOUT.to_json() | damage)
