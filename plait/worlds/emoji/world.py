"""`EmojiWorld`, the default data of plait: 12 objects x 5 colours, drawn from real emoji art, one picture per scene.

Everything is computed from two small packages: no download, no files written, no chance in the drawing. The world knows nothing
of tokenizers, templates or models; see DATA_CARD.md for contents, splits, limits and licences.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from itertools import chain, product
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji import glyphs as art
from plait.worlds.emoji.board_texts import COUNTS, PLURALS
from plait.worlds.emoji.boards import CELL, SMALLEST, Board, check_board_size, draw_board
from plait.worlds.emoji.captions import add_article
from plait.worlds.emoji.glyphs import Glyph, fit_glyph, list_glyphs, open_glyph
from plait.worlds.emoji.painted import draw_painted, list_painted
from plait.worlds.emoji.pools import POOLS, Pools
from plait.worlds.emoji.questions import NUMBERS, PLACE_PHRASES
from plait.worlds.emoji.recolour import recolour
from plait.worlds.emoji.scenes import AREAS, COLOURS, OBJECTS, Cell, Scene, draw_scene
from plait.worlds.emoji.sources import DENSE, PAINTED, TASKS, Source, open_painted, open_source
from plait.worlds.emoji.splits import SPLITS, assign_glyph, assign_scenes, check_split

if TYPE_CHECKING:
    from plait.worlds.emoji.examinations.plan import EmojiExaminations


class EmojiWorld:
    """Documents and pictures of the world.

    Args:
        image_size: width and height of every picture in pixels, a multiple of 16.
        seed: of the documents; splits and pictures do not depend on it.
        has_painted: whether training has the task "painted" besides: other real glyphs in the colours of the world.
        dense_size: width and height of dense pictures (`boards.py`), 128, 256, 384 or 512; with it there are the tasks "dense" (captions)
            and "dense_vqa" (questions) in every split. None: there are no such pictures.
    """

    objects = OBJECTS
    colours = COLOURS
    splits = SPLITS
    tasks = TASKS
    is_closed = True
    """Its words are all the words that there are."""

    def __init__(self, image_size: int = 64, seed: int = 0, has_painted: bool = False, dense_size: int | None = None) -> None:
        if image_size < 32 or image_size % 16:
            raise RecipeError(f"EmojiWorld draws pictures whose size is a multiple of 16 and at least 32, not {image_size}.")
        self.image_size = image_size
        self.seed = seed
        self.has_painted, self.dense_size = has_painted, dense_size
        if dense_size is not None:
            check_board_size(dense_size)
        self.tasks = (*TASKS, *((PAINTED,) if has_painted else ()), *(DENSE if dense_size is not None else ()))
        self._pools: dict[str, Pools] = {}
        self._pixels: dict[str, np.ndarray] = {}

    @property
    def assignment(self) -> Mapping[Scene, str | None]:
        """Every scene of the world and its split; None: of no split."""
        return assign_scenes()

    def picture(self, image_id: str) -> Image.Image:
        """The picture of a scene, glyph, painted glyph or board.

        Raises:
            DocumentError: the id names none.
        """
        return Image.fromarray(self._draw(image_id))

    def picture_size(self, image_id: str) -> int:
        """Width and height of a picture in pixels."""
        return self.dense_size if image_id.startswith("dense/") and self.dense_size is not None else self.image_size

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """Pictures by their ids; each is drawn once and kept, boards excepted, of which there are too many.

        Returns:
            uint8 (n h w 3).

        Raises:
            RecipeError: the pictures differ in size.
        """
        sizes = sorted({self.picture_size(image_id) for image_id in image_ids}) or [self.image_size]
        if len(sizes) > 1:
            raise RecipeError(
                f"Pictures of {' and '.join(map(str, sizes))} pixels meet in one batch, expected one size. Set world.image_size and "
                "world.dense_size to the same, or train on one of them."
            )
        pixels = np.empty((len(image_ids), sizes[0], sizes[0], 3), np.uint8)
        for index, image_id in enumerate(image_ids):
            pixels[index] = self._draw(image_id)
        return pixels

    def image_ids(self, split: str, subset: str | None = None) -> list[str]:
        """All distinct pictures that belong to a split: scenes, then glyphs (train and val only), then painted glyphs (train) and boards
        (those of the documents of their default number), where the world has them. Scenes with one object of seen cells belong to train
        alone.

        Args:
            subset: "scenes", "glyphs", "painted", "dense" or None for all; or scenes of one kind (`POOLS`).
        """
        if subset in POOLS:
            return [scene.id for scene in getattr(self.pools(split), subset)]
        check_split(split)
        subsets = {
            "scenes": lambda: [scene.id for scene, own in self.assignment.items() if own == split],
            "glyphs": lambda: [f"glyph/{glyph.code}" for glyph in self.glyphs(split)],
            PAINTED: lambda: [item.id for item in list_painted()] if self.has_painted and split == "train" else [],
            "dense": lambda: self._list_boards(split),
        }
        if subset is not None and subset not in subsets:
            raise RecipeError(
                f"EmojiWorld has no subset {subset!r}: expected one of {', '.join((*subsets, *POOLS))}, or None for all."
            )
        return [name for key, listed in subsets.items() if subset in (None, key) for name in listed()]

    def glyphs(self, split: str) -> list[Glyph]:
        """The real glyphs of a split: 19 in 20 for train, the rest for val."""
        return [glyph for glyph in list_glyphs() if assign_glyph(glyph.code) == split]

    def pools(self, split: str) -> Pools:
        """The scenes that documents of a split are made of."""
        check_split(split)
        if split not in self._pools:
            self._pools[split] = Pools(split, self.assignment)
        return self._pools[split]

    def source(self, task: str, split: str, size: int | None = None) -> Source:
        """The documents of a task: `len(source)` of them, `source[i]` in under 100 microseconds.

        Args:
            size: None takes DATA_CARD.md's size; outside training at most as many as there are distinct prompts.

        Raises:
            RecipeError: no such task or split, or fewer distinct documents than asked for.
        """
        pools = self.pools(split)
        if task not in self.tasks:
            raise RecipeError(f"EmojiWorld has no task {task!r}: expected one of {self.tasks}. Next: choose among them.")
        if task == PAINTED:
            return open_painted(list_painted(), split, self.seed, size)
        return open_source(task, pools, self.glyphs(split) if task == "glyphs" else (), self.seed, size)

    @property
    def examinations(self) -> "EmojiExaminations":
        """What this world asks, with a judge of its own that is still to be calibrated."""
        from plait.worlds.emoji.examinations.plan import EmojiExaminations  # here: what judges the world knows it

        return EmojiExaminations(self)

    def vocabulary_texts(self, glyphs: bool = True) -> Iterator[str]:
        """Texts that cover every word of every split, without the content that the splits hold out.

        Args:
            glyphs: whether the names of the real glyphs are included (some 2,000 words more).
        """
        # One word or phrase at a time: objects that never meet in training do not meet here either.
        yield from (*OBJECTS, *COLOURS, *NUMBERS, *PLACE_PHRASES.values())
        for task in TASKS:
            if task != "glyphs":
                yield from (document.text for document in self.source(task, "train", 500))
        if self.dense_size is not None:
            yield from (*COUNTS, *PLURALS.values(), *"0123456789")
            yield from (document.text for task in DENSE for document in self.source(task, "train", 500))
        if glyphs:
            yield from (add_article(glyph.name) for glyph in list_glyphs())

    def fingerprint(self) -> str:
        """A hash of all that determines the data: package versions, options, drawings, splits, first documents of each task."""
        facts = {package: version(package) for package in art.PACKAGES}
        facts |= {"image_size": self.image_size, "seed": self.seed, "glyphs": [glyph.code for glyph in list_glyphs()]}
        facts["splits"] = [[scene.id, own] for scene, own in self.assignment.items()]
        if self.has_painted:
            facts[PAINTED] = self.image_ids("train", PAINTED)
        tasks = TASKS
        if self.dense_size is not None:
            facts["dense_size"], tasks = self.dense_size, (*TASKS, *DENSE)
        first = chain.from_iterable((self.source(task, "train", 8)[number] for number in range(8)) for task in tasks)
        facts["documents"] = [document.to_json() for document in first]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for key in sorted(self.sprites):
            digest.update(self.sprites[key].tobytes())
        return digest.hexdigest()

    @cached_property
    def sprites(self) -> dict[tuple[str, str, bool], np.ndarray]:
        """(colour, object, is large) -> uint8 picture of a slot area."""
        unit = self.image_size // 8
        sprites = {}
        for name in OBJECTS:
            glyph = open_glyph(art.OBJECT_CODES[name])
            for colour, is_large in product(COLOURS, (False, True)):
                area = unit * AREAS["centre" if is_large else "left"][2]
                sprites[colour, name, is_large] = fit_glyph(recolour(glyph, name, colour), area, margin=max(1, unit // 8))
        return sprites

    @cached_property
    def board_sprites(self) -> dict[Cell, np.ndarray]:
        """(colour, object) -> uint8 picture of a place of a board."""
        unit = (self.dense_size or 0) // SMALLEST
        glyphs = {name: open_glyph(art.OBJECT_CODES[name]) for name in OBJECTS}
        return {
            (colour, name): fit_glyph(recolour(glyphs[name], name, colour), unit * CELL, margin=unit)
            for colour, name in product(COLOURS, OBJECTS)
        }

    def _list_boards(self, split: str) -> list[str]:
        sources = [self.source(task, split) for task in DENSE] if self.dense_size is not None else []
        return list(dict.fromkeys(document.images[0].image_id for source in sources for document in source))

    def _draw(self, image_id: str) -> np.ndarray:
        if self.dense_size is not None and image_id.startswith("dense/"):
            return draw_board(Board.from_id(image_id), self.board_sprites, self.dense_size)
        if image_id not in self._pixels:
            kind, _, body = image_id.partition("/")
            if kind == "scene":
                drawn = draw_scene(Scene.from_id(image_id), self.sprites, self.image_size)
            elif kind == "glyph":
                drawn = fit_glyph(open_glyph(body), self.image_size, margin=self.image_size // 32)
            elif kind == PAINTED:
                drawn = draw_painted(image_id, self.image_size)
            else:
                expected = "'scene/...', 'glyph/...', 'painted/...', or 'dense/...' where world.dense_size is set"
                raise DocumentError(f"{image_id!r} names no picture of EmojiWorld: expected {expected}.")
            self._pixels[image_id] = drawn
        return self._pixels[image_id]
