"""Malformed data of one's own: folders, columns, rows, pictures and settings, through the importer that data=hub calls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.user_data import open_collection
from tests.malformed.standard import Attempt, Case, assert_refused, table
from tests.own_data import draw_pictures, make_rows, write_lines

NAMES = compose_job("train", ["data=hub", "data.path=none"]).data.columns
SKIP = r"data\.on_bad_row=skip"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


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


def damage(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder: Path) -> None:
    whole = (folder / "images" / "004.png").read_bytes()
    (folder / "images" / "004.png").write_bytes(whole[: len(whole) // 2])


def animate(folder: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "images" / "003.gif", save_all=True, append_images=frames[1:])


def second_file(folder: Path) -> None:
    (folder / "more.jsonl").write_text((folder / "rows.jsonl").read_text())


def parquet(rows: Any, name: str, size: int | None = None) -> Any:
    def prepare(folder: Path) -> Attempt:
        datasets.Dataset.from_list(rows).to_parquet(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:size])
        return opened(folder, folder)

    return prepare


ROW_1, LINE_2 = r"rows\.jsonl, row rows\.jsonl:2: ", r"row rows\.jsonl:2"
BLOCKS = ("messages", 0, "content")


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
    # rows
    Case(
        "column-missing",
        own("caption", lambda rows: rows[1].pop("caption")),
        ROW_1,
        r"lacks \['caption'\], it has",
        f"Add what .*{SKIP}",
    ),
    Case(
        "caption-a-number",
        own("caption", put(1, "caption", 7)),
        ROW_1,
        r"caption holds '7' \(int\), expected a text",
        f"Correct .*{SKIP}",
    ),
    Case(
        "caption-empty",
        own("caption", put(1, "caption", "  ")),
        ROW_1,
        "caption holds '  ', expected a text with a word",
        "or remove",
    ),
    Case(
        "id-twice",
        own("caption", put(1, "id", "row-0")),
        ROW_1,
        r"id 'row-0' is that of row rows\.jsonl:1 too, expected",
        "Rename one",
    ),
    Case(
        "answers-fewer",
        own("vqa", put(1, "answer", ["one"])),
        ROW_1,
        "2 questions in question, 1 answers in answer, expected as",
        "Correct",
    ),
    Case(
        "answer-nothing",
        own("vqa", put(1, "answer", ["one", None])),
        ROW_1,
        "holds nothing, expected a text",
        "Correct the row",
    ),
    Case(
        "turn-malformed",
        own("vqa", each(lambda row: row.update(turns=[{"q": row.pop("question"), "a": row.pop("answer")}]))),
        r"row rows\.jsonl:1",
        r"turns\[0\] is .*expected an object with the keys 'question' and 'answer'",
        "Rename them",
    ),
    Case(
        "unknown-role",
        own("chat", put(1, "messages", 0, "role", "system")),
        ROW_1,
        r"messages\[0\] has the role 'system', expected 'user'",
        "into the user's first message",
    ),
    Case(
        "no-answer",
        own("chat", lambda rows: rows[1]["messages"].pop()),
        ROW_1,
        "ends with the user, expected the assistant",
        "Add the ans",
    ),
    Case(
        "placeholders-differ",
        own("chat", put(1, "images", ["images/000.png", "images/001.jpg"])),
        ROW_1,
        r"1 blocks .* take a picture, and images holds 2, expected as many",
        "Add what is missing",
    ),
    Case(
        "placeholder-in-text",
        own("chat", put(1, "messages", 0, "content", "<image> What is it?")),
        ROW_1,
        "0 blocks .* images holds 1",
        r"placeholder inside a text \(<image>\) is a block",
    ),
    Case(
        "unknown-block",
        own("chat", put(1, *BLOCKS, 0, {"type": "audio"})),
        ROW_1,
        "holds .*audio.*expected blocks of type",
        "Rename it",
    ),
    Case(
        "content-nothing",
        own("chat", put(1, "messages", 1, "content", None)),
        ROW_1,
        "holds nothing, expected a list",
        "Correct the row",
    ),
    Case(
        "lists-differ",
        own("interleaved", put(1, "texts", ["one"])),
        ROW_1,
        "4 places in images, 1 in texts, expected one",
        "Correct",
    ),
    Case(
        "place-of-both",
        own("interleaved", put(1, "texts", 1, "both")),
        ROW_1,
        "place 1 .*a picture and a text, expected one",
        "Correct",
    ),
    Case(
        "place-of-none",
        own("interleaved", put(1, "texts", 0, None)),
        ROW_1,
        "place 0 .*holds nothing, expected one",
        "Correct the row",
    ),
    # pictures
    Case(
        "picture-missing",
        own("caption", put(1, "image", "images/kite.png")),
        ROW_1,
        r"'images/kite\.png' is not there: expected",
        "Add it",
    ),
    Case(
        "picture-outside",
        own("caption", put(1, "image", "../secret.png")),
        ROW_1,
        r"'\.\./secret\.png' lies outside of",
        "Copy it",
    ),
    Case(
        "picture-absolute",
        own("caption", put(1, "image", "/etc/hostname")),
        ROW_1,
        "'/etc/hostname' lies outside of",
        "folder above",
    ),
    Case(
        "picture-address",
        own("caption", put(1, "image", "https://example.org/a.png")),
        ROW_1,
        "is an address, expected a file",
        "Download",
    ),
    Case(
        "picture-a-number",
        own("caption", put(1, "image", 5)),
        ROW_1,
        r"given as '5' \(int\), expected the path",
        "Correct the row",
    ),
    Case(
        "picture-nothing",
        own("caption", put(1, "image", None)),
        ROW_1,
        "given as nothing, expected the path",
        f"Correct.*{SKIP}",
    ),
    Case(
        "picture-no-image",
        own("caption", keep, damage("images/001.jpg", b"hello")),
        r"Image images/001\.jpg",
        "not readable",
        SKIP,
    ),
    Case(
        "picture-empty",
        own("caption", keep, damage("images/001.jpg", b"")),
        r"Image images/001\.jpg",
        "0 bytes",
        f"convert or.*{SKIP}",
    ),
    Case(
        "picture-cut", own("caption", keep, cut), r"Image images/004\.png", "damaged or cut short.*expected a whole file", SKIP
    ),
    Case("picture-animated", own("caption", keep, animate), r"Image images/003\.gif", "holds 2 frames", SKIP),
    # settings, and what is left
    Case(
        "share-over-one",
        own("caption", keep, held_out=1.5),
        r"data\.held_out is 1\.5",
        "expected a share between 0 and 1",
        "Set it",
    ),
    Case("no-limit", own("caption", keep, limit=0), r"data\.limit is 0", "expected at least 1 row", r"Set data\.limit"),
    Case(
        "unknown-fit", own("caption", keep, fit="stretch"), r"data\.fit is 'stretch'", "expected crop or pad", r"set data\.fit="
    ),
    Case(
        "no-square",
        own("caption", keep, image_size=(32, 64)),
        r"\(32, 64\) pixels",
        "expected a square",
        r"vision_tokenizer\.image_size",
    ),
    Case(
        "one-picture-only",
        own("caption", each(lambda row: row.update(image="images/000.png"))),
        r"rows\.jsonl: 6 documents",
        "0 are for 'train', expected at least 1",
        "other pictures",
    ),
    Case(
        "nothing-left",
        own("caption", each(lambda row: row.update(caption="")), on_bad_row="skip"),
        r"rows\.jsonl: 0 documents",
        r"of 6 rows \(left out: \{'empty text': 6\}\)",
        "add rows",
    ),
)
def test_data_of_ones_own_is_refused(case: Case, tmp_path: Path) -> None:
    assert_refused(case, tmp_path / "own")
    assert not list((tmp_path / "cache").rglob("*.parquet")), "nothing is left of an import that was refused"
