"""Sizes and pixels of Emu3's image processor."""

import numpy as np
import pytest
import torch
from PIL import Image

from plait.errors import DocumentError, PlaitError, RecipeError
from plait.images import to_pictures, to_tensor
from plait.resizing import choose_size, resize_to_area
from tests import goldens


@pytest.mark.parametrize("path", goldens.family("emu3_image_processor*"))
def test_golden(path) -> None:
    golden = goldens.read(path)
    other = {"multiple": 16, "min_pixels": 64 * 64, "max_pixels": 128 * 96}
    for index, (height, width) in enumerate(golden["hw"].tolist()):
        for name, settings in (("out_default", {}), ("out_f16", other)):
            assert size_or_refusal(height, width, settings) == tuple(golden[name][index]), f"{height} x {width}, {name}"
    bounds = {name: int(golden[f"{name}_img"]) for name in ("min_pixels", "max_pixels")}
    for index in sorted(name[3:] for name in golden if name.startswith("img") and name[3:].isdigit()):
        resized = resize_to_area(Image.fromarray(golden[f"img{index}"]), **bounds)
        pixels = to_tensor(resized)
        expected = golden[f"resized_u8_{index}"]
        np.testing.assert_array_equal(np.asarray(resized).transpose(2, 0, 1)[None], expected)
        np.testing.assert_allclose(pixels.numpy(), expected / 255 * 2 - 1, atol=1e-6)
        assert abs(pixels.double().mean().item() - float(golden[f"pixel_mean{index}"])) < 1e-5
        (back,) = to_pictures(torch.from_numpy(golden[f"float{index}"])[None])
        assert np.abs(np.asarray(back).astype(int) - golden[f"post_u8_{index}"]).max() <= 1


def size_or_refusal(height: int, width: int, settings: dict) -> tuple[int, int]:
    """(-1, -1) where a picture is refused, as in the file."""
    try:
        return choose_size(height=height, width=width, **settings)
    except PlaitError:
        return (-1, -1)


def test_sizes_by_hand() -> None:
    assert choose_size(height=512, width=512) == (512, 512)
    assert choose_size(height=700, width=604) == (704, 608)  # 75.5 steps: half goes to the even one
    assert choose_size(height=2048, width=2048) == (1024, 1024)
    assert choose_size(height=100, width=500) == (232, 1152), "five times as long is still accepted"
    assert choose_size(height=30, width=50, multiple=10, min_pixels=1, max_pixels=600) == (10, 30)


@pytest.mark.parametrize("multiple", [8, 16])
def test_every_size_keeps_its_promises(multiple: int) -> None:
    for height in range(300, 2000, 37):
        width = 300 + height * 7919 % 1600
        if max(height, width) > 5 * min(height, width):
            continue
        found = choose_size(height=height, width=width, multiple=multiple)
        assert not any(side % multiple for side in found)
        assert 512 * 512 <= found[0] * found[1] <= 1024 * 1024
        assert abs(np.log((found[0] / found[1]) / (height / width))) < 0.1
        assert choose_size(height=width, width=height, multiple=multiple) == found[::-1]


def test_says_what_is_wrong() -> None:
    with pytest.raises(DocumentError, match=r"510 x 100 pixels.*5\.10 times the short one, at most 5"):
        choose_size(height=100, width=510)
    with pytest.raises(DocumentError, match="20 x 7 pixels: expected at least 8"):
        resize_to_area(Image.new("RGB", (20, 7)))
    with pytest.raises(DocumentError, match=r"mode L, expected RGB.*to_rgb"):
        resize_to_area(Image.new("L", (20, 20)))
    for settings in ({"multiple": 0}, {"min_pixels": 0}, {"min_pixels": 500, "max_pixels": 400}):
        with pytest.raises(RecipeError, match="the smaller one first"):
            choose_size(height=20, width=20, **settings)
    with pytest.raises(RecipeError, match=r"shrinks to nothing within 100 pixels in steps of 8.*at least 320"):
        choose_size(height=100, width=500, min_pixels=1, max_pixels=100)
