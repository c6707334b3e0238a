"""Frames: what a picture is in a sequence. Layout, grammar, capacity, counts and budgets ask a frame, and nobody else knows.

    markers before | content: positions of codes or of features, tile after tile | markers after

A system has one frame per form in which a picture can stand in its documents, and draws pictures in one of them (`drawn_frame`):

    Liquid          <boi> codes <eoi>, given and drawn
    SynerGen-VL     the same, several codes folded into a position; given pictures may have tiles
    ILLUME          given: <boi> features <eoi>, tiles; drawn: <boi> codes <eoi>
    ARMOR           given: <img> features </img>, tiles; drawn: <imgbos> (scored by the text head) codes <imgend> (both by the visual head)
    MM-Interleaved  <soi> features, no end marker, given and drawn; the target is the picture itself, predicted where its marker stands

A marker has the head that scores it, and may be forced: the sampler puts it, nobody draws it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from plait.document import Form, ImageSpan
from plait.errors import LayoutError, VocabularyError
from plait.sequence.vocabulary import Segment

Target = Literal["positions", "picture"]


@dataclass(frozen=True)
class Marker:
    """A marker of a frame.

    Args:
        name: of the vocabulary (`Vocabulary.specials`).
        head: the loss term, and head, that its prediction belongs to.
        is_forced: nothing else may stand there, so it is put and not drawn. Training supervises it all the same.
    """

    name: str
    head: str = "text"
    is_forced: bool = False


BEGIN, END = Marker("begin_image"), Marker("end_image", is_forced=True)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a picture of one form is in a sequence.

    Args:
        lengths: positions of one tile, level after level (features: one level).
        before, after: markers around the content. The first of `before` is what a model decides to begin a picture with.
        head: the loss term, and head, that the content belongs to where it is drawn.
        max_tiles: tiles that a given picture may have; what carries loss has one.
        target: what a picture with loss supervises: its positions and the markers after it, or the picture as a whole, which a head
            predicts from the hidden state of the last marker before it (its positions then carry no loss).
    """

    lengths: tuple[int, ...]
    before: tuple[Marker, ...] = (BEGIN,)
    after: tuple[Marker, ...] = (END,)
    head: str = "image"
    max_tiles: int | None = None
    target: Target = "positions"

    form: Form = "features"
    codes_per_position: int = 0

    @property
    def positions(self) -> int:
        """Positions of one tile, without markers."""
        return sum(self.lengths)

    def length(self, tiles: int = 1) -> int:
        """Positions of a picture, markers included: what it takes of a row and of a budget."""
        return len(self.before) + self.positions * tiles + len(self.after)

    @property
    def levels(self) -> tuple[int, ...]:
        """Per position of a tile, its level."""
        return tuple(level for level, count in enumerate(self.lengths) for _ in range(count))

    def count_tiles(self, span: ImageSpan) -> int:
        """Tiles of a picture whose content is there: images (h w 3) have one, (t h w 3) have t.

        Raises:
            LayoutError: the content is of another shape, or has more tiles than the frame takes.
        """
        pixels = np.asarray(span.pixels)
        if pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
            raise LayoutError(
                f"Image {span.image_id!r} has pixels of shape {pixels.shape} and type {pixels.dtype}, expected (height, width, 3) or "
                "(tiles, height, width, 3) of uint8. Open it with plait.images, or cut it with plait.tiling."
            )
        return self._check_tiles(span, 1 if pixels.ndim == 3 else len(pixels))

    def encode(self, span: ImageSpan) -> np.ndarray:
        """Global ids (n f) of the codes at each position; features have none: (n 0)."""
        return np.empty((self.count_tiles(span) * self.positions, 0), dtype=np.int64)

    def decode(self, ids: np.ndarray, known: ImageSpan | None) -> dict[str, object]:
        """The content of an image span from the ids at its positions, as fields of it. Features are those of the span they came from."""
        return {"pixels": known.pixels if known else None}

    def _check_tiles(self, span: ImageSpan, tiles: int) -> int:
        most = 1 if span.loss else self.max_tiles
        if most is not None and tiles > most:
            what = "carries loss and" if span.loss else "is given and"
            raise LayoutError(
                f"Image {span.image_id!r} {what} has {tiles} tiles, expected {'one' if most == 1 else f'at most {most}'}: what is drawn "
                "is one tile always. Encode it with tiling=small, or only ask about such pictures (template.text_to_image_ratio=0)."
            )
        return tiles


