"""`StyledWorld`: real emoji art in four styles, nothing composed or recoloured. What is asked is whether a model can draw a concept in a
style, or a role in a skin tone, that it has only seen apart. No oracle judges these pictures.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from random import Random

import numpy as np
from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji.glyphs import OBJECT_CODES, read_names, to_code
from plait.worlds.styles.art import FOLDERS, LICENSES, STYLES, TARBALLS, draw_style, open_style
from plait.worlds.styles.concepts import SPLITS, TONES, Cell, assign_cells, check_split

TASKS = ("glyphs", "vqa")
HELD_PIXELS = 2**28
"""bytes of pictures that are kept"""


class StyledWorld:
    """Documents and pictures of four styles.

    Args:
        image_size: width and height of every picture in pixels.
        seed: of the order of the documents.

    Raises:
        RecipeError: the art is not installed or not fetched.
    """

    splits, tasks = SPLITS, TASKS
    is_closed = True
    examinations = None

    def __init__(self, image_size: int = 64, seed: int = 0) -> None:
        if image_size < 32:
            raise RecipeError(f"Pictures of {image_size} pixels were asked for, expected at least 32. Set world.image_size.")
        self.image_size, self.seed = image_size, seed
        self._draw = lru_cache(maxsize=max(64, HELD_PIXELS // (3 * image_size**2)))(self._draw_cell)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every drawing that has a name: each style's doubles once, without the objects of EmojiWorld (which its splits hold out)."""
        names: dict[str, str] = {}
        for text, name in read_names().items():
            names.setdefault(to_code(text), name)
        own = set(OBJECT_CODES.values())
        cells = []
        for style in STYLES:
            drawings, seen = open_style(style), set()
            codes = (code for code in names if code in drawings.found and code not in own)
            # of codes drawn alike the plainest, then the shortest name is kept, as in EmojiWorld
            for code in sorted(codes, key=lambda code: (code.count("-"), len(names[code]), code)):
                digest = hashlib.sha256(drawings.svg(code).encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    cells.append(Cell(code, style, names[code]))
        return tuple(sorted(cells, key=lambda cell: (cell.code, cell.style)))

    @cached_property
    def assignment(self) -> dict[Cell, str | None]:
        """Every drawing and its split; None: of no split."""
        drawn = {style: [cell.code for cell in self.cells if cell.style == style] for style in STYLES}
        splits = assign_cells(drawn)
        return {cell: splits[cell.style, cell.code] for cell in self.cells}

    def select(self, split: str) -> list[Cell]:
        """The drawings of a split."""
        check_split(split)
        return [cell for cell, own in self.assignment.items() if own == split]

    def source(self, task: str, split: str, size: int | None = None) -> Sequence[Document]:
        """The documents of a task, one per drawing, in an order of their own.

        Args:
            task: "glyphs" (a caption and its picture) or "vqa" (what it is, its style, its skin tone).
            size: None takes all there are.

        Raises:
            RecipeError: no such task or split, or fewer documents than asked for.
        """
        if task not in TASKS:
            raise RecipeError(f"The styles have no task {task!r}: expected one of {', '.join(TASKS)}. Next: choose among them.")
        cells = self.select(split)
        if size is not None and size > len(cells):
            raise RecipeError(
                f"The styles have {len(cells)} documents of {task}/{split}, asked for were {size}. Ask for fewer."
            )
        order = Random(f"{self.seed}/{task}/{split}").sample(cells, len(cells) if size is None else size)
        write = write_glyph if task == "glyphs" else write_questions
        facts = {"task": task, "split": split, "source": "real"}
        documents = ((write(cell), cell) for cell in order)
        return [
            replace(
                raw, id=f"{task}/{split}/{cell.style}/{cell.code}", meta={**facts, "license": LICENSES[cell.style], **raw.meta}
            )
            for raw, cell in documents
        ]

    def image_ids(self, split: str, subset: str | None = None) -> list[str]:
        """All pictures of a split.

        Args:
            subset: "glyphs" or None, which are the same.
        """
        if subset not in (None, "glyphs"):
            raise RecipeError(f"The styles have no subset {subset!r}: expected glyphs, or None for all.")
        return [cell.id for cell in self.select(split)]

    def picture(self, image_id: str) -> Image.Image:
        """A picture by its name.

        Raises:
            DocumentError: it names none.
        """
        return Image.fromarray(self._draw(image_id))

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """uint8 (n h w 3)."""
        return np.stack([self._draw(image_id) for image_id in image_ids])

    def vocabulary_texts(self, glyphs: bool = True) -> Iterator[str]:
        """Texts with every word: names without their styles, styles without names; `glyphs` says nothing here."""
        yield from (cell.name for cell in self.cells)
        yield from (*STYLES, *TONES.values(), "in the style", "what is it ?", "what style is it in ?", "what skin tone is it ?")

    def fingerprint(self) -> str:
        """A hash of all drawings, names, splits and options."""
        facts = {"image_size": self.image_size, "seed": self.seed, "resvg_py": version("resvg_py")}
        facts |= {package: version(package.replace("_", "-")) for package, _ in FOLDERS.values()}
        facts |= {style: tarball.sha512 for style, tarball in TARBALLS.items()}
        facts["cells"] = [[cell.id, cell.name, own] for cell, own in self.assignment.items()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _draw_cell(self, image_id: str) -> np.ndarray:
        kind, _, rest = image_id.partition("/")
        style, _, code = rest.partition("/")
        if kind != "style" or style not in STYLES:
            raise DocumentError(f"{image_id!r} names no drawing: expected for example 'style/noto/1f34e'.")
        return draw_style(style, code, self.image_size)


def write_glyph(cell: Cell) -> Document:
    """What a drawing is called, and its picture: "red apple in the noto style"."""
    facts = {"name": cell.name, "style": cell.style, "tones": [TONES[tone] for tone in cell.tones]}
    return Document((TextSpan(f"{cell.name} in the {cell.style} style"), ImageSpan(cell.id)), kind="pair", meta=facts)


def write_questions(cell: Cell) -> Document:
    """A picture and what it is, its style, and its skin tone where it has exactly one."""
    asked = [("what is it ?", cell.name), ("what style is it in ?", cell.style)]
    asked += [("what skin tone is it ?", TONES[tone]) for tone in cell.tones if len(cell.tones) == 1]
    spans = [span for question, answer in asked for span in (TextSpan(question), TextSpan(answer, loss=True))]
    return Document((ImageSpan(cell.id), *spans), kind="dialogue", meta=dict(write_glyph(cell).meta))
