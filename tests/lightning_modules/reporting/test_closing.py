"""What a curriculum says at its end."""

import json

import pytest

from lightning_modules.reporting.closing import Closing
from plait.errors import CheckpointError

FIGURES = {"val/captions": "captions", "val/edits": "edits things", "val/other": "was not asked"}


@pytest.fixture
def summary(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"val/captions": 0.57, "val/edits": 0.8}))
    return path


def test_figures_stand_beside_what_is_expected(summary):
    expected = {"val/captions": [0.8, 1.0], "val/edits": [0.7, 0.9]}
    said = Closing(
        summary=str(summary),
        figures=FIGURES,
        expected=expected,
        source="a page",
        opens={"the page": "x.html"},
        commands=["make lab"],
    )()
    rows = [line.split() for line in said.splitlines()]
    assert ["captions", "0.570", "0.80", "to", "1.00", "BELOW"] in rows
    assert ["edits", "things", "0.800", "0.70", "to", "0.90"] in rows
    assert ["was", "not", "asked", "-"] in rows
    assert "Below what is expected: captions. Another seed may do better; a page tells how runs differ." in said
    assert ["the", "page", "x.html"] in rows
    assert said.rstrip().endswith("make lab")


def test_where_nothing_is_expected_nothing_is_missed(summary):
    said = Closing(summary=str(summary), figures=FIGURES)()
    assert "expected" not in said
    assert "0.570" in said


def test_without_a_summary_it_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="start again"):
        Closing(summary=str(tmp_path / "none.json"), figures=FIGURES)()