@dataclass(frozen=True, kw_only=True)
class CodeFrame(Frame):
    """Pictures as codes; made by `code_frame`.

    Args:
        segments: of the vocabulary, one per level.
        grid_shapes: (gh, gw) per level of one tile.
        places: (n f) per level: the places (raster order) of the codes that stand at one position together.
    """

    segments: tuple[Segment, ...]
    grid_shapes: tuple[tuple[int, int], ...]
    places: tuple[np.ndarray, ...]

    def count_tiles(self, span: ImageSpan) -> int:
        """Tiles of an encoded picture: the first axis of grids that have three.

        Raises:
            LayoutError: number or shape of the grids is not that of the frame, or there are more tiles than it takes.
        """
        shapes = tuple(np.shape(grid) for grid in span.codes or ())
        tiles = {1 if len(shape) == 2 else shape[0] for shape in shapes}
        if tuple(shape[-2:] for shape in shapes) != self.grid_shapes or len(tiles) != 1 or any(len(s) > 3 for s in shapes):
            raise LayoutError(
                f"Image {span.image_id!r} has code grids {shapes}, expected {self.grid_shapes}. Bring the picture to the size "
                "of the tokenizer and encode it again."
            )
        return self._check_tiles(span, *tiles)

    def encode(self, span: ImageSpan) -> np.ndarray:
        """Global ids (n f), position after position, level after level. An image may come in tiles: then each grid has them as its
        first axis, and they follow each other.

        Raises:
            LayoutError: the grids are not what the frame expects.
            VocabularyError: a code lies outside its codebook.
        """
        tiles, runs = self.count_tiles(span), []
        for grid, segment, places in zip(map(np.asarray, span.codes), self.segments, self.places, strict=True):
            if not np.issubdtype(grid.dtype, np.integer):
                raise LayoutError(
                    f"Image {span.image_id!r} has codes of type {grid.dtype}, expected whole numbers. Encode it again."
                )
            codes = grid.astype(np.int64)
            if codes.min() < 0 or codes.max() >= segment.size:
                raise VocabularyError(
                    f"Image {span.image_id!r}: codes run from {codes.min()} to {codes.max()}, outside the {segment.size} "
                    f"codes of segment {segment.name!r}. Was it encoded with another tokenizer? Encode it with this one."
                )
            runs.append(codes.reshape(tiles, -1)[:, places] + segment.offset)
        return np.concatenate(runs, axis=1).reshape(-1, self.codes_per_position)

    def decode(self, ids: np.ndarray, known: ImageSpan | None = None) -> dict[str, object]:
        """The inverse of `encode`: one grid per level, with a first axis for tiles where there are several.

        Raises:
            LayoutError: an id is no code of its level, or they are not those of whole tiles.
        """
        if not len(ids) or len(ids) % self.positions:
            raise LayoutError(f"{len(ids)} positions of an image, expected {self.positions} for each tile.")
        tiles = ids.reshape(-1, self.positions, self.codes_per_position)
        grids, start = [], 0
        for shape, segment, places in zip(self.grid_shapes, self.segments, self.places, strict=True):
            local = tiles[:, start : start + len(places)] - segment.offset
            if local.min() < 0 or local.max() >= segment.size:
                raise LayoutError(f"ids {int(ids.min())} to {int(ids.max())} are not all codes of segment {segment.name!r}.")
            grid = np.empty((len(tiles), places.size), dtype=np.int64)
            grid[:, places] = local
            grids.append(grid.reshape(-1, *shape) if len(tiles) > 1 else grid.reshape(shape))
            start += len(places)
        return {"codes": tuple(grids)}


def code_frame(
    segments: Sequence[Segment],
    grid_shapes: Sequence[tuple[int, int]],
    places: Sequence[np.ndarray] | None = None,
    *,
    before: tuple[Marker, ...] = (BEGIN,),
    after: tuple[Marker, ...] = (END,),
    max_tiles: int | None = None,
) -> CodeFrame:
    """The frame of pictures as codes.

    Args:
        segments: of the vocabulary, one per level of codes.
        grid_shapes: (gh, gw) per level: fixes how many codes a tile has. Images of another size are an error.
        places: see `CodeFrame`. None: every code has a position of its own.

    Raises:
        LayoutError: not one grid and one set of places per level, or places that do not hold every place once.
    """
    shapes = tuple((int(h), int(w)) for h, w in grid_shapes)
    places = tuple(places or (np.arange(h * w)[:, None] for h, w in shapes))
    if len(shapes) != len(segments):
        raise LayoutError(f"{len(shapes)} grid shapes for {len(segments)} code segments: expected one per level.")
    found = [sorted(each.flat) for each in places]
    if found != [list(range(h * w)) for h, w in shapes] or len({each.shape[1] for each in places}) > 1:
        raise LayoutError(
            f"Patches of shapes {[each.shape for each in places]} on grids {shapes}: expected every place of every level once, and as "
            "many codes at every position."
        )
    return CodeFrame(
        lengths=tuple(len(each) for each in places),
        before=before,
        after=after,
        max_tiles=max_tiles,
        form="codes",
        codes_per_position=places[0].shape[1],
        segments=tuple(segments),
        grid_shapes=shapes,
        places=places,
    )


def by_form(frames: Iterable[Frame]) -> Mapping[Form, Frame]:
    """Frames by their form.

    Raises:
        LayoutError: two frames of one form, or forms that cannot be told apart in a sequence.
    """
    frames = tuple(frames)
    found = {frame.form: frame for frame in frames}
    if len(found) != len(frames):
        raise LayoutError(f"Frames of the forms {[frame.form for frame in frames]}: expected one per form.")
    return found
