"""The notebooks are essays that run: clean in git, short in their cells, and executed here on small runs.

Two branches are taken on purpose: with a finished demo (here the sketch stands in for it) and without one.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ONE_THREAD

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUNS = {"50_compare": "sketches", "31_synergen_vl": "synergen_vl_sketch"}
"""notebook -> fixture of the run that it reads; the others read sketch_run"""
WITH_DEMO = ("00_tour", "10_tokenizer")
SCALE_LINE = 'SCALE = os.environ.get("PLAIT_SCALE", "tiny")'
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_tour",
        "05_workbench",
        "10_tokenizer",
        "15_your_data",
        "20_sequences_and_loss",
        "30_liquid",
        "31_synergen_vl",
        "50_compare",
    ]


@each
def test_no_outputs_are_committed(path: Path):
    for number, cell in enumerate(nbformat.read(path, 4).cells):
        if cell.cell_type == "code":
            assert not cell.outputs, f"cell {number} of {path.name} holds outputs: clear them"
            assert cell.execution_count is None, f"cell {number} of {path.name} holds an execution count: clear it"


@each
def test_reads_like_an_essay(path: Path):
    cells = nbformat.read(path, 4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    opening, closing = cells[0], cells[-1]
    assert opening.cell_type == closing.cell_type == "markdown"
    assert opening.source.startswith("# ")
    assert "**Question.**" in opening.source
    method = re.search(r"\*\*Method\.\*\*(.*?)\n\n", opening.source, re.S)
    assert len(re.findall(r"\.(?:\s|$)", re.sub(r"\([^)]*\)", "", method[1]))) == 3, "the method is told in three sentences"
    assert "**What to look at.**" in closing.source
    assert SCALE_LINE in code[0]
    long = {number: length for number, source in enumerate(code) if (length := len(source.splitlines())) > 12}
    assert not long, f"code cells of {path.name} with more than 12 lines (number: lines): {long}"


def written(run: Path) -> dict[Path, int]:
    """When each file of a run was written last; without the logs of wandb's own process, which outlives the job by seconds."""
    return {file: file.stat().st_mtime_ns for file in run.rglob("*") if "logs" not in file.relative_to(run).parts}


@each
@pytest.mark.slow
def test_runs(path: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shared: Path = request.getfixturevalue(RUNS.get(path.stem, "sketch_run"))
    has_demo = path.stem in WITH_DEMO
    settings = {
        "PLAIT_SCALE": "tiny",
        "PLAIT_RUN": shared,
        "PLAIT_MULTIRUN": shared,
        "PLAIT_DEMO": shared if has_demo else tmp_path / "no-demo",
        "PLAIT_SYNERGEN_VL": tmp_path / "no-demo",
        # one thread, nothing of the person's own profile, and plait from this tree
        **ONE_THREAD,
        "IPYTHONDIR": tmp_path,
        "PYTHONPATH": ROOT,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    before = written(shared)
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    assert before == written(shared), f"{path.name} writes into a run"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = {kind for output in code[-1].outputs for kind in output.get("data", {})}
    assert shown & {"image/png", "text/html"}, f"{path.name} ends in {shown or 'nothing'}, expected a picture or a table"
    printed = "".join(output.text for cell in code for output in cell.outputs if output.output_type == "stream")
    if path.stem in ("00_tour", "30_liquid", "31_synergen_vl"):
        assert (": the demo" in printed) == has_demo
        assert ("a sketch, trained for less than a minute" in printed) != has_demo, "a sketch must be called a sketch"
    if path.stem == "05_workbench":
        assert "stopped: stopped by SIGINT" in printed
        assert "steps in order, each once: True and equal: True" in printed
    if path.stem == "50_compare":
        assert "are not one configuration" in printed
        assert "holds no evaluation" in printed
    if path.stem == "31_synergen_vl":
        assert "text after align_1 is bit for bit that of the base: True" in printed
        assert "8 through the vision experts" in printed
    if path.stem == "10_tokenizer":
        assert "of the demo" in printed
