"""A report of a multirun: what it holds, and that every target holds the same."""

import json
import re
from pathlib import Path

import pytest

from lightning_modules.jobs.page import write_report
from lightning_modules.reporting.content import describe_runs
from lightning_modules.reporting.markdown import render_markdown
from lightning_modules.reporting.page import LARGEST, render_page
from lightning_modules.reporting.sources import find_places
from lightning_modules.reporting.spec import Table
from lightning_modules.reporting.verification import verify_report
from plait.errors import CheckpointError, RecipeError
from plait.evaluation.statistics import bootstrap_mean
from plait.runs import Run


def tables(report, title: str) -> list[Table]:
    return [
        block for section in report.sections for block in section.blocks if isinstance(block, Table) and block.title == title
    ]


def test_a_multirun_is_one_folder_and_its_jobs_are_named_by_what_differs(multirun: Path) -> None:
    places = find_places([str(multirun)])
    assert [place.label for place in places] == ["seed=1", "seed=2", "seed=3", "seed=4"]
    assert {place.configuration for place in places} == {"all seeds"}
    assert [place.id for place in find_places([str(multirun / "2"), str(multirun)])] == ["a2b2c2", "a0b0c0", "a1b1c1", "a3b3c3"]


def test_jobs_that_differ_in_more_than_the_seed_are_configurations(multirun: Path) -> None:
    for number, rate in enumerate((0.1, 0.1, 0.2, 0.2)):
        path = multirun / str(number) / "hydra" / "overrides.yaml"
        path.write_text(path.read_text() + f"- lr={rate}\n")
    places = find_places([str(multirun)])
    assert [place.configuration for place in places] == ["lr=0.1", "lr=0.1", "lr=0.2", "lr=0.2"]
    (table,) = tables(describe_runs([str(multirun)]), "PretrainingStage: mean over seeds, and its interval")
    assert {row[0] for row in table.rows} == {"lr=0.1", "lr=0.2"}


def test_jobs_without_overrides_are_named_by_their_number(multirun: Path, tmp_path: Path) -> None:
    for number in range(4):
        (multirun / str(number) / "hydra" / "overrides.yaml").unlink()
    assert [place.label for place in find_places([str(multirun)])] == ["run 0", "run 1", "run 2", "run 3"]
    (tmp_path / "page.html").write_text(render_page(describe_runs([str(multirun)]), tmp_path))
    assert verify_report(tmp_path / "page.html").is_right


def test_last_values_are_means_over_seeds_with_their_intervals(multirun: Path) -> None:
    (table,) = tables(describe_runs([str(multirun)]), "PretrainingStage: mean over seeds, and its interval")
    (row,) = [row for row in table.rows if row[1] == "val/loss"]
    expected = bootstrap_mean([Run(multirun / str(i)).metrics.last("val/loss") for i in range(4)])
    assert [cell.value for cell in row[2:]] == [expected.value, expected.low, expected.high, 4]


def test_figures_of_several_seeds_are_over_seeds_and_items(evaluations: Path) -> None:
    report = describe_runs([str(evaluations)])
    (row,) = [row for table in tables(report, "") for row in table.rows if getattr(row[0], "text", "") == "val/two_objects"]
    assert (row[1].value, row[4].value, row[5], row[6].value) == (0.625, 4, "majority", 0.25)
    assert row[1].rule == "runs and items: mean"
    assert {source.run for source in row[1].sources} == {"e1", "e2"}
    assert row[2].value <= row[1].value <= row[3].value


def test_the_page_shows_curves_of_every_seed_samples_proof_and_lineage(multirun: Path, tmp_path: Path) -> None:
    page = render_page(describe_runs([str(multirun)], "four <seeds>"), tmp_path)
    assert "four &lt;seeds&gt;" in page
    assert len(re.findall(r"<polyline [^>]*train/loss", page)) == 4
    assert page.count("<div class='card'>") == 3 + 4 * 3  # at the top one of each of three runs
    assert page.count("<td>kept</td>") == 4
    assert "Twemoji" in page
    assert page.count("class='weights'") == 5  # the tokenizer once, and four runs that came from it
    assert "src='http" not in page
    assert "<script" not in page


