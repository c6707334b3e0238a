"""Copies of the notebooks to work in, so that running and saving them leaves the repository as it is. `make lab` calls it first.

A copy remembers which cells it was made of. One whose cells are as they were is brought up to date; one that somebody has changed is
left as it is, and where its original has changed too, that is said and the new one is put beside it. Nothing that somebody wrote is
overwritten.
"""

import hashlib
import json
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
LAB = HERE.parent / "lab"
ORIGIN = "plait_origin"
"""key of a copy's metadata: the cells that it was made of"""


def copy_notebooks(source: Path = HERE, target: Path = LAB) -> list[str]:
    """Copy what is new.

    Returns:
        a sentence for everything that is not as somebody might expect it.
    """
    target.mkdir(parents=True, exist_ok=True)
    said = []
    for path in sorted(source.glob("*.ipynb")):
        original, place = nbformat.read(path, 4), target / path.name
        cells = hash_cells(original)
        if place.exists():
            copy = _read(place)
            known = copy.metadata.get(ORIGIN) if copy else None
            if copy is not None and hash_cells(copy) == cells:
                continue  # as it was, with whatever outputs it has
            if copy is None or hash_cells(copy) != known:
                if known != cells:
                    place = _place_beside(place, cells, original)
                    said += [
                        f"{target.name}/{path.name} is left as you changed it. What it came from has changed since: see {place.name}."
                    ]
                continue
        _write(original, cells, place)
    return said


def hash_cells(notebook: nbformat.NotebookNode) -> str:
    """sha256 of what is written in the cells, without outputs."""
    written = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()


def _read(place: Path) -> nbformat.NotebookNode | None:
    try:
        return nbformat.read(place, 4)
    except (OSError, ValueError):
        return None  # no notebook any more: not ours to replace


def _write(notebook: nbformat.NotebookNode, cells: str, place: Path) -> None:
    notebook.metadata[ORIGIN] = cells
    beside = place.with_name(f".{place.name}.tmp")
    nbformat.write(notebook, beside)
    beside.replace(place)


def _place_beside(place: Path, cells: str, original: nbformat.NotebookNode) -> Path:
    """`05_workbench.new.ipynb`, unless that was changed as well: then the next number."""
    number = 1
    while True:
        other = place.with_name(f"{place.stem}.new{number if number > 1 else ''}.ipynb")
        copy = _read(other) if other.exists() else None
        if copy is not None and copy.metadata.get(ORIGIN) == cells:
            return other
        if not other.exists() or (copy is not None and hash_cells(copy) == copy.metadata.get(ORIGIN)):
            _write(original, cells, other)
            return other
        number += 1


if __name__ == "__main__":
    for sentence in copy_notebooks():
        print(sentence, file=sys.stderr)
