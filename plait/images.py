"""The one image loader, and the few geometric steps that published systems take before a tensor.

A plain `Image.open(path).convert("RGB")` turns 16-bit greys white, ignores EXIF rotation, shows the colours that hide under transparent
pixels, takes frame 0 of an animation and decodes any number of pixels. `open_image` does none of that: what it cannot read faithfully it
refuses with a `DocumentError` that names the file, the finding and the remedy.

Colour profiles are not applied, and a 16-bit channel keeps its upper byte. Blending, resizing and the cast back to 8 bit follow Liquid
(arXiv 2412.04332) as released, in its image tokenizer; the cast truncates, so that a picture which goes to a tensor and back may lose
one level of 256 in a channel.
"""

import io
import stat
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile

from plait.axes import Images, Tensor
from plait.errors import DocumentError, RecipeError
from plait.jpeg import find_jpeg_damage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 40_000_000
MAX_BYTES = 2**29  # of a file: so many pixels of four 16-bit channels, uncompressed, are 320 MB
STRIP_PIXELS = 1_000_000  # blended at a time: in double precision the whole of a large picture takes gigabytes
WHITE = (255, 255, 255)
LIQUID_PADDING = (122, 116, 104)
"""The colour with which Liquid pads to a square when it reads a picture: the mean colour of CLIP's training data."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    source: str | PathLike[str] | bytes, *, name: str = "", max_pixels: int = MAX_PIXELS, frame: int | None = None
) -> Image.Image:
    """Read an image file as an upright, opaque RGB picture.

    Args:
        source: a path, or the bytes of a file.
        name: what error messages call the item; by default the path.
        max_pixels: width x height above which the file is refused before a single pixel is decoded.
        frame: which frame of an animation or page of a document to take, from 0. None refuses files with more than one.

    Returns:
        A picture of mode RGB, turned as EXIF says, transparency blended over white.

    Raises:
        DocumentError: the file is missing, damaged, cut short, too large, animated without a choice of frame, or of a format or
            pixel type that has no faithful RGB reading.
    """
    item = name or (f"{len(source)} bytes" if isinstance(source, bytes) else str(source))
    _check_source(source, item)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own cap follows, and it is an error
            Image.init()  # otherwise Pillow knows only some of the formats that are named here
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except FileNotFoundError as error:
        raise DocumentError(f"Image {item}: there is no such file. Check the path, or the folder it is relative to.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(item, str(error), max_pixels) from error
    except _DAMAGE as error:
        known = ", ".join(FORMATS)
        raise DocumentError(
            f"Image {item}: not readable as an image ({_opening(source, error)}). Expected one of {known}; "
            "convert or download it again."
        ) from error
    with image:
        if image.width * image.height > max_pixels:
            raise _too_large(item, f"{image.width} x {image.height} = {image.width * image.height:,} pixels", max_pixels)
        if image.format in ("JPEG", "MPO") and (finding := find_jpeg_damage(_whole(source))):
            raise DocumentError(f"Image {item}: damaged ({finding}), expected a whole file. Download or export it again.")
        return _read(image, item, frame)


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """An upright, opaque RGB copy of a picture in memory, by the rules of `open_image`.

    Raises:
        DocumentError: the pixel type has no faithful RGB reading.
    """
    return _read(image, name, frame=None)


def crop_centre(image: Image.Image, size: int, rounding: Literal["round", "truncate"] = "round") -> Image.Image:
    """Scale the short side to `size` (Lanczos) and cut the square out of the middle.

    Args:
        size: side of the result in pixels.
        rounding: how the long side becomes whole pixels. Liquid's tokenizer rounds, its training pairs were truncated.

    Raises:
        DocumentError: the picture is so long that scaling it would take more than `MAX_PIXELS`, or `size` is not positive.
    """
    _check_room(image, size, size * size * max(image.size) // max(1, min(image.size)))
    whole: Callable[[float], int] = round if rounding == "round" else int
    scale = size / min(image.size)
    # The short side is `size` by definition; only the long one is rounded (float error could truncate the short one).
    width, height = (size if side == min(image.size) else max(size, whole(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pad_square(image: Image.Image, size: int, colour: tuple[int, int, int] = LIQUID_PADDING) -> Image.Image:
    """Pad to a square with `colour`, picture in the middle, then scale to `size` (Lanczos).

    Raises:
        DocumentError: the picture is so long that its square would take more than `MAX_PIXELS`, or `size` is not positive.
    """
    _check_room(image, size, max(image.size) ** 2)
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.Resampling.LANCZOS)


FITS: Mapping[str, Callable[[Image.Image, int], Image.Image]] = {"crop": crop_centre, "pad": pad_square}
"""ways in which a picture becomes square"""


def fit_square(image: Image.Image, size: int, fit: str) -> Image.Image:
    """A picture as the models here read it: square, of one size, its proportions kept. Pictures of training and those that somebody
    shows a finished model go through this function.

    Args:
        fit: "crop" (`crop_centre`) or "pad" (`pad_square`).

    Raises:
        DocumentError: the picture is too long.
        RecipeError: there is no such fit.
    """
    check_fit(fit)
    return FITS[fit](image, size)


def check_fit(fit: str) -> None:
    """Refuse a fit that there is not (RecipeError)."""
    if fit not in FITS:
        raise RecipeError(
            f"fit is {fit!r}, expected {' or '.join(FITS)}. Next: set data.fit (of plait-generate: fit) to one of them."
        )


def to_tensor(pictures: Image.Image | Sequence[Image.Image]) -> Images:
    """RGB pictures of one size -> float32 in [-1, 1], axes b 3 h w (b = 1 for a single picture).

    Raises:
        DocumentError: no picture, another mode than RGB, or pictures of different sizes.
    """
    pictures = [pictures] if isinstance(pictures, Image.Image) else list(pictures)
    if not pictures:
        raise DocumentError("to_tensor got no picture: expected at least one.")
    for index, picture in enumerate(pictures):
        if picture.mode != "RGB" or picture.size != pictures[0].size:
            raise DocumentError(
                f"Picture {index} of {len(pictures)} is {picture.mode} {picture.width} x {picture.height}, expected RGB "
                f"{pictures[0].width} x {pictures[0].height} like the first. Use to_rgb, then crop_centre or pad_square."
            )
    return from_pixels(torch.from_numpy(np.stack([np.array(picture) for picture in pictures])))


def from_pixels(pixels: Tensor) -> Images:
    """Pictures (b h w 3) of uint8 -> float32 in [-1, 1], axes b 3 h w."""
    return pixels.permute(0, 3, 1, 2).contiguous().float() / 255.0 * 2.0 - 1.0


def to_pictures(images: Images) -> list[Image.Image]:
    """Images in [-1, 1] (values outside are clamped) -> RGB pictures; the cast to 8 bit truncates, as Liquid's does.

    Raises:
        DocumentError: the shape is not b 3 h w, or a value is not finite.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise DocumentError(f"to_pictures got a tensor of shape {tuple(images.shape)}: expected (b, 3, h, w).")
    images = images.detach().float().cpu()
    if not bool(torch.isfinite(images).all()):
        broken = int((~torch.isfinite(images)).sum())
        raise DocumentError(f"to_pictures got {broken} values that are not finite. The decoder or its weights are broken.")
    pixels = ((images.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(array) for array in pixels]


def _check_source(source: str | PathLike[str] | bytes, item: str) -> None:
    """Refuse what is no picture whatever it holds: reading a pipe waits for ever, a device gives bytes without end."""
    try:
        facts = None if isinstance(source, bytes) else Path(source).stat()
    except (OSError, ValueError):
        return  # opening it says what is wrong
    if facts and not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):
        raise DocumentError(f"Image {item}: it is a pipe, a socket or a device, expected a file. Copy the picture into one.")
    if (size := facts.st_size if facts else len(source)) > MAX_BYTES:
        raise DocumentError(f"Image {item}: {size:,} bytes, at most {MAX_BYTES:,} are read. Scale it down first.")


