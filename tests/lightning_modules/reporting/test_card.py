"""The card of a model says what its passport, ledger and evaluation say."""

import json
import re
from pathlib import Path

import yaml

from lightning_modules.jobs.page import write_report
from lightning_modules.reporting.card import write_card
from lightning_modules.reporting.verification import verify_report


def test_a_card_has_training_figures_licences_and_limits(multirun: Path, evaluations: Path, tmp_path: Path) -> None:
    card = write_card(multirun / "0", tmp_path, evaluations / "seed-1" / "evaluation")
    text = card.read_text()
    assert text.startswith("---\nlicense: cc-by-4.0\nlibrary_name: plait\n")
    assert "| val/two_objects | 0.750 | 0.650 | 0.850 | 4 | majority | 0.250 | 0.500 | slot_lookup | 1.000 |" in text
    assert "- **seed=1**" not in text
    assert "tokenizer" in text  # where the weights come from
    assert "Twemoji" in text
    assert "it does not say that a model is good at images" in text
    assert verify_report(card).is_right


def test_a_model_that_was_not_examined_says_so(multirun: Path, tmp_path: Path) -> None:
    assert "This model was not examined" in write_card(multirun / "0", tmp_path).read_text()


def test_words_of_a_run_stay_words(multirun: Path, tmp_path: Path) -> None:
    """Neither the header of the card nor a page takes a line, a tag or a number from what a run calls itself."""
    hostile = "x\nlicense: mit\n<script>alert(1)</script> **0.5** | --> `"
    passport = json.loads((multirun / "0" / "passport.json").read_text())
    passport["config"] |= {"name": hostile, "tags": [hostile]}
    passport |= {"stage": hostile, "started": hostile}
    (multirun / "0" / "passport.json").write_text(json.dumps(passport))
    card = write_card(multirun / "0", tmp_path)
    assert yaml.safe_load(card.read_text().partition("---\n")[2].partition("\n---\n")[0])["tags"] == [hostile]
    page = Path(write_report(runs=[str(multirun / "0")], folder=str(tmp_path), title=hostile))
    for path in (card, page):
        text = path.read_text().partition("\n---\n")[2] if path == card else path.read_text()
        assert not re.search(r"(?<!\\)<script", text)
        assert path == page or "\nlicense: mit" not in text
        assert verify_report(path).is_right
