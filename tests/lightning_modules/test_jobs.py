"""What the commands do once their parts are built: the report page and the card, on the session's small run."""

import json

import pytest

from lightning_modules.jobs.page import write_report
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.reporting.verification import verify_report
from lightning_modules.running.launch import launch
from plait.checkpoints import read_manifest
from plait.errors import CheckpointError, RecipeError


def test_the_page_shows_ledger_curves_and_cost(small_run, tmp_path) -> None:
    runs = [str(small_run / name) for name in ("tokenizer", "pretraining")]
    page = write_report(runs=runs, folder=str(tmp_path), title="two <runs>", summary=str(tmp_path / "summary.json"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page == str(tmp_path / "report.html")
    assert "two &lt;runs&gt;" in text
    assert text.count("<td>kept</td>") == 2
    assert "<svg" in text
    assert '"cost/pretraining/tokens"' in (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert "src='http" not in text  # nothing outside the page is needed


def test_a_run_says_which_weights_it_came_from(small_run) -> None:
    lineage = json.loads((small_run / "instruction" / "lineage.json").read_text())
    parents = {parent["part"]: parent for parent in lineage["parents"]}
    assert {part: parent["name"] for part, parent in parents.items()} == {
        "vision_tokenizer": "tokenizer",
        "model": "pretraining",
    }
    assert parents["model"]["parents"][0]["identity"] == parents["vision_tokenizer"]["identity"]
    assert lineage["identity"] == read_manifest(small_run / "instruction" / "checkpoints" / "last.ckpt").identity


def test_an_exported_model_has_its_card(small_run, tmp_path) -> None:
    given = [f"run={small_run / 'instruction'}", f"target={tmp_path / 'mine'}", f"paths.folder={tmp_path / 'job'}"]
    launch(compose_job("export", given))
    card = tmp_path / "mine" / "README.md"
    assert verify_report(card).is_right
    assert "- pretraining `" in card.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["years of work", '{"name": "package"}', "[1]"])
def test_a_file_of_something_else_is_not_replaced_by_a_summary(small_run, tmp_path, text) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(RecipeError, match=r"mine\.json is there already, and is no summary"):
        write_report(runs=[str(small_run)], folder=str(tmp_path), summary=str(tmp_path / "mine.json"))
    assert (tmp_path / "mine.json").read_text() == text


def test_a_page_of_nothing_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        write_report(runs=[str(tmp_path)], folder=str(tmp_path))