def _whole(source: str | PathLike[str] | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    with open(source, "rb") as file:
        return file.read()


def _opening(source: str | PathLike[str] | bytes, error: Exception) -> str:
    """What is there instead of an image: how a file begins says more than that Pillow does not know it."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            start, size = file.read(8), file.seek(0, io.SEEK_END)
    except (OSError, ValueError):
        return str(error)
    return f"{size:,} bytes that begin with {start!r}" if size else "0 bytes"


def _check_room(image: Image.Image, size: int, needed: int) -> None:
    """Refuse what cannot be made square: a strip of 20,000 x 1 pixels has an allowed size, its square has not."""
    found = f"A picture of {image.width} x {image.height}"
    if size < 1 or not min(image.size):
        raise DocumentError(
            f"{found} is to become {size} x {size}: expected sides of at least 1 pixel. Check the picture and the size."
        )
    if needed > MAX_PIXELS:
        raise DocumentError(
            f"{found} needs {needed:,} pixels on its way to {size} x {size}, at most "
            f"{MAX_PIXELS:,} are made. Cut the strip into pieces, or scale it down first."
        )


def _read(image: Image.Image, item: str, frame: int | None) -> Image.Image:
    """The picture behind an opened image."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DocumentError(
            f"Image {item}: PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, which fills cut files with grey. Set it to False."
        )
    try:
        # MPO is the JPEG with further views that some cameras write: the first is the picture, nothing is animated.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frame is None and frames > 1:
            raise DocumentError(f"Image {item}: it holds {frames} frames. Choose one, for example frame=0 for the first.")
        if frame is not None and not 0 <= frame < frames:
            raise DocumentError(f"Image {item}: frame {frame} was asked for, it has {frames}, counted from 0. Choose another.")
        if frame is not None and frames > 1:
            image.seek(frame)
        raw_mode = _raw_mode(image)  # known only before the pixels are loaded
        image.load()
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except _DAMAGE as error:
        message = f"Image {item}: damaged or cut short ({error}), expected a whole file. Download or export it again."
        raise DocumentError(message) from error
    picture = _blend_over_white(_to_rgb_or_rgba(image, raw_mode, item))
    return picture if turn is None else picture.transpose(turn)


