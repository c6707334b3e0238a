"""Batches of pictures for training a vision tokenizer or encoder, by number: batch k is a pure function of (seed, k).

Pictures come from named pools (scenes, glyphs) in fixed shares, with replacement. It knows pictures by id only; who draws them
and which of them a split allows is the world's affair.
"""

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate as cumulate
from random import Random
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from plait.errors import RecipeError


class PictureBatches:
    """Map-style over batch numbers.

    Args:
        pools: name -> image ids.
        weights: name -> share of pictures (normalised here).
        pixels: image ids -> uint8 (n h w 3).
        batch_size: pictures per batch.
        num_batches: length of the epoch.
        terms: loss terms of the model that are counted in pictures.
        seed: of everything that is drawn.
        accumulate: micro-batches per optimiser step, over which `counts` run.
        rank, num_ranks: this process takes every `num_ranks`-th picture of each batch.
        attributes: image id -> numbers of what can be said of it, handed over with the pictures; None hands over pictures alone.
        jitter: (images, generator) -> a fresh rendering of them; None shows pictures as they are.
        has_originals: hands over the pictures before they were rendered afresh, too.
        neighbours: name -> how many pictures that stand side by side in a pool come together in a batch (1 elsewhere).

    Raises:
        RecipeError: a pool is weighed that is not there or empty, or a batch does not divide among the ranks.
    """

    def __init__(
        self,
        *,
        pools: Mapping[str, Sequence[str]],
        weights: Mapping[str, float],
        pixels: Callable[[Sequence[str]], np.ndarray],
        batch_size: int,
        num_batches: int,
        terms: Sequence[str] = ("reconstruction", "quantizer"),
        seed: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
        attributes: Callable[[str], Sequence[int]] | None = None,
        jitter: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None,
        has_originals: bool = False,
        neighbours: Mapping[str, int] | None = None,
    ) -> None:
        self.names = [name for name, weight in weights.items() if weight > 0]
        bad = [name for name in self.names if not len(pools.get(name, ()))]
        if bad or not self.names:
            raise RecipeError(
                f"Pools {bad or list(weights)} give 0 pictures, expected weights over {sorted(pools)}. Next: correct the names "
                "in batches.weights."
            )
        negative = {name: weight for name, weight in weights.items() if not 0 <= weight < math.inf}
        if negative:
            raise RecipeError(f"Pools have the weights {negative}, expected finite numbers of at least 0. 0 leaves a pool out.")
        if batch_size < 1 or batch_size % num_ranks:
            raise RecipeError(
                f"A batch of {batch_size} pictures for {num_ranks} ranks: expected at least 1 each and the same number for all. "
                "Next: set batches.batch_size to a multiple of the ranks."
            )
        unmet = {name: count for name, count in (neighbours or {}).items() if name not in pools or count < 1}
        if unmet:
            raise RecipeError(
                f"batches.neighbours has {unmet}, expected pools of {sorted(pools)} with at least 1 picture together. Next: correct it."
            )
        if has_originals and jitter is None:
            raise RecipeError("batches.has_originals is set and nothing is rendered afresh: name a jitter, or leave it out.")
        self.pools = [pools[name] for name in self.names]
        self.neighbours = [(neighbours or {}).get(name, 1) for name in self.names]
        self._bounds = list(cumulate(weights[name] for name in self.names))
        self.pixels, self.batch_size, self.num_batches = pixels, batch_size, num_batches
        self.terms, self.seed = tuple(terms), seed
        self.accumulate, self.rank, self.num_ranks = accumulate, rank, num_ranks
        self.attributes, self.jitter, self.has_originals = attributes, jitter, has_originals

    def __len__(self) -> int:
        return self.num_batches

    def image_ids(self, batch: int) -> list[str]:
        """The pictures of a batch, of this rank."""
        return self._draw(batch)[self.rank :: self.num_ranks]

    def _draw(self, batch: int) -> list[str]:
        chosen: list[str] = []
        while len(chosen) < self.batch_size:
            draw = Random(f"{self.seed}/{batch}/{len(chosen)}")
            number = bisect(self._bounds, draw.random() * self._bounds[-1], hi=len(self.pools) - 1)
            pool = self.pools[number]
            start, count = draw.randrange(len(pool)), min(self.neighbours[number], self.batch_size - len(chosen))
            chosen += (pool[(start + step) % len(pool)] for step in range(count))
        return chosen

    def __getitem__(self, batch: int) -> dict[str, Any]:
        """Images (b 3 h w) in [-1, 1] and the counts of the whole optimiser step; where they are asked for, `originals` (b 3 h w) with
        `numbers` (b), equal for equal pictures, and `attributes` (b n) with -1 behind the last of a picture."""
        if not 0 <= batch < self.num_batches:
            raise IndexError(f"batch {batch} of {self.num_batches}")
        first = batch - batch % self.accumulate
        steps = min(self.accumulate, self.num_batches - first)
        names = self.image_ids(batch)
        images = torch.from_numpy(self.pixels(names)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        if self.jitter is not None:
            seed = Random(f"{self.seed}/{batch}/{self.rank}/jitter").getrandbits(63)
            originals, images = images, self.jitter(images, torch.Generator().manual_seed(seed))
        found: dict[str, Any] = {"images": images, "counts": dict.fromkeys(self.terms, float(self.batch_size * steps))}
        if self.has_originals:
            found |= {"originals": originals, "numbers": torch.tensor([names.index(name) for name in names])}
        if self.attributes is not None:
            numbers = [torch.tensor(self.attributes(name)) for name in names]
            found["attributes"] = pad_sequence(numbers, batch_first=True, padding_value=-1)
        return found
