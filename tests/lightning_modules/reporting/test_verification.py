"""A report that was changed, or whose files were changed after it was written, is found out; an honest one holds."""

import json
import re
import shutil
from pathlib import Path

import pytest

from lightning_modules.jobs.page import write_report
from lightning_modules.reporting.verification import verify_report
from plait.errors import CheckpointError


@pytest.fixture(params=["html", "md"])
def page(request, multirun: Path, evaluations: Path, tmp_path: Path) -> Path:
    target = tmp_path / f"report.{request.param}"
    return Path(write_report(runs=[str(multirun), str(evaluations)], folder=str(tmp_path), page=str(target)))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_honest_report_holds(page: Path) -> None:
    verdict = verify_report(page)
    assert verdict.is_right
    assert verdict.numbers > 80
    assert verdict.points == (4 * 41 if page.suffix == ".html" else 0)
    assert write_report(runs=[], folder=str(page.parent), verify=str(page)) == str(page)


def test_a_number_that_was_changed_on_the_page_is_found(page: Path) -> None:
    shown = ">0.625<" if page.suffix == ".html" else "| 0.625 |"
    change(page, shown, shown.replace("0.625", "0.925"))
    (finding,) = verify_report(page).wrong
    assert "the report shows 0.925, its value is 0.625" in finding
    with pytest.raises(CheckpointError, match="1 wrong, 0 unverified"):
        write_report(runs=[], folder=str(page.parent), verify=str(page))


def test_a_number_that_was_changed_with_its_statement_is_found(page: Path) -> None:
    text = page.read_text().replace("0.625", "0.925")
    page.write_text(text)
    assert any("the report states 0.925, the files say 0.625" in finding for finding in verify_report(page).wrong)


def test_a_number_that_was_added_without_a_source_is_found(page: Path) -> None:
    if page.suffix == ".html":
        change(page, "<td>kept</td>", "<td>0.99</td>")
    else:
        change(page, "| kept |", "| 0.99 |")
    verdict = verify_report(page)
    assert verdict.unverified
    assert not verdict.is_right


def test_a_point_of_a_curve_that_was_moved_is_found(multirun: Path, tmp_path: Path) -> None:
    page = Path(write_report(runs=[str(multirun)], folder=str(tmp_path)))
    page.write_text(re.sub(r"points='0,[\d.]+", "points='0,1.5", page.read_text(), count=1))
    (finding,) = verify_report(page).wrong
    assert "1 of 20 points are not in the file, first (0, 1.5)" in finding


def test_a_metric_that_was_changed_after_the_report_is_found(page: Path, multirun: Path) -> None:
    metrics = multirun / "2" / "metrics.jsonl"
    change(metrics, '"val/loss": 0.3', '"val/loss": 0.25')
    wrong = verify_report(page).wrong
    # its own value, and mean and low end over the four runs; on the page its point as well
    assert sum("val/loss" in finding for finding in wrong) >= 2
    assert all("val/loss" in finding for finding in wrong)


def test_a_run_that_is_gone_or_was_made_anew_cannot_be_verified(page: Path, multirun: Path, tmp_path: Path) -> None:
    shutil.move(multirun / "1", tmp_path / "elsewhere")
    verdict = verify_report(page)
    assert verdict.unverified
    assert not verdict.wrong
    assert verify_report(page, {"a1b1c1": tmp_path / "elsewhere"}).is_right
    shutil.copytree(multirun / "2", multirun / "1")
    assert any("holds run a2b2c2, expected a1b1c1" in finding for finding in verify_report(page).unverified)


def test_a_page_without_numbers_is_not_verified(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body><p>0.99</p></body></html>")
    assert "holds no number that names its source" in verify_report(tmp_path / "a.html").unverified[0]
    (tmp_path / "a.json").write_text(json.dumps({"no": "report"}))
    with pytest.raises(CheckpointError, match="is no report of plait-report"):
        verify_report(tmp_path / "a.json")
    with pytest.raises(CheckpointError, match="is no report of plait-report"):
        verify_report(tmp_path / "not.html")
