"""The vocabulary: one contiguous id space made of segments. The only place where id offsets exist.

The text segment is the text tokenizer's own table. Markers that the text tokenizer lacks get rows in the "special" segment; markers
that it has keep their text id (Liquid reuses Gemma's unused rows 7, 8 and 9: specs of Liquid, section 3.1). Image codes follow, one
segment per code level. Liquid's code adds codes after `len(tokenizer)` but rows after `config.vocab_size`, which differ for Qwen;
here offsets count *rows*, so a code never falls into padded text rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from plait.axes import Int, Tensor
from plait.errors import VocabularyError

Kind = Literal["text", "special", "codes"]
MARKERS = ("pad", "begin_document", "end_document", "begin_image", "end_image", "unconditional")


@dataclass(frozen=True)
class Segment:
    """A run of global ids that share one table of rows: ids offset .. offset + size - 1."""

    name: str
    kind: Kind
    offset: int
    size: int

    @property
    def stop(self) -> int:
        """One past the last global id."""
        return self.offset + self.size


class Vocabulary:
    """Segments and markers.

    Args:
        text_size: rows of the text table (not the number of words, where the table is padded).
        code_sizes: number of codes per level; empty for a model that draws without codes.
        text_markers: marker name -> id that the text tokenizer already gives it. All others of `MARKERS` get new rows.
        further: markers beside `MARKERS`, of the frames of pictures.

    Raises:
        VocabularyError: an unknown marker name, or a marker id outside the text table.
    """

    def __init__(
        self, text_size: int, code_sizes: Sequence[int], text_markers: Mapping[str, int], further: Sequence[str] = ()
    ) -> None:
        names = (*MARKERS, *further)
        unknown = sorted(set(text_markers) - set(names))
        if unknown:
            raise VocabularyError(f"Unknown markers {unknown}: expected some of {list(names)}.")
        outside = {name: id for name, id in text_markers.items() if not 0 <= id < text_size}
        if outside:
            raise VocabularyError(f"Markers {outside} lie outside the text table of {text_size} rows.")
        new = [name for name in names if name not in text_markers]
        sizes: list[tuple[str, Kind, int]] = [("text", "text", text_size)]
        if new:
            sizes.append(("special", "special", len(new)))
        sizes += [(f"codes_{level}", "codes", size) for level, size in enumerate(code_sizes)]
        segments, offset = [], 0
        for name, kind, size in sizes:
            segments.append(Segment(name, kind, offset, size))
            offset += size
        self.segments: tuple[Segment, ...] = tuple(segments)
        self.size = offset
        self.specials = dict(text_markers) | {name: text_size + index for index, name in enumerate(new)}
        self.code_segments = tuple(segment for segment in segments if segment.kind == "codes")
        self._offsets = np.array([segment.offset for segment in segments])

    def segment(self, name: str) -> Segment:
        """The segment of this name. Raises VocabularyError with the known names."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        raise VocabularyError(f"No segment {name!r}: this vocabulary has {[s.name for s in self.segments]}.")

    def split(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global ids -> (index of the segment, local id), of the same shape.

        Raises:
            VocabularyError: an id is negative or not below `size`.
        """
        if ids.size and not (ids.min() >= 0 and ids.max() < self.size):
            raise VocabularyError(f"Ids run from {ids.min()} to {ids.max()}, outside this vocabulary of {self.size} ids.")
        index = np.searchsorted(self._offsets, ids, side="right") - 1
        return index, ids - self._offsets[index]

    def locate(self, ids: Int[Tensor, "*n"]) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
        """See `split`, for tensors on the CPU."""
        return tuple(map(torch.from_numpy, self.split(ids.numpy())))

    def globalise(self, segment: Segment | str, local: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Local ids of one segment -> global ids. Raises VocabularyError for a local id outside the segment."""
        segment = self.segment(segment) if isinstance(segment, str) else segment
        if local.numel() and not (int(local.min()) >= 0 and int(local.max()) < segment.size):
            raise VocabularyError(
                f"Local ids run from {int(local.min())} to {int(local.max())}, outside segment {segment.name!r} of {segment.size}."
            )
        return local + segment.offset
