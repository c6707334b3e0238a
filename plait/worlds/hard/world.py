"""`HardData`: real photographs and screenshots to test on, never to train on. Everything is of the one split "hard".

Pictures are read from the packages (`debian.py`) and never become part of plait; each document says its source and licence.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, RecipeError
from plait.images import MAX_PIXELS, open_image, pad_square
from plait.worlds.hard.debian import PACKAGES
from plait.worlds.hard.gimp_help import LEAST_SIDE, EditPair, list_pairs
from plait.worlds.hard.gimp_help import LICENSE as GIMP_LICENSE
from plait.worlds.hard.stamps import LICENSE as STAMPS_LICENSE
from plait.worlds.hard.stamps import Stamp, list_stamps

SPLIT = "hard"
TASKS = ("captions", "edits")
WHITE = (255, 255, 255)
HELD_PIXELS = 2**28


class HardData:
    """Captioned stamps of Tux Paint and pairs of pictures of GIMP's help.

    Args:
        image_size: width and height to which every picture is padded (white) and scaled.
        stamps, gimp_help: folders in the place of those that `plait-fetch what=hard` makes.

    Raises:
        RecipeError: the data is not there.
    """

    splits, tasks = (SPLIT,), TASKS
    is_closed = False
    examinations = None

    def __init__(self, image_size: int = 64, stamps: str | None = None, gimp_help: str | None = None) -> None:
        self.image_size = image_size
        self.folders = {"stamps": PACKAGES["stamps"].open(stamps), "gimp": PACKAGES["gimp_help"].open(gimp_help)}
        self._decode = lru_cache(maxsize=max(64, HELD_PIXELS // (3 * image_size**2)))(self._read)

    @cached_property
    def stamps(self) -> list[Stamp]:
        """All captioned stamps."""
        return list_stamps(self.folders["stamps"])[0]

    @cached_property
    def pairs(self) -> list[EditPair]:
        """All pairs whose pictures are no icons."""
        return [
            pair
            for pair in list_pairs(self.folders["gimp"])
            if all(min(open_image(path).size) >= LEAST_SIDE for path in (pair.before, pair.after))
        ]

    def source(self, task: str, split: str, size: int | None = None) -> Sequence[Document]:
        """The documents of a task.

        Args:
            task: "captions" (a caption and its picture) or "edits" (picture, instruction, picture).
            split: "hard", the only one.
            size: the first so many; None takes all.

        Raises:
            RecipeError: another task, or a split to train on.
        """
        _check_split(split)
        if task not in TASKS:
            raise RecipeError(
                f"The hard data has no task {task!r}: expected one of {', '.join(TASKS)}. Next: choose among them."
            )
        if task == "captions":
            return [self._write_stamp(stamp) for stamp in self.stamps[:size]]
        return [self._write_pair(pair) for pair in self.pairs[:size]]

    def image_ids(self, split: str, subset: str | None = None) -> list[str]:
        """All distinct pictures; `subset` is a task or None for all."""
        tasks = TASKS if subset is None else (subset,)
        return list(dict.fromkeys(span.image_id for task in tasks for own in self.source(task, split) for span in own.images))

    def picture(self, image_id: str) -> Image.Image:
        """A picture by its name: "stamps/" or "gimp/" and its path in that folder."""
        return Image.fromarray(self._decode(image_id))

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """uint8 (n h w 3)."""
        return np.stack([self._decode(image_id) for image_id in image_ids])

    def vocabulary_texts(self, glyphs: bool = True) -> Iterator[str]:
        """Nothing may be learned from this data, a text tokenizer neither.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(_REFUSAL.format(what="a text tokenizer would read its texts"))

    def fingerprint(self) -> str:
        """A hash of all documents and pictures."""
        digest = hashlib.sha256(f"{self.image_size}".encode())
        for task in TASKS:
            for document in self.source(task, SPLIT):
                digest.update(json.dumps(document.to_json(), sort_keys=True).encode())
        for image_id in self.image_ids(SPLIT):
            digest.update(self._find(image_id).read_bytes())
        return digest.hexdigest()

    def _write_stamp(self, stamp: Stamp) -> Document:
        facts = {
            "task": "captions",
            "split": SPLIT,
            "source": "Tux Paint stamps",
            "license": STAMPS_LICENSE,
            "is_drawn": stamp.is_drawn,
        }
        name = f"stamps/{stamp.path.relative_to(self.folders['stamps']).as_posix()}"
        return Document((TextSpan(stamp.caption), ImageSpan(name)), id=f"captions/{stamp.name}", kind="pair", meta=facts)

    def _write_pair(self, pair: EditPair) -> Document:
        facts = {"task": "edits", "split": SPLIT, "source": "GIMP help", "license": GIMP_LICENSE}
        before, after = (f"gimp/{path.relative_to(self.folders['gimp']).as_posix()}" for path in (pair.before, pair.after))
        spans = (ImageSpan(before), TextSpan(pair.instruction), ImageSpan(after, loss=True))
        return Document(spans, id=f"edits/{pair.name}", kind="dialogue", meta=facts)

    def _find(self, image_id: str) -> Path:
        kind, _, place = image_id.partition("/")
        folder = self.folders.get(kind)
        path = (folder / place).resolve() if folder else Path()
        if folder is None or not path.is_relative_to(folder.resolve()):
            raise DocumentError(f"{image_id!r} names no picture: expected for example 'stamps/food/fruit/apple_red.png'.")
        return path

    def _read(self, image_id: str) -> np.ndarray:
        picture = open_image(self._find(image_id), name=image_id, max_pixels=MAX_PIXELS)
        return np.asarray(pad_square(picture, self.image_size, colour=WHITE))


_REFUSAL = "The hard data (Tux Paint stamps, GIMP help) is never trained on, and {what}. Next: train on other data."


def _check_split(split: str) -> None:
    if split != SPLIT:
        raise RecipeError(_REFUSAL.format(what=f"the split {split!r} was asked for, expected {SPLIT!r}"))
