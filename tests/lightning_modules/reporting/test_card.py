"""The card of a model says what its passport, ledger and evaluation say."""

from pathlib import Path

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
