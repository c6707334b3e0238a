"""A report begins with what it looks like and with sentences that say what the figures say, the worst first."""

import json
import random
import re
from pathlib import Path

import pytest
from PIL import Image

from lightning_modules.jobs.page import write_report
from lightning_modules.reporting.content import describe_runs
from lightning_modules.reporting.page import render_page
from lightning_modules.reporting.spec import Chart, Number, Prose, Strip
from lightning_modules.reporting.verification import verify_report
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import CheckpointError
from plait.rendering import write_samples
from plait.samples import Sample
from plait.worlds.emoji.examinations.plan import ABOUT
from tests.lightning_modules.reporting.conftest import write_job

SKILLS = [name for name in ABOUT.headlines if ABOUT.name_skill(name) != name]


def write_evaluation(folder: Path, results: dict) -> Path:
    """An evaluation with these figures: name -> (value, low, high, best blind answer)."""
    write_job(folder, "e1")
    figures = {
        key: {
            "value": value,
            "low": low,
            "high": high,
            "n": 9,
            "baselines": {} if blind is None else {"majority": blind, "slot_lookup": 0.96},
        }
        for key, (value, low, high, blind) in results.items()
    }
    facts = {"results": figures, "facts": {}, "cost": {}}
    (folder / "evaluation.json").write_text(json.dumps(facts))
    for key in results:
        shown = Sample(
            Document((TextSpan(f"asked for {key}"), ImageSpan("i"))),
            {"i": Image.new("RGB", (8, 8), "red")},
            {"right": True},
            1,
            1,
        )
        write_samples([shown] * 2, folder / "samples" / f"{key.replace('/', '-')}.html")
    return folder


def read_opening(folder: Path, **settings) -> tuple[list[str], Chart]:
    section = describe_runs([str(folder)], **settings).sections[0]
    (prose,) = [block for block in section.blocks if isinstance(block, Prose)]
    (chart,) = [block for block in section.blocks if isinstance(block, Chart)]
    said = ["".join(piece.text if isinstance(piece, Number) else piece for piece in one) for one in prose.sentences]
    return said, chart


RESULTS = {
    "val/two_objects": (1.0, 1.0, 1.0, 0.1),
    "test_pair/two_objects": (0.99, 0.97, 1.0, 0.1),
    "test_pair/captions": (0.57, 0.52, 0.62, 0.1),
    "test_combo/two_objects": (0.0, 0.0, 0.0, 0.25),
}


