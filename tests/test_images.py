"""The image loader on files made here, byte by byte where no writer makes them, and on Liquid's own pictures."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image, ImageFile

from plait.errors import DocumentError
from plait.images import MAX_PIXELS, crop_centre, open_image, pad_square, to_pictures, to_rgb, to_tensor
from tests import goldens


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(width: int = 24, height: int = 16, channels: int = 3, seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(array)


def pixels(data: bytes, **options) -> list:
    return np.asarray(open_image(data, **options)).tolist()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_lossless_file_comes_back_as_it_was_saved(tmp_path, file_format):
    picture = noise()
    options = {"lossless": True} if file_format == "WEBP" else {}
    path = tmp_path / "picture"
    path.write_bytes(saved(picture, file_format, **options))
    for opened in (open_image(path), open_image(str(path)), open_image(path.read_bytes())):
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.asarray(picture))


def test_jpeg_of_flat_colour_and_of_print_colours():
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    assert np.abs(np.asarray(open_image(saved(flat, "JPEG", quality=95))).astype(int) - (200, 40, 90)).max() <= 3
    printed = open_image(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert printed.mode == "RGB"
    assert np.asarray(printed)[0, 0, 0] > 200
    assert np.asarray(printed)[0, 0, 1:].max() < 60


def test_sixteen_bit_grey_keeps_its_range_and_does_not_turn_white():
    deep = Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16))
    for data in (saved(deep, "PNG"), saved(deep, "TIFF"), b"P5 4 1 65535\n" + np.asarray(deep).astype(">u2").tobytes()):
        assert [row[0] for row in pixels(data)[0]] == [0, 1, 128, 255]


def test_sixteen_bit_colour_and_alpha_keep_their_upper_byte():
    colour = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x1234, 0x56FF, 0xFFFF))
    assert pixels(colour) == [[[0x12, 0x56, 0xFF]]]
    hidden = png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 0x1234, 0, 0x1234, 65535))
    assert pixels(hidden) == [[[255] * 3, [0x12] * 3]]


def test_hidden_colours_of_every_kind_of_transparency_become_white():
    key = lambda *values: chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))  # noqa: E731
    red_hidden = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    cases = {
        "rgba": (saved(red_hidden, "PNG"), [[[255] * 3]]),
        "webp": (saved(red_hidden, "WEBP", lossless=True, exact=True), [[[255] * 3]]),
        "palette index": (saved(palette, "PNG", transparency=0), [[[255] * 3, [0, 0, 255]]]),
        "palette bytes": (saved(palette, "PNG", transparency=bytes([0, 255])), [[[255] * 3, [0, 0, 255]]]),
        "gif": (saved(palette, "GIF", transparency=0), [[[255] * 3, [0, 0, 255]]]),
        "rgb key": (png(2, 1, 8, 2, bytes([0, 9, 8, 7, 1, 2, 3]), key(9, 8, 7)), [[[255] * 3, [1, 2, 3]]]),
        "grey key": (png(2, 1, 8, 0, bytes([0, 9, 8]), key(9)), [[[255] * 3, [8] * 3]]),
        "2-bit grey key": (png(4, 1, 2, 0, bytes([0, 0b00011011]), key(1)), [[[0] * 3, [255] * 3, [170] * 3, [255] * 3]]),
        "4-bit grey key": (png(2, 1, 4, 0, bytes([0, 0x23]), key(2)), [[[255] * 3, [51] * 3]]),
        "1-bit grey key": (png(8, 1, 1, 0, bytes([0, 0b10000000]), key(0)), [[[255] * 3] * 8]),
        "16-bit grey key": (png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 300, 301), key(300)), [[[255] * 3, [1] * 3]]),
        "grey alpha": (png(1, 1, 8, 4, bytes([0, 5, 0])), [[[255] * 3]]),
    }
    for name, (data, expected) in cases.items():
        assert pixels(data) == expected, name


def test_half_transparency_is_blended_with_white():
    assert pixels(saved(Image.new("RGBA", (1, 1), (0, 100, 255, 128)), "PNG")) == [[[127, 177, 255]]]
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 51))).getpixel((0, 0)) == (204, 204, 204)


def test_a_colour_key_in_sixteen_bit_colour_is_refused():
    data = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 300, 0, 0), chunk(b"tRNS", struct.pack(">3H", 300, 0, 0)))
    with pytest.raises(DocumentError, match=r"16-bit image that marks one colour.*Save it with an alpha channel"):
        open_image(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.asarray(noise(6, 4))
    # what a camera stores so that a viewer which applies the orientation shows `upright` (EXIF 2.3, table 6)
    store = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(store(upright))), "PNG", exif=exif)
    assert np.array_equal(np.asarray(open_image(data)), upright)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_are_refused_unless_a_frame_is_chosen(file_format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(DocumentError, match=r"Image clip: it holds 3 frames\. Choose one, for example frame=0"):
        open_image(data, name="clip")
    assert [open_image(data, frame=index).getpixel((1, 1)) for index in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    with pytest.raises(DocumentError, match="frame 3 was asked for, it has 3, counted from 0"):
        open_image(data, frame=3)


def test_the_first_view_of_a_camera_file_is_the_picture():
    views = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    data = saved(views[0], "MPO", save_all=True, append_images=views[1:])
    red, _, blue = open_image(data).getpixel((8, 8))
    assert red > 240
    assert blue < 15


def test_the_pixel_cap_holds_before_anything_is_decoded():
    bomb = png(20_000, 10_000, 8, 0, b"not even valid pixel data")
    with pytest.raises(DocumentError, match=r"200000000 pixels.* at most 40,000,000 are decoded.* larger max_pixels"):
        open_image(bomb)
    medium = png(12_000, 10_000, 8, 0, b"")  # above the size at which Pillow warns, below the one at which it refuses
    with pytest.raises(DocumentError, match=r"Image poster: 12000 x 10000 = 120,000,000 pixels, at most 40,000,000"):
        open_image(medium, name="poster")
    with pytest.raises(DocumentError, match=r"24 x 16 = 384 pixels, at most 383"):
        open_image(saved(noise(), "PNG"), max_pixels=383)
    assert open_image(saved(noise(), "PNG"), max_pixels=384).size == (24, 16)
    assert MAX_PIXELS == 40_000_000


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_file_cut_short_is_refused_by_name(tmp_path, file_format, share):
    data = saved(noise(64, 64), file_format)
    path = tmp_path / f"cut.{file_format.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DocumentError, match=r"cut\.\w+: (damaged or cut short|not readable)"):
        open_image(path)


def test_unknown_missing_and_empty_files_are_refused_by_name(tmp_path):
    with pytest.raises(DocumentError, match=r"nowhere\.png: there is no such file\. Check the path"):
        open_image(tmp_path / "nowhere.png")
    for data in (b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", saved(noise(), "ICO")):
        with pytest.raises(DocumentError, match=r"Image row 7: not readable as an image .* Expected one of PNG, JPEG"):
            open_image(data, name="row 7")
    with pytest.raises(DocumentError, match="not readable"):
        open_image(tmp_path)


def test_pixel_types_without_a_white_are_refused():
    for mode, kind in (("F", "floating point"), ("I", "32-bit integers")):
        with pytest.raises(DocumentError, match=rf"{kind}.*Rescale it to 8 or 16 bit"):
            open_image(saved(Image.new(mode, (2, 2)), "TIFF"))


def test_the_switch_that_fills_cut_files_with_grey_is_refused(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DocumentError, match="LOAD_TRUNCATED_IMAGES"):
        open_image(saved(noise(), "PNG"))


def test_tensor_and_back_truncates_and_loses_at_most_one_level():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    tensor = to_tensor([ramp, ramp])
    assert tensor.shape == (2, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1.0
    assert tensor.max() == 1.0
    back = np.asarray(to_pictures(tensor)[1]).astype(int)
    lost = np.asarray(ramp).astype(int) - back
    assert set(np.unique(lost)) <= {0, 1}
    assert back[0, 0, 0] == 0
    assert back[-1, -1, 0] == 255
    just_below = torch.full((1, 3, 1, 1), 127.99 / 255 * 2 - 1)
    assert to_pictures(just_below)[0].getpixel((0, 0)) == (127, 127, 127)
    assert to_pictures(torch.tensor([-7.0, 0.0, 7.0]).reshape(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 127, 255)


def test_tensor_helpers_refuse_what_does_not_fit():
    with pytest.raises(DocumentError, match="Picture 1 of 2 is RGB 16 x 24, expected RGB 24 x 16"):
        to_tensor([noise(), noise(16, 24)])
    with pytest.raises(DocumentError, match="is RGBA"):
        to_tensor(noise(channels=4))
    with pytest.raises(DocumentError, match="no picture"):
        to_tensor([])
    # in the tests the annotation is checked first, elsewhere the function itself speaks
    with pytest.raises((DocumentError, TypeCheckError), match=r"\(b, 3, h, w\)|b 3 h w"):
        to_pictures(torch.zeros(3, 4, 4))
    with pytest.raises(DocumentError, match="1 values that are not finite"):
        to_pictures(torch.tensor([0.0, float("nan"), 1.0]).reshape(1, 3, 1, 1))


@pytest.mark.parametrize("size", [(49, 100), (100, 49), (3, 200), (64, 64), (1, 1)])
@pytest.mark.parametrize("rounding", ["round", "truncate"])
def test_crop_and_pad_always_give_the_asked_square(size, rounding):
    picture = noise(*size)
    assert crop_centre(picture, 29, rounding).size == (29, 29)
    assert pad_square(picture, 29).size == (29, 29)


@pytest.mark.parametrize("path", goldens.family("liquid_images*"))
def test_golden(path):
    check_golden(goldens.read(path))


def check_golden(golden) -> None:
    size = int(golden["target"])
    for index in range(int(golden["n_img"])):
        given = golden[f"img{index}"]
        picture = Image.fromarray(given[..., 0] if str(golden[f"mode{index}"]) == "L" else given)
        white = open_image(saved(picture, "PNG"))
        assert np.array_equal(np.asarray(white), golden[f"whitened{index}"])
        assert np.array_equal(np.asarray(to_rgb(picture)), golden[f"whitened{index}"])
        cropped = crop_centre(white, size)
        assert np.array_equal(np.asarray(cropped), golden[f"vq_input_u8_{index}"])
        assert abs(to_tensor(cropped).double().mean().item() - float(golden[f"vq_input_mean{index}"])) < 1e-5
        assert np.array_equal(np.asarray(crop_centre(white, size, "truncate")), golden[f"center_crop{index}"])
        assert np.array_equal(np.asarray(pad_square(white, size)), golden[f"padsquare{index}"])
    decoded = sorted(key for key in golden if key.startswith("chw") and key[3:].isdigit())
    for key in decoded:
        back = to_pictures(torch.from_numpy(golden[key])[None])[0]
        assert np.array_equal(np.asarray(back), golden[f"chw_u8_{key[3:]}"])
