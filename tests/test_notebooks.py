"""The notebooks are essays that run: clean in git, short in their cells, and executed here as copies on small runs: one of the demo's own
kind, a multirun of the sketches with all of its arms, and a sketch of SynerGen-VL.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ONE_THREAD

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OTHERS = {"50_compare": ("PLAIT_MULTIRUN", "sketches"), "31_synergen_vl": ("PLAIT_RUN", "synergen_vl_sketch")}
"""notebook -> variable and fixture of the run that it reads; the others find outputs/demo of the project by themselves"""
PICTURES = {"image/png", "image/jpeg"}
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
    assert not any("chdir" in source or "sys.path" in source for source in code)
    assert any("open_run(" in source for source in code), "a desk is the way in"
    long = {number: length for number, source in enumerate(code) if (length := len(source.splitlines())) > 12}
    assert not long, f"code cells of {path.name} with more than 12 lines (number: lines): {long}"


def written(run: Path) -> dict[Path, int]:
    """When each file of a run was written last; without the cache, which all share, and the logs of wandb's own process, which outlives
    the job by seconds."""
    apart = {"logs", "cache"}
    return {
        file: file.stat().st_mtime_ns
        for file in run.rglob("*")
        if file.is_file() and apart.isdisjoint(file.relative_to(run).parts)
    }


def count_imported(sources: list[str]) -> int:
    """Names that cells import."""
    nodes = [
        node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return sum(len(node.names) for node in nodes)


def is_picture(output: nbformat.NotebookNode) -> bool:
    """Whether a reader sees a picture: an image, or HTML with one."""
    data = output.get("data", {})
    return bool(PICTURES & set(data)) or "<img" in data.get("text/html", "")


@each
@pytest.mark.slow
def test_runs(path: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project: Path = request.getfixturevalue("project")
    variable, fixture = OTHERS.get(path.stem, (None, "project"))
    shared: Path = request.getfixturevalue(fixture)
    # one thread, nothing of the person's own profile, and plait from this tree
    settings = {"PLAIT_SCALE": "tiny", **ONE_THREAD, "IPYTHONDIR": tmp_path, "PYTHONPATH": ROOT}
    settings |= {} if variable is None else {variable: shared}
    for name in ("PLAIT_RUN", "PLAIT_MULTIRUN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    lab = project / "lab"
    lab.mkdir(exist_ok=True)
    runs = project / "outputs" if fixture == "project" else shared  # what a notebook makes of its own lies in lab/
    before, original = written(runs), path.read_bytes()
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(lab)}}).execute()
    assert before == written(runs), f"{path.name} writes into a run"
    assert path.read_bytes() == original
    assert not list(lab.iterdir()), "it writes beside itself"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first = next(number for number, cell in enumerate(code) if any(map(is_picture, cell.outputs)))
    assert count_imported([cell.source for cell in code[: first + 1]]) <= 5
    shown = {kind for output in code[-1].outputs for kind in output.get("data", {})}
    assert shown & {"image/png", "text/html"}, f"{path.name} ends in {shown or 'nothing'}, expected a picture or a table"
    printed = "".join(output.text for cell in code for output in cell.outputs if output.output_type == "stream")
    assert "Traceback" not in printed
    for sentence in SAID.get(path.stem, ()):
        assert sentence in printed
    if path.stem not in ("15_your_data", "50_compare"):
        assert f"{shared if variable else '../outputs/demo'}: curriculum " in printed


SAID = {
    "00_tour": ["figures lie above the best blind answer with their whole interval"],
    "05_workbench": ["stopped: stopped by SIGINT", "steps in order, each once: True and equal: True"],
    "10_tokenizer": ["plait-train experiment=liquid/tokenizer", "The same codes as on the left: left"],
    "20_sequences_and_loss": ["read back alike: True"],
    "31_synergen_vl": ["text after align_1 is bit for bit that of the base: True", "8 through the vision experts"],
    "50_compare": ["are not one configuration", "holds no evaluation"],
}
"""notebook -> what it has to print"""
