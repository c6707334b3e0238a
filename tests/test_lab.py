"""`make lab` works on copies: what somebody wrote is kept, what nobody touched is brought up to date, and git sees none of it."""

import importlib.util
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("lab", ROOT / "notebooks" / "lab.py")
lab = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lab)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    (tmp_path / "notebooks").mkdir()
    write(tmp_path / "notebooks" / "one.ipynb", "1 + 1")
    return tmp_path / "notebooks", tmp_path / "lab"


def write(path: Path, source: str, output: str | None = None) -> None:
    """A notebook of one cell; one that is there keeps its metadata, as a program that saves it does."""
    notebook = nbformat.read(path, 4) if path.exists() else nbformat.v4.new_notebook()
    outputs = [] if output is None else [nbformat.v4.new_output("stream", text=output)]
    notebook.cells = [nbformat.v4.new_code_cell(source, outputs=outputs, id="cell")]
    nbformat.write(notebook, path)


def read(path: Path) -> str:
    return nbformat.read(path, 4).cells[0].source


def test_what_was_run_and_saved_keeps_its_outputs_until_the_original_changes(folders):
    source, target = folders
    assert lab.copy_notebooks(source, target) == []
    write(target / "one.ipynb", "1 + 1", output="2")
    before = (target / "one.ipynb").read_bytes()
    assert lab.copy_notebooks(source, target) == []
    assert (target / "one.ipynb").read_bytes() == before
    write(source / "one.ipynb", "1 + 2")
    assert lab.copy_notebooks(source, target) == []
    assert read(target / "one.ipynb") == "1 + 2"


def test_what_somebody_wrote_is_never_overwritten(folders):
    source, target = folders
    lab.copy_notebooks(source, target)
    write(target / "one.ipynb", "1 + 1  # mine")
    assert lab.copy_notebooks(source, target) == []
    for number, name in ((2, "one.new.ipynb"), (3, "one.new.ipynb")):
        write(source / "one.ipynb", f"1 + {number}")
        (sentence,) = lab.copy_notebooks(source, target)
        assert "lab/one.ipynb is left as you changed it" in sentence
        assert f"see {name}" in sentence
        assert (read(target / "one.ipynb"), read(target / name)) == ("1 + 1  # mine", f"1 + {number}")
    write(target / "one.new.ipynb", "mine as well")
    write(source / "one.ipynb", "1 + 4")
    assert "see one.new2.ipynb" in lab.copy_notebooks(source, target)[0]
    assert read(target / "one.new.ipynb") == "mine as well"


def test_a_file_that_is_no_notebook_any_more_is_left(folders):
    source, target = folders
    target.mkdir()
    (target / "one.ipynb").write_text("half a note")
    assert "is left as you changed it" in lab.copy_notebooks(source, target)[0]
    assert (target / "one.ipynb").read_text() == "half a note"
    assert read(target / "one.new.ipynb") == "1 + 1"


def test_git_sees_no_copy():
    asked = ["git", "check-ignore", "--quiet", "lab/00_tour.ipynb"]
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    assert subprocess.run(asked, cwd=ROOT).returncode == 0
