"""Are drawn pictures like real ones as a set? Kernel distance and Frechet distance between features on a named encoder.

A figure is never called FID or KID in the sense of the literature unless its encoder is Inception: the name of the encoder, the hash
of its weights, the resizing and the number of pictures stand in the figure itself. The baseline `real` is the floor: the same
distance for real pictures of the very captions that were drawn, against the same other real pictures. So the bias of the Frechet
distance in few samples is in both. Both distances say nothing about single pictures, nor about captions.

Kernel distance: unbiased squared MMD with the cubic polynomial kernel, arXiv 1801.01401, section 4 (one estimate over all pictures
and not a mean over subsets). Frechet distance: arXiv 1706.08500, section 2. Intervals: delete-a-group jackknife, which resampling
with replacement cannot replace here: a picture drawn twice is at distance 0 from itself, which biases both.
"""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from plait.axes import Float, Tensor
from plait.errors import DocumentError
from plait.evaluation.bench import Bench
from plait.evaluation.figures import Figure
from plait.images import to_tensor

NUM_GROUPS = 20
"""of pictures that the jackknife leaves out in turn"""

Features = Float[Tensor, "_ d"]
Distance = Callable[[Features, Features], float]


def kernel_distance(a: Features, b: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)^3; 0 on average for equal distributions.

    Raises:
        DocumentError: fewer than two pictures on a side, or features that are not finite or not of one width.
    """
    _check(a, b)
    within = [(kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in (_kernel(a, a), _kernel(b, b))]
    return float(within[0] + within[1] - 2 * _kernel(a, b).mean())


def frechet_distance(a: Features, b: Features) -> float:
    """Squared Frechet distance of the two Gaussians with the means and covariances of the features.

    The trace of the root of the product of covariances is the sum of the singular values of one small matrix: for centred features
    A = Q R and B = P S it is |R S^T|_* / sqrt((n - 1)(m - 1)). No root of a singular matrix is taken.

    Raises:
        DocumentError: see `kernel_distance`.
    """
    _check(a, b)
    roots = [torch.linalg.qr(x - x.mean(0), mode="r").R / (len(x) - 1) ** 0.5 for x in (a.double(), b.double())]
    traces = sum(root.square().sum() for root in roots)
    cross = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float((a.double().mean(0) - b.double().mean(0)).square().sum() + traces - 2 * cross)


DISTANCES: dict[str, Distance] = {"kernel": kernel_distance, "frechet": frechet_distance}


def judge_distribution(
    bench: Bench, key: str, drawn: Sequence[Image.Image], asked: Sequence[str], others: Sequence[str]
) -> dict[str, Figure]:
    """Compare drawn pictures with other real pictures of the same split and kind.

    Args:
        key: of the figure whose pictures these are, "<split>/two_objects".
        drawn: one picture per real picture of `asked`, drawn from its caption.
        others: ids of further real pictures, none of them asked for.

    Raises:
        DocumentError: fewer than four pictures on a side, too few for an interval.

    Returns:
        figures `<key>_kernel_distance` and `<key>_frechet_distance`, lower is better, with the baseline `real`.
    """
    if min(len(others), len(drawn)) < 4:
        raise DocumentError(
            f"{key}: {len(drawn)} drawn and {len(others)} other real pictures, expected at least 4 each for a distance with an interval. "
            "Next: raise n, or leave the encoder of features out."
        )
    real = [to_tensor([bench.world.picture(name) for name in some]) for some in (others, asked)]
    reference, floor = map(bench.features.measure, real)
    features = bench.features.measure(drawn)
    facts = {**bench.features.describe(real[0].shape[-2:]), "n_real": len(others)}
    return {
        f"{key}_{name}_distance": _summarise(distance, features, reference, distance(floor, reference), facts)
        for name, distance in DISTANCES.items()
    }


def _summarise(distance: Distance, drawn: Features, real: Features, floor: float, facts: dict[str, str | int]) -> Figure:
    value = distance(drawn, real)
    variance = _jackknife(lambda some: distance(some, real), drawn) + _jackknife(lambda some: distance(drawn, some), real)
    half = 1.96 * variance**0.5
    return Figure(value, value - half, value + half, len(drawn), {"real": floor}, facts=facts)


def _jackknife(statistic: Callable[[Features], float], features: Features) -> float:
    """Variance of a statistic, from its values without one group of pictures each."""
    num_groups = min(NUM_GROUPS, len(features) // 2)
    group = torch.arange(len(features)) % num_groups
    values = torch.tensor([statistic(features[group != index]) for index in range(num_groups)], dtype=torch.float64)
    return float((num_groups - 1) * values.var(correction=0))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() @ b.double().T / a.shape[1] + 1) ** 3


def _check(a: Tensor, b: Tensor) -> None:
    if min(len(a), len(b)) < 2 or a.shape[1:] != b.shape[1:] or not bool(a.isfinite().all() and b.isfinite().all()):
        raise DocumentError(
            f"A distance between sets of features of shapes {tuple(a.shape)} and {tuple(b.shape)}: expected at least two pictures on "
            "each side, one width, and finite numbers. Next: more pictures (n), or check the encoder."
        )
