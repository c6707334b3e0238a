"""Dynamic tiling: a large picture is read as several square tiles, in the grid whose shape is nearest to its own, and once more as a
whole, small.

The rule of InternVL 1.5 (arXiv 2404.16821, "dynamic high resolution"; OpenGVLab/InternVL, commit 2410d1d). SynerGen-VL reads pictures
with it (arXiv 2412.09604, table 8): tiles of 512 pixels, at most 1, 6 and 12 of them in its three stages, with a thumbnail in the last
two. Pictures that it draws are always one tile.

It knows nothing of codes or positions. Where two grids of equally many tiles are equally near, the public code lets the order of a hash
table decide and here the one with fewer columns stands first; with `min_tiles=1`, as published, there is no such pair.
"""

from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from plait.errors import DocumentError, RecipeError


@dataclass(frozen=True)
class Tiling:
    """In how many squares a picture is read.

    Args:
        max_tiles: without the thumbnail. 1 reads every picture as one square, scaled to it.
        has_thumbnail: whether the whole picture follows its tiles, where there are several.

    Raises:
        RecipeError: less than one tile.
    """

    max_tiles: int
    has_thumbnail: bool = True

    def __post_init__(self) -> None:
        if self.max_tiles < 1:
            raise RecipeError(
                f"tiling.max_tiles is {self.max_tiles}, expected at least 1 tile. Set it, or read pictures as they are: tiling=none."
            )

    def cut(self, image: Image.Image, side: int) -> list[Image.Image]:
        """Squares of `side` pixels (see `cut_tiles`)."""
        return cut_tiles(image, tile_size=side, max_tiles=self.max_tiles, has_thumbnail=self.has_thumbnail)


class Grid(NamedTuple):
    """How many tiles stand beside each other, and how many above each other."""

    columns: int
    rows: int


def choose_grid(*, width: int, height: int, tile_size: int = 512, min_tiles: int = 1, max_tiles: int = 12) -> Grid:
    """The grid whose aspect ratio is nearest to that of the picture.

    Of equally near grids the larger one is taken if the picture has more than half as many pixels as that grid; so a small square stays
    one tile and a large one becomes 2 x 2 or 3 x 3.

    Args:
        width, height: of the picture, in pixels.
        tile_size: side of a tile in pixels.
        min_tiles, max_tiles: bounds of columns x rows.

    Raises:
        DocumentError: a side of the picture is not positive.
        RecipeError: the bounds or the tile are not positive, or the bounds stand in the wrong order.
    """
    if not (tile_size >= 1 and 1 <= min_tiles <= max_tiles):
        raise RecipeError(
            f"{min_tiles} to {max_tiles} tiles of {tile_size} pixels: expected at least 1 pixel and at least 1 tile, the smaller number "
            "first. Correct them."
        )
    if min(width, height) < 1:
        raise DocumentError(f"A picture of {width} x {height} pixels: expected sides of at least 1. Check the picture.")
    grids = (Grid(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1))
    smallest_first = sorted((grid for grid in grids if grid.columns * grid.rows >= min_tiles), key=_count)
    best, least = smallest_first[0], float("inf")
    for grid in smallest_first:
        distance = abs(width / height - grid.columns / grid.rows)
        is_filled = width * height > 0.5 * tile_size**2 * _count(grid)
        if distance < least or (distance == least and is_filled):
            best, least = grid, distance
    return best


def tile_boxes(grid: Grid, tile_size: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of every tile in the picture that was scaled to its grid, row by row."""
    lefts, tops = (range(0, count * tile_size, tile_size) for count in grid)
    return [(left, top, left + tile_size, top + tile_size) for top in tops for left in lefts]


def cut_tiles(
    image: Image.Image, *, tile_size: int = 512, min_tiles: int = 1, max_tiles: int = 12, has_thumbnail: bool = True
) -> list[Image.Image]:
    """A picture as tiles.

    Args:
        image: of mode RGB; it is stretched to the grid (bicubic), not padded.
        tile_size: side of a tile in pixels.
        min_tiles, max_tiles: bounds of the number of tiles, without the thumbnail.
        has_thumbnail: whether the whole picture follows, stretched to one tile. A picture of one tile never has one.

    Returns:
        Squares of `tile_size` pixels row by row, then the thumbnail.

    Raises:
        DocumentError: a mode other than RGB, or a picture without pixels.
        RecipeError: bounds or a tile that make no grid.
    """
    if image.mode != "RGB":
        raise DocumentError(
            f"A picture of mode {image.mode}, expected RGB. Open it with plait.images.open_image, or use to_rgb."
        )
    grid = choose_grid(width=image.width, height=image.height, tile_size=tile_size, min_tiles=min_tiles, max_tiles=max_tiles)
    scaled = image.resize((grid.columns * tile_size, grid.rows * tile_size), Image.Resampling.BICUBIC)
    tiles = [scaled.crop(box) for box in tile_boxes(grid, tile_size)]
    if has_thumbnail and len(tiles) > 1:
        tiles.append(image.resize((tile_size, tile_size), Image.Resampling.BICUBIC))
    return tiles


def _count(grid: Grid) -> int:
    return grid.columns * grid.rows