def _raw_mode(image: Image.Image) -> str:
    """How the file itself stores a pixel, such as "L;2" or "RGB;16B"; empty for a picture that does not come from a file."""
    tile = getattr(image, "tile", None)
    arguments = tile[0][3] if tile else ""
    return str(arguments if isinstance(arguments, str) else arguments[0] if arguments else "")


def _to_rgb_or_rgba(image: Image.Image, raw_mode: str, item: str) -> Image.Image:
    """RGB without, RGBA with transparency; every kind of transparency that the formats know ends up in the alpha channel."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        deep = np.asarray(image)  # 16 or 32 bits, as they are: wider ones would take gigabytes
        grey = np.clip(deep >> 8, 0, 255).astype(np.uint8)  # the upper byte, as Pillow takes it of 16-bit colour
        opaque = np.full_like(grey, 255) if key is None else np.where(deep == key, 0, 255).astype(np.uint8)
        return Image.fromarray(np.stack([grey, grey, grey, opaque], axis=-1))
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating point numbers"
        raise DocumentError(
            f"Image {item}: its pixels are {kind}, whose black and white are not defined. Rescale it to 8 or 16 bit first."
        )
    if image.mode in ("P", "PA"):
        _check_palette(image, item)
    if image.mode == "RGB" and key is not None and "16" in raw_mode:
        raise DocumentError(
            f"Image {item}: a 16-bit image that marks one colour, {key}, as transparent loses that colour in decoding. "
            "Save it with an alpha channel."
        )
    if image.mode == "L" and isinstance(key, int) and raw_mode in ("L;2", "L;4"):
        key *= 85 if raw_mode == "L;2" else 17  # Pillow spreads the greys over 0..255 but not the transparent one
        grey = np.asarray(image)
        return Image.fromarray(np.stack([grey, grey, grey, np.where(grey == key, 0, 255).astype(np.uint8)], axis=-1))
    try:
        is_transparent = key is not None or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        return image.convert("RGBA" if is_transparent else "RGB")
    except (ValueError, OSError) as error:
        message = f"Image {item}: pixels of mode {image.mode} cannot be read as RGB ({error}). Convert the file to RGB."
        raise DocumentError(message) from error


def _check_palette(image: Image.Image, item: str) -> None:
    """Refuse pixels that name a colour which the file does not have: they would be black."""
    known = 0 if image.palette is None else len(image.palette.palette) // len(image.palette.mode)
    highest = int(np.asarray(image.getchannel(0) if image.mode == "PA" else image).max())
    if highest >= known:
        raise DocumentError(
            f"Image {item}: its pixels name colours up to number {highest}, and its palette has {known}, expected all of them. Download "
            "or export it again."
        )


def _blend_over_white(image: Image.Image) -> Image.Image:
    """Mix transparent pixels with white; double precision and truncation as in the released code."""
    if image.mode == "RGB":
        return image.copy()
    pixels = np.asarray(image)
    if (pixels[..., 3] == 255).all():
        return image.convert("RGB")
    blended = np.empty((*pixels.shape[:2], 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // pixels.shape[1])
    for first in range(0, len(pixels), rows):
        strip = pixels[first : first + rows]
        alpha = strip[..., 3:] / 255.0
        blended[first : first + rows] = (1.0 - alpha) * np.asarray(WHITE) + alpha * strip[..., :3]
    return Image.fromarray(blended)


def _too_large(item: str, finding: str, max_pixels: int) -> DocumentError:
    return DocumentError(
        f"Image {item}: {finding}, at most {max_pixels:,} are decoded. Scale it down, or pass a larger max_pixels."
    )
