"""Dynamic tiling: the published grids, boxes and pixels, and the rule by hand."""

import numpy as np
import pytest
from PIL import Image

from plait.errors import DocumentError, RecipeError
from plait.tiling import Grid, choose_grid, cut_tiles, tile_boxes
from tests import goldens


@pytest.mark.parametrize("path", goldens.family("internvl_tiling*"))
def test_golden(path) -> None:
    golden = goldens.read(path)
    size, least = int(golden["image_size"]), int(golden["min_num"])
    for most in sorted(int(name[5:]) for name in golden if name.startswith("grid_")):
        for index, (width, height) in enumerate(golden["wh"].tolist()):
            grid = choose_grid(width=width, height=height, tile_size=size, min_tiles=least, max_tiles=most)
            boxes = golden[f"boxes_{most}"][index]
            assert grid == tuple(golden[f"grid_{most}"][index]), f"{width} x {height}, at most {most}"
            assert tile_boxes(grid, size) == [tuple(box) for box in boxes.tolist() if min(box) >= 0]
            without, with_thumbnail = golden[f"ntiles_{most}"][index]
            assert grid.columns * grid.rows == without
            assert without + (without > 1) == with_thumbnail
    for index in sorted(name[3:-4] for name in golden if name.startswith("pix") and name.endswith("_img")):
        most, has_thumbnail, side = golden[f"pix{index}_cfg"].tolist()
        picture = Image.fromarray(golden[f"pix{index}_img"])
        tiles = cut_tiles(picture, tile_size=side, min_tiles=least, max_tiles=most, has_thumbnail=bool(has_thumbnail))
        np.testing.assert_array_equal(np.stack([np.asarray(tile) for tile in tiles]), golden[f"pix{index}_tiles"])


def test_the_grid_by_hand() -> None:
    assert choose_grid(width=400, height=300, max_tiles=1) == Grid(1, 1)
    assert choose_grid(width=1000, height=100) == Grid(columns=10, rows=1)
    assert choose_grid(width=100, height=1000) == Grid(columns=1, rows=10)
    assert choose_grid(width=300, height=200) == Grid(columns=3, rows=2)
    assert choose_grid(width=300, height=200, min_tiles=7) == Grid(columns=4, rows=3)


@pytest.mark.parametrize(
    ("side", "expected"), [(100, 1), (724, 1), (725, 2), (1086, 2), (1087, 3), (9000, 3)]
)  # 2 x 2 from half of its pixels on, 512 * sqrt(2) = 724.1; 3 x 3 from 512 * sqrt(4.5) = 1086.1
def test_a_square_takes_the_grid_that_it_half_fills(side: int, expected: int) -> None:
    assert choose_grid(width=side, height=side) == Grid(expected, expected)


def test_tiles_are_the_parts_of_the_picture_row_by_row_and_the_thumbnail_is_last() -> None:
    colours = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    picture = Image.fromarray(np.repeat(np.repeat(colours, 16, 0), 16, 1)).convert("RGB")
    tiles = cut_tiles(picture, tile_size=16, max_tiles=6)
    assert [tile.getpixel((8, 8))[0] for tile in tiles[:6]] == [0, 40, 80, 120, 160, 200]
    assert len(tiles) == 7
    assert {tile.size for tile in tiles} == {(16, 16)}
    assert len(cut_tiles(picture, tile_size=16, max_tiles=6, has_thumbnail=False)) == 6
    assert len(cut_tiles(picture, tile_size=16, max_tiles=1)) == 1, "one tile is the whole picture already"


def test_equally_near_grids_of_as_many_tiles_are_taken_by_columns() -> None:
    assert choose_grid(width=5, height=4, min_tiles=2, max_tiles=2) == Grid(1, 2)
    assert choose_grid(width=5000, height=4000, min_tiles=2, max_tiles=2) == Grid(2, 1)


def test_says_what_is_wrong() -> None:
    for settings in ({"max_tiles": 0}, {"min_tiles": 0}, {"min_tiles": 5, "max_tiles": 4}, {"tile_size": 0}):
        with pytest.raises(RecipeError, match="at least 1 tile, the smaller number first"):
            cut_tiles(Image.new("RGB", (20, 20)), **settings)
    with pytest.raises(DocumentError, match="0 x 20 pixels"):
        choose_grid(width=0, height=20)
    with pytest.raises(DocumentError, match=r"mode RGBA, expected RGB.*to_rgb"):
        cut_tiles(Image.new("RGBA", (20, 20)))
