"""Malformed data of one's own: six sound rows of a kind, changed, and opened through the importer that data=hub calls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from lightning_modules.composing.user_data import open_collection
from lightning_modules.loops.curriculum import compose_job
from tests.malformed.standard import Attempt, Case, assert_refused
from tests.own_data import draw_pictures, make_rows, write_lines

NAMES = compose_job("train", ["data=hub", "data.path=none"]).data.columns
SKIP = r"data\.on_bad_row=skip"


def opened(path: Path, folder: Path, **settings: Any) -> Attempt:
    chosen = {"kind": None, "columns": NAMES, "image_size": 32, "cache": str(folder.parent / "cache"), **settings}
    return lambda: open_collection(path=str(path), **chosen)


def own(
    kind: str, change: Callable[[list[Any]], Any], then: Callable[[Path], Any] = lambda _: None, /, **settings: Any
) -> Callable[[Path], Attempt]:
    """A folder of six rows, changed (the rows in a list, then the folder), and opened."""

    def prepare(folder: Path) -> Attempt:
        rows = make_rows(kind, draw_pictures(folder, 6))
        change(rows)
        write_lines(folder, rows)
        then(folder)
        return opened(folder, folder, **settings)

    return prepare


def put(number: int, *path: Any) -> Callable[[list[Any]], None]:
    """Sets the value at the path of a row: put(1, "messages", 0, "role", "system")."""

    def change(rows: list[Any]) -> None:
        *way, last, value = path
        place = rows[number]
        for step in way:
            place = place[step]
        place[last] = value

    return change


def each(change: Callable[[dict[str, Any]], Any]) -> Callable[[list[Any]], None]:
    return lambda rows: [change(row) for row in rows] and None


def keep(rows: list[Any]) -> None:
    """Nothing is changed."""


def assert_data_refused(case: Case, folder: Path) -> None:
    """Hold one case to the standard; nothing is left of an import that was refused."""
    datasets.disable_progress_bars()
    try:
        assert_refused(case, folder / "own")
    finally:
        datasets.enable_progress_bars()
    assert not list((folder / "cache").rglob("*.parquet"))
