"""reports/fidelity.md names files and tests that exist, and says of every claim where it comes from."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["claim", "file", "test", "evidence", "our choice"]
EVIDENCE = {"code", "paper", "inferred", "proposed"}


def rows(text: str) -> list[list[str]]:
    """The rows of every table of claims."""
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split(" |")] for line in text.splitlines() if line.startswith("|")
    ]
    return [row for row in lines if row != COLUMNS and not set("".join(row)) <= {"-", "|", ""}]


def missing(name: str, root: Path) -> str | None:
    """What of a `file` or `file::test` is not there."""
    path, _, test = name.partition("::")
    if not (root / path).is_file():
        return f"{path} does not exist"
    if test:
        found = {node.name for node in ast.walk(ast.parse((root / path).read_text())) if isinstance(node, ast.FunctionDef)}
        return None if test in found else f"{path} has no {test}"
    return None


TEXT = (ROOT / "reports/fidelity.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", rows(TEXT), ids=lambda row: row[0][:40])
def test_what_a_row_names_exists(row: list[str]) -> None:
    claim, file, test, evidence, choice = row
    assert claim
    assert evidence in EVIDENCE
    named = re.findall(r"`([\w./-]+\.(?:py|yaml|md)(?:::\w+)?)`", f"{file} {test} {choice}")
    assert not [found for name in named if (found := missing(name, ROOT))]
    assert file.count("`") // 2 + test.count("`") // 2 <= len(named)
    assert (file and test) or choice, "a claim without file and test says why"


def test_a_file_or_test_that_is_gone_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text("def test_one(): ...\n")
    assert missing("tests/test_a.py::test_one", tmp_path) is None
    assert missing("tests/test_a.py::test_two", tmp_path) == "tests/test_a.py has no test_two"
    assert missing("plait/gone.py", tmp_path) == "plait/gone.py does not exist"


def test_systems_that_are_built_have_a_section() -> None:
    systems = {path.stem for path in (ROOT / "conf/system").glob("*.yaml")} - {"vision_tokenizer"}
    sections = re.findall(r"^## (.+?) \(", TEXT, flags=re.M)
    assert {re.sub(r"[-\s]+", "_", name.lower()) for name in sections} >= systems & {
        "liquid",
        "armor",
        "illume",
        "synergen_vl",
        "mm_interleaved",
    }
