"""The W&B report of the same spec: its JSON, offline."""

import base64
import io
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from lightning_modules.jobs.page import write_report
from lightning_modules.reporting.verification import verify_report
from plait.errors import CheckpointError, RecipeError

SNAPSHOT = Path(__file__).with_name("workspace.json")


def outline(stored: dict) -> list:
    """What a W&B report is made of, without ids and times: blocks with their headings, heads of tables, panels and run sets."""
    found = []
    for block in stored["spec"]["blocks"]:
        entry = {"type": block["type"]}
        if block["type"] == "heading":
            entry["text"] = block["children"][0]["text"]
        if block["type"] == "markdown-block":
            lines = block["content"].splitlines()
            entry["tables"] = [line for line, below in pairwise(lines) if below.startswith("|---")]
        if block["type"] == "panel-grid":
            runsets = block["metadata"]["runSets"]
            panels = block["metadata"]["panelBankSectionConfig"]["panels"]
            config = [panel["config"] for panel in panels]
            shown = [one.get("metrics") or one.get("mediaKeys") for one in config]
            entry["panels"] = [[panel["viewType"], keys] for panel, keys in zip(panels, shown, strict=True)]
            entry["runs"] = {runset["name"]: json.dumps(runset["filters"]) for runset in runsets}
        if block["type"] == "image":
            entry["caption"] = block["children"][0]["text"]
        found.append(entry)
    return found


@pytest.fixture
def written(multirun: Path, tokenizer: Path, evaluations: Path, tmp_path: Path) -> Path:
    """Two configurations of two seeds each, the tokenizer that they came from, and evaluations with samples."""
    pytest.importorskip("wandb_workspaces")
    for number, rate in enumerate((0.1, 0.1, 0.2, 0.2)):
        path = multirun / str(number) / "hydra" / "overrides.yaml"
        path.write_text(path.read_text() + f"- lr={rate}\n")
        (multirun / str(number) / "wandb" / f"offline-run-20260101_000000-own{number}").mkdir(parents=True)
    (tokenizer / "wandb" / "run-20260101_000000-tok1").mkdir(parents=True)
    (tokenizer / "wandb" / "run-20260102_000000-tok1").mkdir(parents=True)  # resumed under its id
    passport = tokenizer / "passport.json"
    passport.write_text(passport.read_text().replace("PretrainingStage", "TokenizerStage"))
    write_report(
        runs=[str(multirun), str(tokenizer), str(evaluations)], folder=str(tmp_path), title="four seeds", target="wandb"
    )
    return tmp_path / "report.wandb.json"


@pytest.mark.filterwarnings("ignore")  # wandb-workspaces declares its models in the words of an older pydantic
def test_its_shape_is_the_snapshot(written: Path) -> None:
    stored = json.loads(written.read_text())
    assert (stored["displayName"], stored["project"]["name"]) == ("four seeds", "plait")
    assert outline(stored) == json.loads(SNAPSHOT.read_text())


@pytest.mark.filterwarnings("ignore")
def test_it_opens_with_pictures_and_sentences_and_holds_every_sample_of_the_page(written: Path) -> None:
    blocks = [block for block in json.loads(written.read_text())["spec"]["blocks"] if block["type"] != "paragraph"]
    assert blocks[0]["type"] == "image"
    first_words = next(block for block in blocks if block["type"] != "image")
    assert first_words["content"].startswith("- ")
    pictures = [block["url"] for block in blocks if block["type"] == "image"]
    page = written.with_name("report.html").read_text()
    assert len(pictures) == page.count("<div class='card'>") + page.count("<img src='data:image/webp")
    assert all(open_inline(url).size > (20, 20) for url in pictures)
    assert not [block for block in blocks if block["type"] == "code-block"]
    assert max(len(json.dumps(block)) for block in blocks if block["type"] != "image") < 20_000


@pytest.mark.filterwarnings("ignore")
def test_panels_show_the_runs_of_their_own_stage_a_set_per_configuration(written: Path) -> None:
    found, heading = {}, ""
    for entry in outline(json.loads(written.read_text())):
        heading = entry.get("text", heading)
        if entry["type"] == "panel-grid" and heading.startswith("How it went"):
            found[heading] = {name: sorted(re.findall(r"own\d|tok1", ids)) for name, ids in entry["runs"].items()}
    assert found == {
        "How it went: PretrainingStage": {"lr=0.1": ["own0", "own1"], "lr=0.2": ["own2", "own3"]},
        "How it went: TokenizerStage": {"tokenizer": ["tok1"]},
    }


@pytest.mark.filterwarnings("ignore")
def test_its_numbers_are_those_of_the_page_and_can_be_verified(written: Path) -> None:
    page = written.with_name("report.html")
    shown = re.findall(r"<data [^>]*>([^<]*)</data>", page.read_text())
    sources = written.with_name("report.wandb.sources.json")
    assert [entry["text"] for entry in json.loads(sources.read_text())["numbers"]] == shown
    verdict = verify_report(written)
    assert verdict.is_right
    assert verdict.numbers == verify_report(page).numbers
    number = next(text for text in shown if "." in text)
    text = written.read_text()
    written.write_text(text.replace(f"**{number}**", "**0.123**", 1))
    assert len(verify_report(written).wrong) == 1
    written.write_text(text)
    sources.write_text(sources.read_text().replace('"value"', '"value" ', 1))
    with pytest.raises(CheckpointError, match="not the file that this report was written with"):
        verify_report(written)


def open_inline(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_without_the_package_the_extra_is_named(multirun: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(RecipeError, match=r"pip install 'plait\[reports\]'"):
        write_report(runs=[str(multirun)], folder=str(tmp_path), target="wandb")
