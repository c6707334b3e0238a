"""The size that Emu3's vision tokenizer gives to a picture: sides that are multiples of its downsampling, an area between two bounds,
the aspect ratio kept as far as that allows.

The rule is that of the public code (baaivision/Emu3, commit f6ea9aa, its image processor), operation by operation, as floating point
decides the sizes. transformers' port has another one: it takes strips of up to 1 : 200 and the mean and spread of CLIP. What comes
before and after is in `plait/images.py`: `to_rgb`, then `resize_to_area`, then `to_tensor`; and `to_pictures` for what was decoded.
SynerGen-VL (arXiv 2412.09604) reads tiles of 512 x 512 (`plait/tiling.py`), which need none of this.
"""

import math

from PIL import Image

from plait.errors import DocumentError, RecipeError

MAX_ASPECT = 5
"""long side over short side that is still accepted"""


def choose_size(
    *, height: int, width: int, multiple: int = 8, min_pixels: int = 512 * 512, max_pixels: int = 1024 * 1024
) -> tuple[int, int]:
    """The size to which a picture is resized.

    Sides are rounded to multiples, and where that leaves the bounds, the picture is scaled to the bound that was left: down with sides
    rounded down, up with sides rounded up. So a picture that was scaled up may exceed `max_pixels` where the bounds are close together.

    Args:
        height, width: of the picture, in pixels.
        multiple: what both sides become multiples of.
        min_pixels, max_pixels: bounds of the area.

    Returns:
        (height, width) in pixels.

    Raises:
        DocumentError: a side is shorter than `multiple`, or the long side is more than 5 times the short one.
        RecipeError: bounds or multiple are not positive, in the wrong order, or so small that a side would vanish.
    """
    if not (multiple >= 1 and 1 <= min_pixels <= max_pixels):
        raise RecipeError(
            f"Pictures of {min_pixels:,} to {max_pixels:,} pixels with sides that are multiples of {multiple}: expected a multiple of "
            "at least 1 and bounds of at least 1 pixel, the smaller one first. Correct them."
        )
    if min(height, width) < multiple:
        raise DocumentError(
            f"A picture of {width} x {height} pixels: expected at least {multiple} on each side, one code of the tokenizer. "
            "Leave it out, or enlarge it first."
        )
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise DocumentError(
            f"A picture of {width} x {height} pixels: its long side is {max(height, width) / min(height, width):.2f} times the short "
            f"one, at most {MAX_ASPECT} times is accepted. Cut it into pieces, or pad it first."
        )
    sides = (height, width)
    rounded = [round(side / multiple) for side in sides]
    area = math.prod(rounded) * multiple**2
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rounded = [math.floor(side / shrink / multiple) for side in sides]
    elif area < min_pixels:
        growth = math.sqrt(min_pixels / (height * width))
        rounded = [math.ceil(side * growth / multiple) for side in sides]
    if not all(rounded):
        raise RecipeError(
            f"A picture of {width} x {height} pixels shrinks to nothing within {max_pixels:,} pixels in steps of {multiple}. "
            f"Raise max_pixels to at least {MAX_ASPECT * multiple**2:,}."
        )
    return rounded[0] * multiple, rounded[1] * multiple


def resize_to_area(
    image: Image.Image, *, multiple: int = 8, min_pixels: int = 512 * 512, max_pixels: int = 1024 * 1024
) -> Image.Image:
    """An RGB picture in the size of `choose_size`, whose arguments it takes (bicubic).

    Raises:
        DocumentError: a mode other than RGB, or a picture that is too small or too long.
        RecipeError: bounds or multiple that make no size.
    """
    if image.mode != "RGB":
        raise DocumentError(
            f"A picture of mode {image.mode}, expected RGB. Open it with plait.images.open_image, or use to_rgb."
        )
    height, width = choose_size(
        height=image.height, width=image.width, multiple=multiple, min_pixels=min_pixels, max_pixels=max_pixels
    )
    return image.resize((width, height), Image.Resampling.BICUBIC)
