"""How the next token is drawn from logits: guidance, constraints, temperature, top-k, top-p; the noise is an input.

The order is Liquid's (arXiv 2412.04332; published sampler): guidance on raw logits, temperature, top-k (ties kept), top-p (shifted by
one: the token that crosses the threshold stays), softmax, draw; the penalty for repetition and constraints come before temperature.
Knows no segments: the caller hands over the logits of what is legal now, with -inf for ids that are impossible.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
import torch

from plait.axes import Float, Int, Tensor
from plait.errors import RecipeError
from plait.protocols import Noise
from plait.sampling.constraints import Constraint

MOST = 1e6
"""Beyond this a weight leaves nothing of what it is weighed against in float32, and logits may overflow"""


def scale(logits: Float[Tensor, "n v"], temperature: float) -> Float[Tensor, "n v"]:
    """Logits over the temperature. Where that could overflow they are in float64 and have 0 as the largest of each row: a tiny temperature
    leaves the most likely ids, a huge one makes all legal ids alike."""
    if 1 / MOST <= temperature <= MOST:
        return logits / temperature
    shifted = logits.double() - logits.amax(-1, keepdim=True).double()
    # 0 / 1e-320 is 0, and what is impossible stays so
    return torch.where(logits == -torch.inf, shifted, shifted / temperature)


def keep_top_k(logits: Float[Tensor, "n v"], k: int) -> Float[Tensor, "n v"]:
    """Remove logits below the k-th largest of each row (ties with it stay); 0 keeps all."""
    if k <= 0 or k >= logits.shape[-1]:
        return logits
    kth = logits.topk(k, -1).values[:, -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Float[Tensor, "n v"], p: float) -> Float[Tensor, "n v"]:
    """Remove tokens whose more likely neighbours already hold more than mass p; 1.0 keeps all."""
    if p >= 1.0:
        return logits
    ordered, order = logits.sort(-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1).roll(1, -1)
    before[:, 0] = 0.0
    remove = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before > p)
    return logits.masked_fill(remove, -torch.inf)


def penalise_repetition(logits: Float[Tensor, "n v"], history: Sequence[Sequence[int]], penalty: float) -> Float[Tensor, "n v"]:
    """Divide positive logits of ids that stand already by the penalty and multiply negative ones (CTRL, arXiv 1909.05858, section 4.1,
    as transformers and Chameleon's generator apply it). Ids of the history beyond the columns are no one's."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, ids in enumerate(history):
        seen[row, [index for index in ids if index < logits.shape[-1]]] = True
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


@dataclass(frozen=True)
class SamplingPolicy:
    """A way to draw tokens.

    Args:
        guidance: s in u + s (c - u) on raw logits, at most 1e6; 1.0 is off (no further rows are run). Several weights for several branches,
            from the one that knows least to the one that knows most: (s1, s2) is u + s1 (i - u) + s2 (c - i), where i may be the pictures
            without the text (Chameleon's generator, three rows per picture).
        temperature: 0 takes the most likely token; from 0 to any finite number.
        top_k: 0 is off.
        top_p: 1.0 is off.
        repetition_penalty: see `penalise_repetition`; 1.0 is off.
        constraints: what else is forbidden (`plait.sampling.constraints`).

    Raises:
        RecipeError: a setting outside its range.
    """

    guidance: float | Sequence[float] = 1.0
    temperature: float = 1.0
    top_k: int | np.integer = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    constraints: Sequence[Constraint] = ()

    def __post_init__(self) -> None:
        weights = self.guidance if isinstance(self.guidance, list | tuple) else (self.guidance,)
        is_whole = isinstance(self.top_k, Integral) and not isinstance(self.top_k, bool) and self.top_k >= 0
        in_range = {
            "guidance": bool(weights) and all(_lies(weight, 0.0, MOST) for weight in weights),
            "temperature": _lies(self.temperature, 0.0, sys.float_info.max),
            "top_k": is_whole,
            "top_p": _lies(self.top_p, 0.0, 1.0) and self.top_p > 0,
            "repetition_penalty": _lies(self.repetition_penalty, 1 / MOST, MOST),
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, is_right in in_range.items() if not is_right]
        if wrong:
            raise RecipeError(
                f"A sampling policy with {', '.join(wrong)}: expected numbers, 0 <= guidance <= {MOST:g} (one, or a list), temperature >= "
                f"0 and finite, a whole top_k >= 0, 0 < top_p <= 1 and {1 / MOST:g} <= repetition_penalty <= {MOST:g}. Next: change what "
                "lies outside."
            )

    @property
    def guidance_weights(self) -> tuple[float, ...]:
        """See `plait.protocols.Policy`."""
        weights = tuple(self.guidance) if isinstance(self.guidance, list | tuple) else (self.guidance,)
        return () if all(weight == 1.0 for weight in weights) else weights

    @property
    def reads_history(self) -> bool:
        """See `plait.protocols.Policy`."""
        return self.repetition_penalty != 1.0 or bool(self.constraints)

    def draw(
        self,
        logits: Float[Tensor, "n v"],
        branches: Sequence[Float[Tensor, "n v"]],
        samples: Int[Tensor, "n"],
        noise: Noise,
        history: Sequence[Sequence[int]] | None = None,
    ) -> Int[Tensor, "n"]:
        """See `plait.protocols.Policy`."""
        logits = self.guide(logits.float(), branches)
        if history is not None:
            logits = self.constrain(logits, history)
        is_finite = logits.amax(-1) < torch.inf  # nan compares as false
        if self.temperature == 0:
            drawn = logits.argmax(-1)
        else:
            kept = keep_top_p(keep_top_k(scale(logits, float(self.temperature)), int(self.top_k)), self.top_p)
            drawn = noise.choose(kept.softmax(-1), samples)
        return torch.where(is_finite, drawn, -1)

    def guide(self, logits: Float[Tensor, "n v"], branches: Sequence[Float[Tensor, "n v"]]) -> Float[Tensor, "n v"]:
        """Logits under guidance; unchanged where there is no branch."""
        if not branches:
            return logits
        guided = branches[0].float()
        for weight, (less, more) in zip(self.guidance_weights, pairwise([*branches, logits]), strict=True):
            guided = guided + weight * (more - less)
        # An impossible id stays impossible: -inf minus -inf would be nan.
        return torch.where(logits == -torch.inf, logits, guided)

    def constrain(self, logits: Float[Tensor, "n v"], history: Sequence[Sequence[int]]) -> Float[Tensor, "n v"]:
        """Logits with the repetition penalty, -inf for what the constraints forbid.

        Raises:
            RecipeError: the constraints leave nothing.
        """
        if self.repetition_penalty != 1.0:
            logits = penalise_repetition(logits, history, self.repetition_penalty)
        forbidden = torch.zeros(logits.shape, dtype=torch.bool)
        for row, ids in enumerate(history):
            for constraint in self.constraints:
                mask = constraint.forbidden(ids, logits.shape[-1])
                if mask is not None:
                    forbidden[row] |= mask
        logits = logits.masked_fill(forbidden.to(logits.device), -torch.inf)
        if not logits.isfinite().any(-1).all():
            raise RecipeError(f"The constraints {self.constraints} forbid every id that the grammar allows.")
        return logits


def _lies(number: object, least: float, most: float) -> bool:
    """Whether something is a number between two bounds."""
    return isinstance(number, Real) and not isinstance(number, bool) and least <= number <= most


class PerSampleNoise:
    """One generator per sample, so that a sample does not depend on its place in a batch. Draws by inverting the cumulative mass.

    Args:
        seeds: one per sample.
    """

    block = 64

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        # of their own, so that what is drawn does not depend on how far the numbers below are made ahead
        self._normals = [torch.Generator().manual_seed(_further(int(seed))) for seed in seeds]
        self._uniforms = torch.empty(len(seeds), 0, dtype=torch.float64)
        self._used = torch.zeros(len(seeds), dtype=torch.int64)
        self._calls = 0

    def _uniform(self, samples: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The next number of each sample. No sample uses more than one per call, so they are made ahead for as many calls again, and a
        device gets them all at once."""
        have = self._uniforms.shape[1]
        if self._calls == have:
            blocks = range(max(1, have // self.block))
            # float64: a float32 uniform can round the cumulative mass to exactly 1
            fresh = [[torch.rand(self.block, generator=each, dtype=torch.float64) for _ in blocks] for each in self._generators]
            more = torch.stack([torch.cat(numbers) for numbers in fresh]).to(samples.device)
            self._uniforms = torch.cat([self._uniforms.to(samples.device), more], 1)
            self._used = self._used.to(samples.device)
        self._calls += 1
        places = self._used.index_select(0, samples)
        self._used = self._used.index_add(0, samples, torch.ones_like(samples))
        return self._uniforms[samples, places]

    def choose(self, probabilities: Float[Tensor, "n v"], samples: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """See `plait.protocols.Noise`."""
        uniform = self._uniform(samples)
        mass = probabilities.double().cumsum(-1)
        drawn = torch.searchsorted(mass, uniform[:, None] * mass[:, -1:], right=True).squeeze(-1)
        # the last id with mass: rounding can push the search past it
        last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1)
        return torch.minimum(drawn, last)

    def normal(self, shape: Sequence[int], samples: Int[Tensor, "n"]) -> Float[Tensor, "n *shape"]:
        """See `plait.protocols.Noise`; once per picture."""
        drawn = [torch.randn(*shape, generator=self._normals[sample]) for sample in samples.tolist()]
        return torch.stack(drawn).to(samples.device)


def _further(seed: int) -> int:
    """Another seed, that of a second stream."""
    return int(np.random.SeedSequence((seed % 2**64, 1)).generate_state(1, np.uint64)[0])
