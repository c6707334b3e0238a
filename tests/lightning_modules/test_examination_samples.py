"""What a judged item looks like to people: a tick is good, whatever the score is called."""

import pytest
from PIL import Image

from lightning_modules.jobs.examination import to_sample
from plait.document import Document, ImageSpan, TextSpan
from plait.evaluation.figures import Record


def test_a_tick_is_good() -> None:
    document = Document((ImageSpan("scene"), TextSpan("a red red car")))
    scores = {"all": 0.0, "ungrammatical": 1.0, "unrecognisable": 0.0, "agreement": 0.5}
    record = Record("val/captions", document, (Image.new("RGB", (4, 4)),), scores, "a red car", "no caption", "scene")
    shown = {"right": False, "grammatical": False, "recognisable": True, "agreement": 0.5}
    assert to_sample(record).scores == {**shown, "expected": "a red car", "found": "no caption"}


@pytest.mark.parametrize(
    ("key", "name", "shown"), [("interleaved", "slope", "slope"), ("context_gain_drawing", "all", "right")]
)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_what_is_no_share_is_a_number(key: str, name: str, shown: str, value: float) -> None:
    """A story that does not tire has the slope 0, which is no failure."""
    record = Record(f"val/{key}", Document((TextSpan("a car"),)), (), {name: value}, "", "", "scene")
    assert isinstance(to_sample(record).scores[shown], float)
