"""Where rows of other people come from: a folder or file of JSON lines or parquet, or a dataset of the Hub; one row after the other.

A folder holds its rows in one file (or in parquet shards) with its pictures beside it. Where it has several, `<split>.jsonl` or
`<split>*.parquet` is taken. JSON lines are read by ourselves and not by `datasets`: a column may then hold a text in one row and a
list in the next, and an error names the line. It does not know what the columns mean.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from plait.data.hub import load_table
from plait.data.kinds import BadRow
from plait.errors import DocumentError, RecipeError

LINES, PARQUET = (".jsonl", ".ndjson"), ".parquet"
FIRST_ROWS = 1_000
"""rows of a file of JSON lines whose columns are counted as those of the table"""


@dataclass(frozen=True)
class Table:
    """Raw rows.

    Args:
        title: what messages call it.
        folder: to which paths of pictures are relative; None where rows bring their pictures along.
        columns: their names.
        rows: starts over: (name of the row, its columns, or the `BadRow` that stands in its place).
        state: changes when the rows or the files beside them do.
    """

    title: str
    folder: Path | None
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[tuple[str, Any]]]
    state: str


def open_table(
    path: str,
    split: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    is_named: bool = False,
) -> Table:
    """The rows of a split.

    Args:
        path: folder, file, or name on the Hub.
        split: of the data; a folder with a single file of rows needs none.
        name, revision, streaming: of a Hub dataset (see `plait.data.hub.load_table`).
        is_named: the split must be told by the name of a file.

    Raises:
        RecipeError: nothing is there, or it is not clear which file is meant.
        DocumentError: a parquet file is damaged.
    """
    place = Path(path)
    if not place.exists():
        if place.suffix in (*LINES, PARQUET) or place.is_absolute() or path.count("/") > 1:
            raise RecipeError(
                f"data.path={path}: there is no such file or folder. Expected one, or a Hub name. Check the path."
            )
        table = load_table(path, split, name, revision, streaming)
        return Table(f"{path} ({split})", None, _columns(table), lambda: _number(table, split), f"{name} {revision}")
    if place.is_file() and place.suffix not in (*LINES, PARQUET):
        raise RecipeError(
            f"data.path={path} is a file of the kind {place.suffix or 'without a name'}, expected one of {', '.join((*LINES, PARQUET))}. "
            "Next: write one JSON object per line into a .jsonl file."
        )
    files = [place] if place.is_file() else _choose_files(place, split, is_named)
    folder = place.parent if place.is_file() else place
    if files[0].suffix == PARQUET:
        table = load_table(files, split)
        return Table(str(place), folder, _columns(table), lambda: _number(table, files[0].name), _state(folder))
    (file,) = files
    firsts = [row for _, row in islice(_read_lines(file), FIRST_ROWS) if isinstance(row, Mapping)]
    columns = tuple(dict.fromkeys(key for row in firsts for key in row))
    return Table(str(file), folder, columns, lambda: _read_lines(file), _state(folder))


def _choose_files(folder: Path, split: str, is_named: bool) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix in (*LINES, PARQUET))
    named = [path for path in found if path.stem == split or path.stem.startswith(f"{split}-")]
    chosen = named or ([] if is_named else found)
    shards = [path for path in chosen if path.suffix == PARQUET]
    if not chosen or (len(chosen) > 1 and len(shards) < len(chosen)) or (len(shards) > 1 and not named):
        names = ", ".join(path.name for path in found) or "none"
        raise RecipeError(
            f"data.path={folder} holds the files of rows {names}, expected one, or those of the split {split!r}: {split}.jsonl or "
            f"{split}*.parquet. Next: name the file as data.path, or the split as data.split."
        )
    return chosen


def _read_lines(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                name = f"{file.name}:{number}"
                try:
                    yield name, json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield name, BadRow("no JSON", f"it is no JSON ({error}), expected one object per line. Correct the line.")


def _number(table: Any, name: str) -> Iterator[tuple[str, Any]]:
    number = -1
    try:
        for number, row in enumerate(table):
            yield f"{name}:{number}", row
    except (ValueError, OSError) as error:  # what a file holds from there on cannot be told apart any more
        raise DocumentError(
            f"{name}, behind row {number}: the rows cannot be read ({str(error).splitlines()[0]}). Expected whole parquet with text in "
            "UTF-8. Next: export or download it again."
        ) from error


def _columns(table: Any) -> tuple[str, ...]:
    names = table.column_names  # a stream of unknown columns says None
    return tuple(names or next(iter(table), {}))


def _state(folder: Path) -> str:
    """Names, sizes and times of all files: pictures change as well as rows."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