def test_what_is_worst_is_said_first(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluation", RESULTS)
    said, chart = read_opening(folder, expected={"test_pair/captions": [0.8, 1.0], "test_pair/two_objects": [0.96, 1.0]})
    assert said == [
        "Below what is expected: captioning two things (test_pair/captions) 0.570, expected 0.80 or more. Another seed may do better.",
        "No better than an answer that does not need the skill: on test_combo (things in colours that training never showed them in) "
        "drawing two things 0.000.",
        "Nearly always right (the low end of the interval is 0.95 or more): on test_pair (two things that training never showed "
        "together) drawing two things 0.990.",
        "Better than that, and not nearly always right: on test_pair (two things that training never showed together) captioning two "
        "things 0.570. A table of what was seen, without a model, does as well on captioning two things (test_pair).",
        "All of this is one run with one seed: intervals are over items, and another seed may do otherwise.",
    ]
    assert [bar.name.text for bar in chart.bars] == [key for key in RESULTS if not key.startswith("val/")]
    assert all(bar.name.about and bar.blind is not None for bar in chart.bars)


def test_what_has_no_blind_answer_is_not_called_better_and_what_hurts_is_said(tmp_path: Path) -> None:
    results = {
        "test_pair/stories": (0.61, 0.55, 0.66, None),
        "test_pair/edits": (0.4, 0.0, 0.5, None),
        "test_pair/captions": (0.9, 0.8, 0.94, 0.1),
        "test_pair/context_gain": (-0.41, -0.46, -0.35, None),
        "test_pair/interleaved_slope": (-0.01, -0.02, 0.0, None),
    }
    said, _ = read_opening(write_evaluation(tmp_path / "evaluation", results))
    about = "on test_pair (two things that training never showed together)"
    assert said[:-1] == [
        f"Better than that, and not nearly always right: {about} captioning two things 0.900. A table of what was seen, without a model, "
        "does as well on captioning two things (test_pair).",
        f"Not nearly always right, and without an answer to compare with: {about} {ABOUT.name_skill('stories')} 0.610, "
        f"{ABOUT.name_skill('edits')} 0.400.",
        "For the worse (the whole interval is below 0): on test_pair solved examples before the prompt change the share of right answers "
        "by -0.410.",
    ]


def test_no_sentence_contradicts_its_figures(tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(12):
        names = chance.sample(SKILLS, 5)
        results = {}
        for name in names:
            low, value, high = sorted(chance.choice((0.0, 0.3, 0.94, 0.96, 1.0, chance.random())) for _ in range(3))
            results[f"test_pair/{name}"] = (value, low, high, chance.choice((0.0, 0.5, 0.95, chance.random())))
        said, _ = read_opening(write_evaluation(tmp_path / str(number), results))
        assert 2 <= len(said) <= 5
        for key, (value, low, _, blind) in results.items():
            (sentence,) = [
                one for one in said if re.search(rf"(never showed together\)|,) {ABOUT.name_skill(key)} {value:.3f}", one)
            ]
            kind = 0 if low <= blind else 1 if low >= 0.95 else 2
            assert sentence.startswith(("No better than", "Nearly always", "Better than that")[kind])


def test_pictures_come_first_then_sentences_chart_tables_and_ids(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluation", RESULTS)
    page = Path(write_report(runs=[str(folder)], folder=str(tmp_path)))
    text = page.read_text()
    places = [
        text.index(mark) for mark in ("<img ", "<ul class='verdict'>", "<div class='chart'>", "<table>", "<code>e1</code>")
    ]
    assert places == sorted(places)
    assert verify_report(page).is_right
    page.write_text(re.sub(r">0\.570</data>", ">0.770</data>", text, count=1))
    assert len(verify_report(page).wrong) == 1
    opened = [line.split(":")[0] for line in re.findall(r"<details open><summary>([^<]*)", text)]
    assert [title.split(" ")[0] for title in opened] == [
        "test_pair/two_objects",
        "test_pair/captions",
        "test_combo/two_objects",
    ]
    assert "<details><summary>recall, val/two_objects" in text
    for key in RESULTS:
        assert ABOUT.explain(key) in text


def test_samples_of_the_examined_model_are_never_left_out(tmp_path: Path, multirun: Path, monkeypatch) -> None:
    folder = write_evaluation(tmp_path / "evaluation", RESULTS)
    monkeypatch.setattr("lightning_modules.reporting.page.LARGEST", 1)
    report = describe_runs([str(folder), str(multirun)])
    page = render_page(report, tmp_path)
    assert any(isinstance(block, Strip) for block in report.sections[0].blocks)
    for key in ("test_pair/two_objects", "test_pair/captions", "test_combo/two_objects"):
        assert page.count(f"asked for {key}") >= 2
    assert "samples/val-two_objects.json of run e1" in page
    assert page.count("would grow too large") == 1 + 3


def test_a_file_that_leads_out_of_its_run_is_refused(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluation", RESULTS)
    (folder / "sheets").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "private.png")
    (folder / "sheets" / "test_pair-captions.png").symlink_to(tmp_path / "private.png")
    with pytest.raises(CheckpointError, match="is a link out of its run"):
        render_page(describe_runs([str(folder)]), tmp_path)


def test_every_figure_of_the_common_table_is_explained() -> None:
    assert [name for name in ABOUT.headlines if not ABOUT.explain(name) and name not in ("context", "glosses")] == []
    assert ABOUT.explain("test_pair/captions_relation").startswith("captions: ")
    assert ABOUT.explain("val/of_my_own") == ""
