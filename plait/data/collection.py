"""A collection: documents and pictures of one's own, with what a world offers to recipes (`source`, `picture`, `image_ids`, ...).

It is a folder that `plait.data.importing` has written: rows of the schema (`plait.data.hub`), their pictures square and of one size, and
`collection.json`, which says what was read, what was left out and why, and which rows are held out. So it is read by number wherever its
rows came from, and the order of training is computed as ever. It knows no truth besides its rows: no oracle can judge it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from plait.data.hub import Rows, open_rows
from plait.document import Document, TextSpan
from plait.errors import CheckpointError, RecipeError

FORMAT, MANIFEST, ROWS = "plait-collection-2", "collection.json", "rows"
TASK, SUBSET = "documents", "pictures"
SPLITS = ("train", "val")
HELD_PIXELS = 2**28
"""bytes of pictures that are kept decoded"""


class Collection:
    """Documents of one kind and their pictures.

    Args:
        folder: what `import_rows` wrote.

    Raises:
        CheckpointError: there is no collection, or it is damaged.
    """

    splits, tasks = SPLITS, (TASK,)
    is_closed = False
    """Its words are not all the words: prompts and held-out documents have others."""
    examinations = None
    """It knows no truth besides its rows, and is examined by its documents."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.kind: str = self.manifest["kind"]
        self.image_size: int = self.manifest["image_size"]
        self._decode = lru_cache(maxsize=max(64, HELD_PIXELS // (3 * self.image_size**2)))(self._read)

    @cached_property
    def rows(self) -> Rows:
        """All rows, of both splits."""
        return open_rows(self.folder / ROWS, cache_dir=str(self.folder / "arrow"))

    def source(self, task: str, split: str, size: int | None = None) -> Sequence[Document]:
        """The documents of a split.

        Args:
            task: "documents", the only one.
            size: the first so many; None takes all.

        Raises:
            RecipeError: no such task or split.
        """
        if task != TASK:
            raise RecipeError(f"A collection has no task {task!r}, expected {TASK!r}. Next: data=hub brings its own mixture.")
        return Part(self.rows, self._numbers(split)[:size])

    def image_ids(self, split: str, subset: str | None = None) -> list[str]:
        """All distinct pictures of a split.

        Args:
            subset: "pictures" or None, which are the same.
        """
        if subset not in (None, SUBSET):
            raise RecipeError(f"A collection has no subset {subset!r}, expected {SUBSET!r}, or None for all.")
        return list(dict.fromkeys(name for number in self._numbers(split) for name in self.manifest["pictures"][number]))

    def picture(self, image_id: str) -> Image.Image:
        """A picture by its content hash."""
        return Image.fromarray(self._decode(image_id))

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """uint8 (n h w 3)."""
        return np.stack([self._decode(image_id) for image_id in image_ids])

    def vocabulary_texts(self, glyphs: bool = True) -> Iterator[str]:
        """The texts of training, to train a text tokenizer on; `glyphs` says nothing here."""
        for document in self.source(TASK, "train"):
            yield from (span.text for span in document.spans if isinstance(span, TextSpan))

    def fingerprint(self) -> str:
        """A hash of all documents, pictures and of who is held out."""
        facts = {name: self.manifest[name] for name in ("kind", "image_size", "contents", "splits")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _numbers(self, split: str) -> list[int]:
        if split not in SPLITS:
            raise RecipeError(f"A collection has no split {split!r}: expected one of {', '.join(SPLITS)}. Name one of them.")
        return self.manifest["splits"][split]

    def _read(self, image_id: str) -> np.ndarray:
        return np.asarray(self.rows.picture(image_id))


class Part(Sequence[Document]):
    """Some rows, by their numbers."""

    def __init__(self, rows: Rows, numbers: Sequence[int]) -> None:
        self.rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Document:
        return self.rows[self.numbers[index]]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a collection says of itself.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"] if isinstance(manifest, dict) else None
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error!r}. Expected a collection. Next: remove the folder and import again."
        ) from error
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has the format {found!r}, expected {FORMAT!r}. Next: remove the folder and import again."
        )
    return manifest
