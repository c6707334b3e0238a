"""The shared head over any function of logits, and what stands for embeddings beside it."""

import torch

from plait.heads.shared import SharedHead


class StubHead(SharedHead):
    """Draws from `logits(hidden, segments)` and has no rows."""

    def __init__(self, logits) -> None:
        super().__init__([])
        self._compiled = logits


def read_ids(reading, vocabulary) -> torch.Tensor:
    """The global ids of what is read (b s 1)."""
    ids = torch.empty(reading.cells.numel(), dtype=torch.long)
    for segment, found in zip(vocabulary.segments, reading.segments, strict=True):
        ids[found.places] = found.local + segment.offset
    return ids.view(*reading.cells.shape, 1)
