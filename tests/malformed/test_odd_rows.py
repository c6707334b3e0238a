"""Odd strings and odd files in rows of one's own: the row is refused by name, or left out and counted, and nothing outside is read."""

import json
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from plait.data.importing import _locate
from plait.data.kinds import LONGEST, BadRow
from plait.errors import DocumentError
from plait.images import open_image
from tests.malformed.own_rows import opened
from tests.malformed.own_rows import put as put_in
from tests.malformed.test_images import encoded
from tests.own_data import draw_pictures, make_rows, write_lines

HALF, LONG = "half \ud83d", "x" * (LONGEST + 1)


def write(folder: Path, kind: str, *change: Any) -> Path:
    """Ten rows, of which the second is changed."""
    rows = make_rows(kind, draw_pictures(folder, 10))
    put_in(1, *change)(rows)
    write_lines(folder, rows)
    return folder


@pytest.mark.parametrize(
    ("kind", "change", "finding", "reason"),
    [
        ("caption", ("caption", HALF), r"caption holds half of a surrogate pair \('\\ud83d'\)", "no plain text"),
        ("caption", ("caption", "a\x00b"), r"caption holds a control character \('\\x00'\)", "no plain text"),
        ("caption", ("caption", "a\x1b[2Jb"), "caption holds a control character", "no plain text"),
        ("caption", ("caption", LONG), "caption has 1,000,001 characters, expected at most", "text too long"),
        ("caption", ("caption", ["a kite", HALF]), r"caption\[1\] holds half", "no plain text"),
        ("caption", ("id", HALF), "id holds half", "no plain text"),
        ("caption", ("image", f"images/{HALF}.png"), "image holds half", "no plain text"),
        ("caption", ("image", "images/\x00.png"), "image holds a control", "no plain text"),
        ("caption", ("image", "images/" + "x" * 5_000), "cannot be looked up", "missing picture"),
        ("caption", ("image", {"path": HALF}), r"image\.path holds half", "no plain text"),
        ("caption", ("image", {"bytes": "/etc/hostname"}), r"bytes of a picture are given as '/etc/hostname' \(str\)", "no picture"),
        ("caption", ("image", {"bytes": [137, 80]}), r"given as '\[137, 80\]' \(list\)", "no picture"),
        ("vqa", ("question", 0, HALF), r"question\[0\] holds half", "no plain text"),
        ("vqa", ("answer", 1, HALF), r"answer\[1\] holds half", "no plain text"),
        ("chat", ("messages", 1, "content", HALF), r"messages\[1\]\.content holds half", "no plain text"),
        ("chat", ("messages", 1, HALF, "x"), r"a key of messages\[1\] holds half", "no plain text"),
        ("chat", ("messages", 1, "content", json.loads("[" * 30 + "]" * 30)), "more than 20 levels deep", "too deep"),
        ("interleaved", ("texts", 1, HALF), r"texts\[1\] holds half", "no plain text"),
    ],
)  # fmt: skip
def test_an_odd_string_is_refused_with_its_row_or_counted(tmp_path, kind, change, finding, reason) -> None:
    folder = write(tmp_path / "own", kind, *change)
    with pytest.raises(DocumentError, match=rf"row rows\.jsonl:2: {'.*'}{finding}.*data\.on_bad_row=skip"):
        opened(folder, folder)()
    collection = opened(folder, folder, on_bad_row="skip")()
    assert collection.manifest["rows"] == {"read": 10, "left_out": {reason: 1}}


def test_a_line_without_an_end_to_its_brackets_is_no_json(tmp_path) -> None:
    folder = write(tmp_path / "own", "caption", "id", "one")
    with (folder / "rows.jsonl").open("a") as file:
        file.write("[" * 100_000 + "\n")
    assert opened(folder, folder, on_bad_row="skip")().manifest["rows"]["left_out"] == {"no JSON": 1}


def test_pipes_loops_and_devices_are_no_pictures(tmp_path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    for name, finding in {"pipe.png": "is not there", "loop.png": "cannot be looked up", "zero.png": "lies outside"}.items():
        with pytest.raises(BadRow, match=finding):
            _locate(name, folder)
    for path in (folder / "pipe.png", "/dev/zero"):
        with pytest.raises(DocumentError, match="it is a pipe, a socket or a device, expected a file"):
            open_image(path)


def test_a_path_without_a_folder_reads_what_the_hub_has_put_there_alone(tmp_path, monkeypatch) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(Image.new("RGB", (4, 4))))
    with pytest.raises(BadRow, match="a Hub dataset has no folder"):
        _locate({"path": str(secret)}, None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert _locate({"path": str(secret)}, None)[0] == secret


def test_a_snapshot_of_the_hub_is_a_folder_like_others(tmp_path) -> None:
    """Its files are links into the store beside it; a link to anywhere else stays outside."""
    store, snapshot = tmp_path / "datasets--a--b" / "blobs", tmp_path / "datasets--a--b" / "snapshots" / "0f3c" / "data"
    store.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (store / "c0ffee").write_bytes(encoded(Image.new("RGB", (4, 4))))
    (tmp_path / "else.png").write_bytes(b"")
    (snapshot / "a.png").symlink_to(store / "c0ffee")
    (snapshot / "b.png").symlink_to(tmp_path / "else.png")
    assert _locate("a.png", snapshot)[0] == store / "c0ffee"
    with pytest.raises(BadRow, match="lies outside of"):
        _locate("b.png", snapshot)


@pytest.mark.parametrize(("palette", "known"), [(None, 0), (b"", 0), (bytes(range(12)), 4)])
def test_a_colour_that_the_palette_lacks_is_not_black(palette, known) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0))
    colours = b"" if palette is None else chunk(b"PLTE", palette)
    data = header + colours + chunk(b"IDAT", zlib.compress(bytes([0, 0, 4, 0, 1, 2]))) + chunk(b"IEND", b"")
    with pytest.raises(DocumentError, match=f"colours up to number 4, and its palette has {known}, expected all"):
        open_image(b"\x89PNG\r\n\x1a\n" + data)


def test_a_small_file_does_not_take_gigabytes() -> None:
    """A picture of one colour, of 4 million pixels with transparency, is 4 kB; blended as a whole it took 72 bytes for each."""
    data = encoded(Image.new("RGBA", (2_000, 2_000), (10, 200, 30, 128)))
    tracemalloc.start()
    picture = open_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) < 40_000
    assert peak / 4e6 < 30
    assert picture.getcolors() == [(4_000_000, tuple(int((1 - 128 / 255) * 255 + 128 / 255 * one) for one in (10, 200, 30)))]
