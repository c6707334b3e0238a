"""`slot_lookup`: what a table of seen blocks does, without a model. It draws by pasting and reads by finding.

From scenes of the training split it keeps, for every (object, colour, slot), the block of codes that the tokenizer gives to that slot
most often, and the codes of empty places. To draw, it pastes the block of each thing that is asked for into its slot and lets the
tokenizer's decoder show the codes; to read, it finds the layout of known blocks that agrees with most codes of the picture. What is asked
for it understands by the grammar of the world. A coloured object that training never showed has no block: it cannot be drawn, and is
read as the known block that agrees best.

How good that is depends on the tokenizer and the world, and is measured, not assumed: where codes are of one patch each and slots lie on
the patch grid, the table is right wherever all its blocks were seen (DATA_CARD.md). It does not apply to pictures that are no scenes of
slots (glyphs, boards), nor to spans that are no single picture of the tokenizer's size (tiles); `SlotLookup.of` says so by None.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from plait.document import ImageSpan
from plait.worlds.emoji.agreement import Finding
from plait.worlds.emoji.questions import answer
from plait.worlds.emoji.scenes import AREAS, AXES, SLOTS, Scene, Thing

Grids = tuple[np.ndarray, ...]
"""codes of a picture, one grid per level"""

EXAMPLES = 4
"""scenes per thing and slot from which its block is taken: one suffices where a code depends on its patch alone"""
PATCH = 16
"""pixels along a patch, where a picture has no codes"""
LAYOUTS = (*((slot,) for slot in SLOTS), *AXES)


class SlotLookup:
    """The table.

    Args:
        examples: training scenes and their codes.
        show: spans of codes -> what the oracle sees in the pictures that the tokenizer decodes from them.
        codes: image id -> codes.
    """

    def __init__(
        self,
        examples: Sequence[tuple[Scene, Grids]],
        show: Callable[[Sequence[ImageSpan]], Sequence[Finding]],
        codes: Callable[[str], Grids],
    ) -> None:
        self._show, self._codes = show, codes
        self._seen: dict[Scene, Finding | None] = {}
        self._read: dict[str, Scene] = {}
        self._shapes = [grid.shape for grid in examples[0][1]]
        self.blocks = {
            thing: tuple(
                _most_frequent([grids[level][_area(thing.slot, shape)] for grids in found]) for level, shape in self._levels
            )
            for thing, found in _group(examples).items()
        }
        self.empty = tuple(self._find_empty(level, shape, examples) for level, shape in self._levels)
        self._known = {slot: [thing for thing in self.blocks if thing.slot == slot] for slot in SLOTS}
        self._tables = {
            slot: [np.stack([self.blocks[thing][level] for thing in known]) for level, _ in self._levels]
            for slot, known in self._known.items()
            if known
        }
        self._outside = {layout: [_find_outside(layout, shape) for _, shape in self._levels] for layout in LAYOUTS}

    @classmethod
    def of(cls, bench: Any, training: Sequence[Scene]) -> "SlotLookup | None":
        """The table of a bench's tokenizer, or of patches of pixels for a model that reads pictures as they are; None where there is no
        single grid of codes per picture.

        Args:
            bench: a `plait.evaluation.bench.Bench`.
            training: scenes of the training split.
        """
        tokenizer, codes = bench.model.vision_tokenizer, bench.pictures.codes
        if tokenizer is None:
            if bench.model.image_size is None:
                return None
            codes = lambda name: (_number_patches(bench.pictures.pixels(name)),)  # noqa: E731
        grids = {scene: tuple(np.asarray(grid) for grid in codes(scene.id)) for scene in _choose(training)}
        first = next(iter(grids.values()))
        shapes = [tuple(shape) for shape in (tokenizer.grid_shapes if tokenizer else map(np.shape, first))]
        if any([grid.shape for grid in found] != shapes for found in grids.values()):
            return None
        return cls(
            list(grids.items()),
            lambda spans: bench.judge.see(bench.decode(spans)),
            lambda name: tuple(map(np.asarray, codes(name))),
        )

    @property
    def _levels(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        return enumerate(self._shapes)

    def draw(self, scenes: Sequence[Scene | None]) -> list[Finding | None]:
        """What is seen in the pictures that the table makes of scenes; None where there is no scene to draw."""
        new = [scene for scene in dict.fromkeys(scenes) if scene is not None and scene not in self._seen]
        spans = [ImageSpan("lookup", form="codes", codes=self.paste(scene)) for scene in new]
        self._seen |= dict(zip(new, self._show(spans), strict=True))
        return [None if scene is None else self._seen[scene] for scene in scenes]

    def paste(self, scene: Scene) -> Grids:
        """The codes of a scene: the blocks of its things in their slots, and nothing where the table has no block."""
        grids = tuple(grid.copy() for grid in self.empty)
        for thing in scene.things:
            for level, block in enumerate(self.blocks.get(thing, ())):
                grids[level][_area(thing.slot, self._shapes[level])] = block
        return grids

    def read(self, image_id: str) -> Scene:
        """The scene of known blocks that agrees with most codes of a picture; of equally good ones the one with fewest things."""
        if image_id not in self._read:
            grids = self._codes(image_id)
            places = {slot: self._find(slot, grids) for slot in self._tables}
            is_empty = [own == grid for own, grid in zip(self.empty, grids, strict=True)]
            best, found = -1, None
            for layout, outside in self._outside.items():
                things = [places[slot] for slot in layout if slot in places]
                if len({thing.object for thing, _ in things}) < len(layout):
                    continue
                agreement = sum(count for _, count in things)
                agreement += sum(int((here & free).sum()) for here, free in zip(is_empty, outside, strict=True))
                if agreement > best:
                    best, found = agreement, Scene(tuple(thing for thing, _ in things))
            self._read[image_id] = found
        return self._read[image_id]

    def answer(self, image_id: str, question: str) -> str | None:
        """The answer to a question about a picture; None where the scene that was read has none."""
        return answer(question, self.read(image_id))

    def _find(self, slot: str, grids: Grids) -> tuple[Thing, int]:
        """The known thing whose block agrees with most codes of a slot, and with how many."""
        agreement = sum(
            (self._tables[slot][level] == grids[level][_area(slot, shape)]).sum((1, 2)) for level, shape in self._levels
        )
        index = int(agreement.argmax())
        return self._known[slot][index], int(agreement[index])

    def _find_empty(self, level: int, shape: tuple[int, ...], examples: Sequence[tuple[Scene, Grids]]) -> np.ndarray:
        """The most frequent code of each place where nothing stands; of places that are never empty the most frequent one of all."""
        counts: dict[tuple[int, int], Counter] = {}
        for scene, grids in examples:
            slots = [thing.slot for thing in scene.things]
            for row, column in zip(*np.nonzero(_find_outside(slots, shape)), strict=True):
                counts.setdefault((row, column), Counter())[int(grids[level][row, column])] += 1
        everywhere = sum(counts.values(), Counter()) or Counter(examples[0][1][level].flatten().tolist())
        empty = np.full(shape, everywhere.most_common(1)[0][0], dtype=examples[0][1][level].dtype)
        for place, counted in counts.items():
            empty[place] = counted.most_common(1)[0][0]
        return empty


def _area(slot: str, shape: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of a grid that a slot touches (`AREAS` counts in eighths of the canvas)."""
    row, column, size = AREAS[slot]
    return tuple(
        slice(start * length // 8, -(-(start + size) * length // 8)) for start, length in ((row, shape[0]), (column, shape[1]))
    )


def _find_outside(layout: Sequence[str], shape: Sequence[int]) -> np.ndarray:
    """Where a grid is empty if things stand in these slots."""
    is_free = np.ones(shape, dtype=bool)
    for slot in layout:
        is_free[_area(slot, shape)] = False
    return is_free


def _choose(training: Sequence[Scene]) -> list[Scene]:
    """The first scenes that show each thing in its slot, `EXAMPLES` of each at most, those with one thing first."""
    counts: Counter[Thing] = Counter()
    chosen = []
    for scene in sorted(dict.fromkeys(training), key=lambda scene: len(scene.things)):
        if any(counts[thing] < EXAMPLES for thing in scene.things):
            counts.update(scene.things)
            chosen.append(scene)
    return chosen


def _group(examples: Sequence[tuple[Scene, Grids]]) -> Mapping[Thing, list[Grids]]:
    found: dict[Thing, list[Grids]] = {}
    for scene, grids in examples:
        for thing in scene.things:
            found.setdefault(thing, []).append(grids)
    return found


def _most_frequent(blocks: Sequence[np.ndarray]) -> np.ndarray:
    counted = Counter(block.tobytes() for block in blocks)
    wanted = counted.most_common(1)[0][0]
    return next(block for block in blocks if block.tobytes() == wanted)


def _number_patches(pixels: np.ndarray) -> np.ndarray:
    """A picture (h w 3) as a grid of numbers, the same for equal patches of 16 x 16 pixels."""
    rows = [np.split(row, pixels.shape[1] // PATCH, axis=1) for row in np.split(pixels, pixels.shape[0] // PATCH)]
    return np.array([[crc32(np.ascontiguousarray(patch)) for patch in row] for row in rows], dtype=np.int64)
