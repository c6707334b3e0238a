"""One glyph in another colour: the hue of its coloured part is replaced, its light and shade stay. Knows no scene and no split.

Hues and ranges were chosen by looking at contact sheets: yellow has to be bright (a dark yellow is brown), green dark (a bright
one nears yellow), and parts that name the object rather than its colour (trunk, windows, handle) keep their own hue, listed per
object in `KEPT_HUES`.
"""

import numpy as np
from PIL import Image

HUES = {"red": 357, "yellow": 50, "green": 128, "blue": 215, "purple": 280}
"""degrees"""

SATURATION = {"red": (185, 225), "yellow": (175, 225), "green": (165, 225), "blue": (165, 225), "purple": (140, 200)}
VALUE = {"red": (190, 225), "yellow": (215, 255), "green": (120, 180), "blue": (150, 240), "purple": (125, 205)}
"""ranges, of 255, into which the glyph's own saturation and value are clipped"""

LEAST_SATURATION = 45
LEAST_VALUE = 50
"""of 255: paler or darker pixels (white, grey, black) keep their colour"""

KEPT_HUES = {
    "car": ((190, 220),),
    "house": ((190, 220), (60, 150), (0, 30), (330, 360)),
    "tree": ((0, 40),),
    "umbrella": ((190, 220),),
    "guitar": ((190, 220),),
}
"""object -> ranges of hue in degrees that keep their colour: windows, lawn, trunk, handle, neck"""


def recolour(glyph: Image.Image, name: str, colour: str) -> Image.Image:
    """The glyph of the object `name` in a colour of the world.

    Args:
        glyph: RGBA picture.

    Returns:
        RGBA picture of the same size.
    """
    alpha = glyph.getchannel("A")
    hue, saturation, value = (band.copy() for band in np.moveaxis(np.asarray(glyph.convert("RGB").convert("HSV")), 2, 0))
    degrees = hue.astype(np.float32) * (360 / 256)
    painted = (saturation > LEAST_SATURATION) & (value > LEAST_VALUE)
    for low, high in KEPT_HUES.get(name, ()):
        painted &= ~((degrees >= low) & (degrees <= high))
    hue[painted] = round(HUES[colour] * 256 / 360) % 256
    for band, (low, high) in ((saturation, SATURATION[colour]), (value, VALUE[colour])):
        # Clipping, not scaling: the darker details of a glyph stay darker than its body.
        band[painted] = np.clip(band[painted], low, high)
    result = Image.merge("HSV", [Image.fromarray(band) for band in (hue, saturation, value)]).convert("RGB").convert("RGBA")
    result.putalpha(alpha)
    return result


def painted_share(glyph: Image.Image) -> float:
    """The share of a glyph's drawn pixels that `recolour` paints where no hue is kept."""
    _, saturation, value = np.moveaxis(np.asarray(glyph.convert("RGB").convert("HSV")), 2, 0)
    drawn = np.asarray(glyph.getchannel("A")) > 128
    return float(((saturation > LEAST_SATURATION) & (value > LEAST_VALUE))[drawn].mean()) if drawn.any() else 0.0


def natural_colour(glyph: Image.Image) -> str:
    """The colour of the world that is nearest to the glyph's own main hue."""
    hue, saturation, value = np.moveaxis(np.asarray(glyph.convert("RGB").convert("HSV")).astype(np.float32), 2, 0)
    coloured = (np.asarray(glyph.getchannel("A")) > 128) & (saturation > LEAST_SATURATION) & (value > LEAST_VALUE)
    counts = np.histogram(hue[coloured] * (360 / 256), bins=72, range=(0, 360))[0]
    main = 5 * int(counts.argmax()) + 2.5
    return min(HUES, key=lambda colour: min((main - HUES[colour]) % 360, (HUES[colour] - main) % 360))
