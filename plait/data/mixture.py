"""Weighted mixtures whose order is computed, not remembered: batch k is a pure function of (seed, k).

The unit is the window: 256 documents drawn from the weighted sources (with replacement), worded by the template, encoded, packed, and
dealt to a fixed number of batches. A fixed number per window makes the window of batch k `k // batches_per_window`, so no table of
window lengths is needed and a resume is a seek; the price is that batches differ by a row or two in size. Losses are normalised by
the counts of the whole optimiser step, so that does not change their weight. All random choices come from counters.
"""

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate as cumulate

from plait.data.filling import Pictures, fill_images
from plait.document import Document
from plait.errors import LayoutError, RecipeError
from plait.protocols import Template
from plait.sequence.batch import TERMS, SequenceBatch
from plait.sequence.builder import SequenceBuilder
from plait.sequence.layout import Tokens
from plait.sequence.packing import pack


class Mixture:
    """Map-style over batch numbers.

    Args:
        sources: name -> sequence of raw documents.
        weights: name -> share of documents (normalised here); a source of weight 0 is left out.
        template: the system's wording.
        builder: documents -> batches.
        pictures: by their ids; None where no document has any.
        row_length: tokens per row; longer documents are an error.
        num_batches: length of the epoch.
        documents_per_window, batches_per_window: see above.
        seed: of everything that is drawn; any name of a stream.
        accumulate: micro-batches per optimiser step: batch k belongs to step k // accumulate.
        rank, num_ranks: this process takes every `num_ranks`-th row of each batch.

    Raises:
        RecipeError: weights and sources do not name the same things, a weight is negative, or none is positive.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Sequence[Document]],
        weights: Mapping[str, float],
        template: Template,
        builder: SequenceBuilder,
        pictures: Pictures | None,
        row_length: int,
        num_batches: int,
        documents_per_window: int = 256,
        batches_per_window: int = 4,
        seed: int | str = 0,
        accumulate: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        unknown = sorted(set(weights) - set(sources))
        if unknown:
            raise RecipeError(
                f"The mixture weighs {unknown}, expected names among its sources {sorted(sources)}. Next: add the source, or "
                "take the name out of the weights."
            )
        negative = {name: weight for name, weight in weights.items() if not 0 <= weight < math.inf}
        if negative:
            raise RecipeError(
                f"The mixture has the weights {negative}, expected finite numbers of at least 0. Next: 0 leaves a source out."
            )
        self.names = [name for name, weight in weights.items() if weight > 0]
        if not self.names:
            raise RecipeError(f"No source of the mixture has a positive weight: {dict(weights)}. Expected one. Next: set it.")
        empty = [name for name in self.names if not len(sources[name])]
        if empty:
            raise RecipeError(
                f"Sources {empty} of the mixture hold 0 documents, expected at least 1. Next: look at the split, or weigh them 0."
            )
        self.sources = [sources[name] for name in self.names]
        self._bounds = list(cumulate(weights[name] for name in self.names))
        self.template, self.builder, self.pictures = template, builder, pictures
        self.row_length, self.num_batches = row_length, num_batches
        self.documents_per_window, self.batches_per_window = documents_per_window, batches_per_window
        self.seed, self.accumulate, self.rank, self.num_ranks = seed, accumulate, rank, num_ranks
        # the windows of an optimiser step are read twice: for its counts, and for its batches
        per_step = math.ceil(accumulate / batches_per_window) + 1
        self._window = lru_cache(maxsize=max(4, per_step))(self._compute_window)
        self._step_counts = lru_cache(maxsize=2)(self._count_step)

    @property
    def batches_per_unit(self) -> int:
        """Batches that are made together: whole windows and whole optimiser steps."""
        return math.lcm(self.batches_per_window, self.accumulate)

    def __len__(self) -> int:
        return self.num_batches

    def document(self, counter: int) -> Document:
        """Document number `counter` of the endless stream, worded and encoded."""
        choice = random.Random(f"{self.seed}/{counter}")
        source = self.sources[bisect(self._bounds, choice.random() * self._bounds[-1], hi=len(self.sources) - 1)]
        raw = source[choice.randrange(len(source))]
        worded = self.template.wrap(raw, counter)
        return worded if self.pictures is None else fill_images(worded, self.pictures)

    def _compute_window(self, window: int) -> list[list[list[Tokens]]]:
        """Batches of rows of laid-out documents."""
        first = window * self.documents_per_window
        tokens = [self.builder.encode(self.document(first + i)) for i in range(self.documents_per_window)]
        rows = self._pack(tokens)
        # packing puts long documents first: shuffle rows so that every batch sees every task
        random.Random(f"{self.seed}/window/{window}").shuffle(rows)
        parts = [rows[part :: self.batches_per_window] for part in range(self.batches_per_window)]
        if not all(len(part) >= self.num_ranks for part in parts):
            raise RecipeError(
                f"Window {window} packs into {len(rows)} rows, too few for {self.batches_per_window} batches on "
                f"{self.num_ranks} ranks: raise documents_per_window or lower row_length or batches_per_window."
            )
        return [[[tokens[member] for member in row] for row in part] for part in parts]

    def _pack(self, tokens: Sequence[Tokens]) -> list[list[int]]:
        try:
            return pack([len(item) for item in tokens], self.row_length, [item.document_id for item in tokens])
        except LayoutError as error:
            longest = max(tokens, key=len)
            if not longest.images:
                raise
            num_codes = sum(length for _, length, _ in longest.images)
            raise LayoutError(
                f"{error} {num_codes} of them are of its {len(longest.images)} pictures: fewer tiles (tiling.max_tiles) or a larger fold "
                "(model.fold), where the system has them, make fewer."
            ) from error

    def _rows(self, batch: int) -> list[list[Tokens]]:
        return self._window(batch // self.batches_per_window)[batch % self.batches_per_window]

    def _count_step(self, step: int) -> dict[str, float]:
        """Targets per term over all micro-batches and ranks of an optimiser step."""
        first = step * self.accumulate
        totals = dict.fromkeys(TERMS, 0.0)
        for other in range(first, min(first + self.accumulate, self.num_batches)):
            for name, count in self.builder.count_targets([item for row in self._rows(other) for item in row]).items():
                totals[name] += count
        return totals

    def __getitem__(self, batch: int) -> SequenceBatch:
        if not 0 <= batch < self.num_batches:
            raise IndexError(f"batch {batch} of {self.num_batches}")
        rows = self._rows(batch)[self.rank :: self.num_ranks]
        return self.builder.arrange(rows, self.row_length, self._step_counts(batch // self.accumulate))
