"""Pictures that a model is shown: files, pictures and arrays of one's own, and pictures of the run's world by their ids.

One's own are fitted by the function that fits the pictures of training (`plait.images.fit_square`, or the tiling of the run), and encoded
as those of the world are. It knows no wording.
"""

import logging
import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_modules.composing.wiring import open_pictures
from plait.document import ImageSpan
from plait.errors import DocumentError, PlaitError, RecipeError
from plait.images import check_fit, fit_square, open_image, to_rgb
from plait.protocols import World
from plait.tiling import Tiling

Source = str | PathLike[str] | Image.Image | np.ndarray
"""what a picture may be given as"""
log = logging.getLogger(__name__)


class Shelf:
    """Finds, fits and encodes pictures.

    Args:
        model: who is shown them.
        fit: how pictures become square, "crop" or "pad" (`plait.images.fit_square`).
        tiling: cuts them instead, as the run's data was cut; None reads each as one square.
        world: gives the world of the run, when an id is asked for; None where there is none.

    Raises:
        RecipeError: there is no such fit.
    """

    def __init__(
        self,
        model: Any,
        fit: str = "crop",
        tiling: Tiling | None = None,
        world: Callable[[], World] | None = None,
    ) -> None:
        check_fit(fit)
        self.fit, self.tiling, self._world = fit, tiling, world
        self.image_size, self._form = tuple(model.image_size), model.template.form
        self._own: dict[str, Image.Image] = {}
        tokenizer = model.vision_tokenizer
        self._pictures = open_pictures(
            folder=None, vision_tokenizer=tokenizer, world=self, tiling=tiling, image_size=self.image_size
        )

    def take(self, source: Source, name: str | None = None, folder: Path | None = None) -> ImageSpan:
        """A picture as a model is given it: with its codes, or its pixels.

        Args:
            source: a file, a picture, an array (uint8, h w 3 or h w), or the id of a picture of the world.
            name: of the picture in its document; by default its file name.
            folder: where a relative path is looked for, besides here.

        Raises:
            DocumentError: there is no such picture, or it cannot be read.
        """
        image_id = self._place(source, name, folder)
        return self._pictures.fill(ImageSpan(image_id, form=self._form))

    def has(self, text: str) -> bool:
        """Whether a text names a picture: a file, or one of the world."""
        try:
            if Path(text).expanduser().is_file():
                return True
            if self._world is not None and not re.search(r"\s", text):  # a sentence: no data is opened for it
                self._world().picture(text)
                return True
        except (PlaitError, OSError, ValueError):  # too long for a path, or with a character that none may have
            pass
        return False

    def picture(self, image_id: str) -> Image.Image:
        """A picture that was taken, as the model is shown it; else one of the world."""
        return self._own[image_id] if image_id in self._own else self._open_world().picture(image_id)

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """uint8 (n h w 3)."""
        return np.stack([np.asarray(self.picture(image_id)) for image_id in image_ids])

    def _place(self, source: Source, name: str | None, folder: Path | None) -> str:
        if isinstance(source, Image.Image):
            return self._keep(to_rgb(source), name or "picture")
        if isinstance(source, np.ndarray):
            return self._keep(_read_array(source), name or "picture")
        if not isinstance(source, str | PathLike):
            raise DocumentError(
                f"A picture is given as a {type(source).__name__}, expected the path of a file, a PIL picture, an array of uint8, or the "
                "id of a picture of the world. Next: give one of these."
            )
        paths = [Path(source).expanduser(), *([folder / source] if folder is not None else [])]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            return self._keep(open_image(path), name or path.name)
        if self._world is not None and isinstance(source, str):
            try:
                self.picture(source)
                return source
            except PlaitError as error:
                raise DocumentError(
                    f"{source!r} is no file, and no picture of the run's world: {error} Next: check the path, or take an id of "
                    "desk.world.image_ids('val')."
                ) from error
        raise DocumentError(f"{str(source)!r} is no file. Expected the path of a picture. Next: check it.")

    def _keep(self, picture: Image.Image, name: str) -> str:
        shown = picture
        if self.tiling is None:
            height, width = self.image_size
            if height != width:
                raise RecipeError(
                    f"The tokenizer of this model reads {width} x {height} pixels, expected a square: how other pictures become that, no "
                    f"data says. Next: give pictures of {width} x {height} pixels of the world by their ids."
                )
            shown = fit_square(picture, width, self.fit)
            if picture.size != shown.size:
                log.info("%s: %d x %d pixels, read as %d x %d (%s)", name, *picture.size, *shown.size, self.fit)
        image_id, number = name, 1
        while image_id in self._own and self._own[image_id].tobytes() != shown.tobytes():
            number += 1
            image_id = f"{name} ({number})"
        self._own[image_id] = shown
        return image_id

    def _open_world(self) -> World:
        if self._world is None:
            raise DocumentError(
                "This model comes without the data of its run. Expected a picture of your own. Next: give a file."
            )
        return self._world()


def _read_array(array: np.ndarray) -> Image.Image:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (3, 4))
        or not array.size
    ):
        raise DocumentError(
            f"An array of {array.dtype} with the shape {array.shape} is no picture, expected uint8 with (h, w), (h, w, 3) or (h, w, 4). "
            "Next: scale it to 0 to 255 and convert it: (array * 255).astype('uint8')."
        )
    return to_rgb(Image.fromarray(array))
