"""How the next token is drawn from logits: guidance, temperature, top-k, top-p; the noise is an input.

The order is Liquid's (arXiv 2412.04332; published sampler): guidance on raw logits, temperature, what is illegal, top-k (ties kept),
top-p (shifted by one: the token that crosses the threshold stays), softmax, draw. Knows no segments: the caller hands over the
logits of what is legal now, with -inf for ids that are impossible.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from plait.axes import Float, Int, Tensor
from plait.errors import RecipeError
from plait.protocols import Noise


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


@dataclass(frozen=True)
class SamplingPolicy:
    """A way to draw tokens.

    Args:
        guidance: s in u + s (c - u) on raw logits; 1.0 is off (no unconditional rows are run).
        temperature: 0 takes the most likely token.
        top_k: 0 is off.
        top_p: 1.0 is off.

    Raises:
        RecipeError: a setting outside its range.
    """

    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1 or self.guidance < 0:
            raise RecipeError(
                f"{self}: expected guidance >= 0, temperature >= 0, top_k >= 0 and 0 < top_p <= 1. Change what lies outside."
            )

    def draw(
        self,
        logits: Float[Tensor, "n v"],
        unconditional: Float[Tensor, "n v"] | None,
        samples: Int[Tensor, "n"],
        noise: Noise,
    ) -> Int[Tensor, "n"]:
        """See `plait.protocols.Policy`."""
        logits = logits.float()
        if unconditional is not None:
            guided = unconditional + self.guidance * (logits - unconditional)
            # An impossible id stays impossible: -inf minus -inf would be nan.
            logits = torch.where(logits == -torch.inf, logits, guided)
        if self.temperature == 0:
            return logits.argmax(-1)
        kept = keep_top_p(keep_top_k(logits / self.temperature, self.top_k), self.top_p)
        return noise(kept.softmax(-1), samples)


class PerSampleNoise:
    """One generator per sample, so that a sample does not depend on its place in a batch. Draws by inverting the cumulative mass.

    Args:
        seeds: one per sample.
    """

    block = 64

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self._uniforms = [torch.empty(0)] * len(seeds)
        self._used = [self.block] * len(seeds)

    def _uniform(self, sample: int) -> Tensor:
        if self._used[sample] == self.block:
            # float64: a float32 uniform can round the cumulative mass to exactly 1
            self._uniforms[sample] = torch.rand(self.block, generator=self._generators[sample], dtype=torch.float64)
            self._used[sample] = 0
        self._used[sample] += 1
        return self._uniforms[sample][self._used[sample] - 1]

    def __call__(self, probabilities: Float[Tensor, "n v"], samples: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """See `plait.protocols.Noise`."""
        uniform = torch.stack([self._uniform(sample) for sample in samples.tolist()]).to(probabilities.device)
        mass = probabilities.double().cumsum(-1)
        drawn = torch.searchsorted(mass, uniform[:, None] * mass[:, -1:], right=True).squeeze(-1)
        # the last id with mass: rounding can push the search past it
        last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1)
        return torch.minimum(drawn, last)
