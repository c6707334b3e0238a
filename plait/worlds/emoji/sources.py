"""Sequences of documents: document i is a pure function of (seed, task, split, i), made when it is asked for, without drawing.

Training sources draw with repetition and have any length. The other splits hold distinct prompts only: as many as were asked
for, or as many as there are. One-object scenes are few (300), so their sources on val and test are short: see `len`.
"""

import hashlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from plait.document import Document, TextSpan
from plait.errors import RecipeError
from plait.worlds.emoji.board_writers import BOARD_WRITERS
from plait.worlds.emoji.glyphs import Glyph
from plait.worlds.emoji.painted import PaintedGlyph
from plait.worlds.emoji.pools import Pools
from plait.worlds.emoji.writers import WRITERS, write_glyph, write_painted, write_pair

PAIR_TASKS = ("one_object", "centred", "placed", "two_objects")
TASKS = (*PAIR_TASKS, "glyphs", *WRITERS)
PAINTED = "painted"
"""the task of a world with painted glyphs"""
DENSE = tuple(BOARD_WRITERS)
"""the tasks of a world with dense pictures"""

_WRITERS = {**WRITERS, **BOARD_WRITERS}

TRAIN_SIZES = {"stories": 8_000, "edits": 8_000, "text": 8_000}
TRAIN_SIZE = 20_000
TEST_SIZES = {"stories": 800, "edits": 800, "text": 800}
TEST_SIZE = 2_000

LICENSE = "CC-BY-4.0"
"""of the art (Twemoji); scenes are composed of recoloured art, which the data card states as the licence asks"""

_THROWS = 400


class Source(Sequence[Document]):
    """Documents of one task and split.

    Args:
        make: number -> document.
        size: how many there are.
    """

    def __init__(self, task: str, split: str, size: int, make: Callable[[int], Document]) -> None:
        self.task, self.split, self._size, self._make = task, split, size, make

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Document:
        number = operator.index(index)
        number += self._size if number < 0 else 0
        if not 0 <= number < self._size:
            raise IndexError(f"document {index} of {self.task}/{self.split}, which has {self._size}")
        document = self._make(number)
        source = "real" if self.task == "glyphs" else "composed"
        meta = {"task": self.task, "split": self.split, "source": source, "license": LICENSE, **document.meta}
        return replace(document, id=f"{self.task}/{self.split}/{number}", meta=meta)


def open_painted(painted: Sequence[PaintedGlyph], split: str, seed: int, size: int | None) -> Source:
    """The documents of painted glyphs; only training has some.

    Raises:
        RecipeError: another split, or fewer than `size`.
    """
    documents = [write_painted(item) for item in painted] if split == "train" else []
    return _select(PAINTED, split, _shuffle(documents, seed, PAINTED, split), size)


def open_source(task: str, pools: Pools, glyphs: Sequence[Glyph], seed: int, size: int | None) -> Source:
    """The documents of a task.

    Args:
        glyphs: glyphs of the split; read for the task "glyphs" only.
        size: number of documents; None takes the default, or as many as there are.

    Raises:
        RecipeError: there is no document of it in the split, or fewer than `size`.
    """
    split = pools.split
    if task == "glyphs":
        documents = [write_glyph(glyph) for glyph in glyphs]
        return _select(task, split, _shuffle(documents, seed, task, split), size)
    if split == "train":
        wanted = TRAIN_SIZES.get(task, TRAIN_SIZE) if size is None else size
        return Source(task, split, wanted, lambda number: _throw(task, pools, seed, number))
    if task in PAIR_TASKS:
        scenes = _shuffle(getattr(pools, task), seed, task, split)
        return _select(task, split, [write_pair(scene, number) for number, scene in enumerate(scenes)], size)
    wanted = TEST_SIZES.get(task, TEST_SIZE) if size is None else size
    return _select(task, split, _collect(task, pools, seed, wanted), size)


def _throw(task: str, pools: Pools, seed: int, number: int) -> Document:
    random = Random(_mix(seed, task, pools.split, number))
    if task in PAIR_TASKS:
        return write_pair(random.choice(getattr(pools, task)), random.randrange(2))
    for _ in range(_THROWS):
        document = _WRITERS[task](random, number, pools)
        if document is not None:
            return document
    raise RecipeError(f"{task}/{pools.split}: no document {number} in {_THROWS} throws, the split is too narrow for the task.")


def _collect(task: str, pools: Pools, seed: int, wanted: int) -> list[Document]:
    """Distinct documents: the numbers of those that were met before are skipped."""
    found: dict[tuple, Document] = {}
    for number in range(4 * wanted + 100):
        document = _throw(task, pools, seed, number)
        found.setdefault(_prompt(document), document)
        if len(found) == wanted:
            break
    return list(found.values())


def _prompt(document: Document) -> tuple:
    return tuple(span.text if isinstance(span, TextSpan) else span.image_id for span in document.spans)


def _select(task: str, split: str, documents: Sequence[Document], size: int | None) -> Source:
    if not documents or (size is not None and size > len(documents)):
        raise RecipeError(
            f"EmojiWorld has {len(documents)} distinct documents of {task}/{split}, asked for were {size or 'all there are'}: "
            "ask for fewer, or take another split (test_pair has no one-object scenes, glyphs are in train and val only)."
        )
    return Source(task, split, len(documents) if size is None else size, documents.__getitem__)


def _shuffle(items: Sequence, seed: int, task: str, split: str) -> list:
    return Random(_mix(seed, task, split, -1)).sample(items, len(items))


def _mix(seed: int, task: str, split: str, number: int) -> int:
    # Not `hash`: it differs from process to process.
    return int.from_bytes(hashlib.blake2b(f"{seed}/{task}/{split}/{number}".encode(), digest_size=8).digest(), "big")
