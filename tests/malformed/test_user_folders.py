"""Malformed folders of data of one's own, their files, and columns that fit no kind of document or several."""

from pathlib import Path
from typing import Any

import datasets

from tests.malformed.own_rows import SKIP, assert_data_refused, each, keep, opened, own
from tests.malformed.standard import Attempt, Case, table
from tests.own_data import write_lines


def second_file(folder: Path) -> None:
    (folder / "more.jsonl").write_text((folder / "rows.jsonl").read_text())


def parquet(rows: Any, name: str, size: int | None = None) -> Any:
    def prepare(folder: Path) -> Attempt:
        datasets.Dataset.from_list(rows).to_parquet(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:size])
        return opened(folder, folder)

    return prepare


LINE_2 = r"row rows\.jsonl:2"


@table(
    # the folder and its files
    Case(
        "no-such-folder",
        lambda f: opened(f / "nowhere", f),
        r"data\.path=.*nowhere",
        "no such file or folder. Expected",
        "Check the path",
    ),
    Case(
        "empty-folder",
        lambda f: opened(f, f),
        r"data\.path=",
        "files of rows none, expected one",
        r"name the file as data\.path",
    ),
    Case(
        "two-files-of-rows",
        own("caption", keep, second_file),
        r"data\.path=",
        r"more\.jsonl, rows\.jsonl, expected one",
        "as data.split",
    ),
    Case(
        "rows-without-lines",
        own("caption", list.clear),
        r"columns \[\]",
        "fit no kind of document. Expected",
        r"data\.columns\.<role>=",
    ),
    Case(
        "a-table-of-text",
        lambda f: opened(write_lines(f, [], "rows.csv") / "rows.csv", f),
        r"rows\.csv",
        r"of the kind \.csv, expected one of \.jsonl",
        "one JSON object per line",
    ),
    Case(
        "parquet-cut",
        parquet([{"image": "a.png", "caption": "b"}] * 50, "rows.parquet", 300),
        r"rows\.parquet is damaged",
        "300 bytes",
        "download it again",
    ),
    Case(
        "parquet-shard-missing",
        parquet([{"image": "a.png", "caption": "b"}], "train-00000-of-00002.parquet"),
        "holds 1 files",
        "expected 2",
        "Download or export the missing",
    ),
    Case(
        "no-such-split",
        own("caption", keep, held_out="test"),
        r"data\.path=",
        r"rows\.jsonl, expected.*'train': train\.jsonl",
        "data.split",
    ),
    Case(
        "line-cut",
        own("caption", lambda rows: rows.insert(1, '{"image": "ima')),
        LINE_2,
        "no JSON.*expected one object per line",
        SKIP,
    ),
    Case(
        "line-a-list",
        own("caption", lambda rows: rows.insert(1, "[1, 2]")),
        LINE_2,
        "a list, expected an object",
        f"Correct.*{SKIP}",
    ),
    # columns and kinds
    Case(
        "no-known-columns",
        own("caption", each(lambda row: row.update(says=row.pop("caption")))),
        r"columns \['id', 'image', 'says'\]",
        "fit no kind.*caption is called caption or text",
        r"data\.columns\.<role>=<column>",
    ),
    Case(
        "two-kinds",
        own("vqa", each(lambda row: row.update(text="a kite"))),
        "columns .*'text'",
        "caption .* or vqa .*expected one reading",
        r"set data\.kind",
    ),
    Case(
        "two-captions",
        own("caption", each(lambda row: row.update(text="a kite"))),
        r"\['caption', 'text'\]",
        "could both be the caption",
        r"set data\.columns\.caption=caption",
    ),
    Case(
        "unknown-kind",
        own("caption", keep, kind="video"),
        "'video'",
        "expected one of caption, vqa, chat, interleaved",
        r"set data\.kind=",
    ),
    Case(
        "kind-of-others",
        own("caption", keep, kind="chat"),
        r"\['id', 'image', 'caption'\]",
        "chat: messages, where messages is called",
        "name a column",
    ),
)
def test_a_malformed_folder_is_refused(case: Case, tmp_path: Path) -> None:
    assert_data_refused(case, tmp_path)
