"""Malformed pictures of data of one's own, settings that cannot be, and data of which nothing is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.malformed.own_rows import SKIP, assert_data_refused, each, keep, own, put
from tests.malformed.standard import Case, table


def damage(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder: Path) -> None:
    whole = (folder / "images" / "004.png").read_bytes()
    (folder / "images" / "004.png").write_bytes(whole[: len(whole) // 2])


def animate(folder: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "images" / "003.gif", save_all=True, append_images=frames[1:])


ROW_1 = r"rows\.jsonl, row rows\.jsonl:2: "


@table(
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
    Case("unknown-fit", own("caption", keep, fit="stretch"), r"fit is 'stretch'", "expected crop or pad", r"set data\.fit"),
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
def test_malformed_pictures_and_settings_are_refused(case: Case, tmp_path: Path) -> None:
    assert_data_refused(case, tmp_path)
