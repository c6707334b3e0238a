"""What the commands do once their parts are built: the report page and drawing, on the session's small run."""

import pytest

from lightning_modules.jobs.drawing import draw
from lightning_modules.jobs.page import write_report
from plait.errors import CheckpointError, DocumentError
from plait.sampling.policies import SamplingPolicy


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


def test_a_page_of_nothing_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        write_report(runs=[str(tmp_path)], folder=str(tmp_path))


@pytest.mark.parametrize("given", [{}, {"prompt": "a red car", "document": "mine.json"}])
def test_a_prompt_or_a_document_and_not_both(given, tmp_path) -> None:
    policy = SamplingPolicy()
    with pytest.raises(DocumentError, match="either prompt"):
        draw(model=None, folder=str(tmp_path), text_policy=policy, image_policy=policy, **given)
