"""The W&B report of the same spec: its JSON, offline."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lightning_modules.jobs.page import write_report
from lightning_modules.reporting.verification import verify_report
from plait.errors import RecipeError

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
            (runset,) = block["metadata"]["runSets"]
            panels = block["metadata"]["panelBankSectionConfig"]["panels"]
            entry["panels"] = [[panel["viewType"], panel["config"]["xAxis"], panel["config"]["metrics"]] for panel in panels]
            entry["runs"] = runset["name"]
        found.append(entry)
    return found


@pytest.fixture
def written(multirun: Path, tmp_path: Path) -> Path:
    pytest.importorskip("wandb_workspaces")
    (multirun / "0" / "wandb" / "offline-run-20260101_000000-abcd1234").mkdir(parents=True)
    write_report(runs=[str(multirun)], folder=str(tmp_path), title="four seeds", target="wandb")
    return tmp_path / "report.wandb.json"


@pytest.mark.filterwarnings("ignore")  # wandb-workspaces declares its models in the words of an older pydantic
def test_its_shape_is_the_snapshot(written: Path) -> None:
    stored = json.loads(written.read_text())
    assert (stored["displayName"], stored["project"]["name"]) == ("four seeds", "plait")
    assert "abcd1234" in written.read_text()
    assert outline(stored) == json.loads(SNAPSHOT.read_text())


@pytest.mark.filterwarnings("ignore")
def test_its_numbers_are_those_of_the_page_and_can_be_verified(written: Path) -> None:
    page = written.with_name("report.html")
    shown = re.findall(r"<data [^>]*>([^<]*)</data>", page.read_text())
    stored = json.loads(written.read_text())
    (code,) = [block for block in stored["spec"]["blocks"] if block["type"] == "code-block"]
    assert [entry["text"] for entry in json.loads(code["children"][0]["children"][0]["text"])["numbers"]] == shown
    verdict = verify_report(written)
    assert verdict.is_right
    assert verdict.numbers == verify_report(page).numbers
    number = next(text for text in shown if "." in text)
    written.write_text(written.read_text().replace(f"| {number} |", "| 0.123 |", 1))
    assert len(verify_report(written).wrong) == 1


def test_without_the_package_the_extra_is_named(multirun: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(RecipeError, match=r"pip install 'plait\[reports\]'"):
        write_report(runs=[str(multirun)], folder=str(tmp_path), target="wandb")
