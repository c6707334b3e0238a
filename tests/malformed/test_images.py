"""Malformed images: through the loader, the geometry before a tensor, and the tokenizers."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from plait.images import crop_centre, open_image, pad_square, to_pictures, to_tensor
from plait.tokenizers.encoding import write_codes
from plait.tokenizers.patch_fsq import PatchFSQ
from plait.tokenizers.vqgan import VQGAN
from tests.malformed.standard import Attempt, Case, assert_refused, table

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def overwrite(data: bytes, by: bytes) -> bytes:
    """The same file with other bytes in its middle."""
    at = (len(data) - len(by)) // 2
    return data[:at] + by + data[at + len(by) :]


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds no pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def file(name: str, data: bytes, then: Callable[[Image.Image], Any] = lambda image: image, **options: Any) -> Any:
    def prepare(folder: Path) -> Attempt:
        (folder / name).write_bytes(data)
        return lambda: then(open_image(folder / name, **options))

    return prepare


def tiny_tokenizer() -> PatchFSQ:
    torch.manual_seed(0)
    return PatchFSQ(image_size=(32, 32), width=16, encoder_depth=1, decoder_depth=1, num_heads=1, levels=(4, 4))


def encode(pictures: torch.Tensor) -> Any:
    """Pictures that a cache of codes is to be written of."""

    def prepare(folder: Path) -> tuple[Attempt, torch.nn.Module]:
        tokenizer = tiny_tokenizer()
        return lambda: write_codes(folder / "codes", tokenizer, ["first"], lambda names: pictures), tokenizer

    return prepare


def tokenize(make: Callable[[], Any], *shape: int) -> Any:
    def prepare(folder: Path) -> tuple[Attempt, torch.nn.Module]:
        tokenizer = make()
        return lambda: tokenizer.encode(torch.zeros(*shape)), tokenizer

    return prepare


def decode(code: int) -> Any:
    def prepare(folder: Path) -> tuple[Attempt, torch.nn.Module]:
        tokenizer = tiny_tokenizer()
        return lambda: tokenizer.decode((torch.full((1, 2, 2), code),)), tokenizer

    return prepare


def tiny_vqgan() -> VQGAN:
    return VQGAN(
        image_size=(32, 32), width=32, multipliers=(1, 1), blocks_per_level=1, latent_channels=8, num_codes=8, code_width=4
    )


JPEG = encoded(PICTURE, "JPEG", quality=95)
FRAMES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
ANIMATION = encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])
NUMBERS = torch.full((1, 3, 32, 32), float("nan"))


@table(
    Case("missing", lambda _: lambda: open_image("nowhere/cat.png"), r"nowhere/cat\.png", "no such file", "Check the path"),
    Case("a-folder", lambda folder: lambda: open_image(folder), "Image .*given", "directory.*Expected one of PNG", "convert"),
    Case("empty", file("empty.png", b""), r"empty\.png", r"\(0 bytes\).*Expected one of PNG", "download it again"),
    Case("text-named-png", file("cat.png", b"a cat, really"), r"cat\.png", "13 bytes that begin with b'a cat,", "convert"),
    Case("other-format", file("c.ico", encoded(PICTURE, "ICO")), r"c\.ico", "Expected one of PNG, JPEG, WEBP", "convert"),
    Case(
        "png-cut", file("c.png", encoded(PICTURE)[:-900]), r"c\.png", "cut short .*expected a whole file", "Download or export"
    ),
    Case("jpeg-cut", file("c.jpg", encoded(PICTURE, "JPEG")[:-600]), r"c\.jpg", r"truncated|cut short", "Download or export"),
    Case(
        "jpeg-with-other-bytes",
        file("c.jpg", overwrite(JPEG, np.random.default_rng(1).bytes(1500))),
        r"c\.jpg",
        r"damaged \(the .* at byte [\d,]+ of [\d,]+ .*expected a whole file",
        "Download or export",
    ),
    Case(
        "jpeg-with-zeros",
        file("c.jpg", overwrite(JPEG, bytes(512))),
        r"c\.jpg",
        r"damaged \(64 zeros after byte [\d,]+ of [\d,]+ .*expected",
        "Download or export",
    ),
    Case(
        "jpeg-of-another-restart",
        file("c.jpg", overwrite(JPEG, b"\xff\xd3")),
        r"c\.jpg",
        "the restart 3 at byte .* is out of turn",
        "Download",
    ),
    Case(
        "jpeg-with-a-long-comment",
        file("c.jpg", overwrite(JPEG, b"\xff\xfe\xff\xff")),
        r"c\.jpg",
        "goes on to byte",
        "Download",
    ),
    Case("webp-cut", file("c.webp", encoded(PICTURE, "WEBP")[:-600]), r"c\.webp", "cut short|not readable", "again"),
    Case(
        "bit-flip", file("c.png", encoded(PICTURE)[:500] + b"\0\0\0\0" + encoded(PICTURE)[504:]), r"c\.png", "damaged", "again"
    ),
    Case(
        "bomb", file("bomb.png", png_header(60_000, 60_000)), r"bomb\.png", r"at most 40,000,000 are decoded", "Scale it down"
    ),
    Case(
        "over-the-cap",
        file("big.png", encoded(PICTURE), max_pixels=3000),
        r"big\.png",
        "64 x 48 = 3,072.*at most 3,000",
        "larger",
    ),
    Case("no-pixel", file("c.png", png_header(0, 5)), r"c\.png", "not readable", "convert or download"),
    Case("animation", file("c.gif", ANIMATION), r"c\.gif", "holds 3 frames", r"Choose one, for example frame=0"),
    Case(
        "no-such-frame",
        file("c.gif", ANIMATION, frame=7),
        r"c\.gif",
        "frame 7 was asked for, it has 3, counted from 0",
        "Choose another",
    ),
    Case(
        "float-pixels",
        file("c.tiff", encoded(Image.new("F", (4, 4)), "TIFF")),
        r"c\.tiff",
        "floating point",
        "Rescale it to 8 or",
    ),
    Case("deep-integers", file("c.tiff", encoded(Image.new("I", (4, 4)), "TIFF")), r"c\.tiff", "32-bit integers", "Rescale"),
    Case(
        "strip-to-crop",
        file("c.png", encoded(Image.new("RGB", (20_000, 1))), lambda image: crop_centre(image, 512)),
        "picture of 20000 x 1",
        "needs 5,242,880,000 pixels .*at most 40,000,000",
        "Cut the strip",
    ),
    Case(
        "strip-to-pad",
        file("c.png", encoded(Image.new("RGB", (1, 20_000))), lambda image: pad_square(image, 64)),
        "picture of 1 x 20000",
        "needs 400,000,000 pixels .*at most 40,000,000",
        "Cut the strip",
    ),
    Case("crop-to-nothing", lambda _: lambda: crop_centre(PICTURE, 0), "64 x 48", "0 x 0: expected .*at least 1", "Check"),
    Case(
        "sizes-mixed",
        lambda _: lambda: to_tensor([PICTURE, PICTURE.rotate(90, expand=True)]),
        "1 of 2",
        "48 x 64, expected",
        "Use",
    ),
    Case(
        "not-finite",
        lambda _: lambda: to_pictures(NUMBERS),
        "to_pictures",
        "3072 values that are not finite",
        "weights are broken",
    ),
    Case("patch-size", tokenize(tiny_tokenizer, 1, 3, 30, 32), "30 x 32", "multiples of the patch, 16", "Resize or pad"),
    Case("vqgan-size", tokenize(tiny_vqgan, 1, 3, 33, 32), "33 x 32", "multiples of 2", "Resize or pad"),
    Case("code-outside", decode(16), "Codes from 16 to 16", "expected 0 to 15", "another tokenizer"),
    Case(
        "codes-of-other-size", encode(torch.zeros(1, 3, 48, 32)), "'first'", r"grids \(3, 2\), expected \(2, 2\)", "must return"
    ),
    Case(
        "codes-of-raw-pixels",
        encode(torch.full((1, 3, 32, 32), 255.0)),
        "'first'",
        "255 to 255, expected -1 to 1",
        "scale them",
    ),
    Case("codes-of-nan", encode(NUMBERS), "'first'", "nan to nan, expected -1 to 1", "scale them"),
)
def test_a_malformed_image_is_refused(case: Case, tmp_path: Path) -> None:
    assert_refused(case, tmp_path / "given")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 1}], ids=str)
@pytest.mark.parametrize(
    "picture", [PICTURE, PICTURE.convert("L"), Image.new("RGB", (640, 640), "white")], ids=["noise", "grey", "white"]
)
def test_a_whole_jpeg_is_not_taken_for_damaged(options: dict[str, Any], picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "whole.jpg"
    path.write_bytes(encoded(picture, "JPEG", exif=b"Exif\0\0" + bytes(400), **options) + b"what a camera appends")
    assert open_image(path).size == picture.size


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("I;16", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("1", "TIFF")])
def test_an_unusual_image_is_read_and_not_refused(mode: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "unusual"
    path.write_bytes(encoded(Image.new(mode, (6, 4)), kind))
    assert (open_image(path).mode, open_image(path).size) == ("RGB", (6, 4))