def test_pictures_that_would_make_the_page_too_large_are_named_instead(multirun: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("lightning_modules.reporting.page.LARGEST", 4000)
    page = render_page(describe_runs([str(multirun)]), tmp_path)
    assert LARGEST > 4000
    gone = re.findall(r"would grow too large; it is samples/step-0000020.json of run (\w+)", page)
    assert gone == ["a2b2c2", "a1b1c1", "a0b0c0"]  # all but those of the last run


def test_a_long_curve_is_thinned_and_keeps_its_end(multirun: Path) -> None:
    rows = [{"step": i, "train/loss": float(i)} for i in range(1003)]
    (multirun / "0" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = describe_runs([str(multirun / "0")])
    (curve,) = [curve for section in report.sections for block in section.blocks for curve in getattr(block, "curves", ())]
    assert len(curve.points) <= 400
    assert curve.points[-1] == (1002, 1002.0)


def test_values_that_are_not_finite_are_counted_and_not_drawn(multirun: Path, tmp_path: Path) -> None:
    with open(multirun / "0" / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "val/loss": "nan"}\n')
    report = describe_runs([str(multirun / "0")])
    page = tmp_path / "page.html"
    page.write_text(render_page(report, tmp_path))
    assert "val/loss (1 values not finite)" in page.read_text()
    assert verify_report(page).is_right


def test_a_run_that_never_began_is_listed_with_its_state(multirun: Path, tmp_path: Path) -> None:
    for path in ("ledger.json", "metrics.jsonl"):
        (multirun / "3" / path).unlink()
    passport = multirun / "3" / "passport.json"
    passport.write_text(passport.read_text().replace('"finished"', '"failed"'))
    report = describe_runs([str(multirun)])
    rows = next(section for section in report.sections if section.title.startswith("The runs")).blocks[0].rows
    assert [row[3] for row in rows] == ["finished", "finished", "finished", "failed"]
    (tmp_path / "page.html").write_text(render_page(report, tmp_path))
    assert verify_report(tmp_path / "page.html").is_right


def test_markdown_has_the_numbers_of_the_page(multirun: Path, tmp_path: Path) -> None:
    report = describe_runs([str(multirun)])
    shown = re.findall(r"<data [^>]*>([^<]*)</data>", render_page(report, tmp_path))
    text = render_markdown(report, tmp_path)
    assert shown == [number.text for number in report.numbers]
    assert all(f"| {text_} |" in text or f"**{text_}**" in text for text_ in shown)


def test_the_job_writes_page_and_summary(multirun: Path, evaluations: Path, tmp_path: Path) -> None:
    evaluation = evaluations / "seed-1" / "evaluation"
    summary = tmp_path / "summary.json"
    page = write_report(runs=[str(multirun)], evaluation=str(evaluation), folder=str(tmp_path), summary=str(summary))
    assert page == str(tmp_path / "report.html")
    found = json.loads(summary.read_text())
    assert found["val/two_objects"] == 0.75
    assert found["cost/0/tokens"] == 1000
    assert "val/two_objects" in Path(page).read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "A report about which runs"),
        ({"runs": ["x"], "page": "x.pdf"}, r"page=x.pdf: expected a file that ends in .html or .md"),
        ({"runs": ["x"], "target": "x.html"}, "expected page or wandb"),
        ({"runs": ["x"], "expected": "{val/captions: many}"}, "expected a figure and its range"),
    ],
)
def test_what_is_no_report_is_refused(given: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        write_report(**{"runs": [], "folder": str(tmp_path), **given})


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder and holds none"):
        write_report(runs=[str(tmp_path)], folder=str(tmp_path))


def test_a_run_without_an_id_is_refused(multirun: Path) -> None:
    (multirun / "1" / "job.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no job\.json, which holds the id"):
        describe_runs([str(multirun)])
