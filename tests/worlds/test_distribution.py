"""Distances between sets of pictures: against closed forms, unbiased, larger for worse pictures, and honest about their encoder."""

import numpy as np
import pytest
import torch
from PIL import ImageFilter
from torch.nn import functional

from plait.data.filling import Pictures
from plait.errors import DocumentError
from plait.evaluation.bench import Bench
from plait.evaluation.distribution import DISTANCES, frechet_distance, judge_distribution, kernel_distance
from plait.evaluation.features import FeatureSpace
from plait.images import to_pictures, to_tensor
from plait.records import VisionFeatures


class Downsampled(torch.nn.Module):
    """An encoder without a secret: pictures as 8 x 8 pixels and the strength of their edges there."""

    image_size, width, grid_shape, resize_filter = (32, 32), 384, (1, 1), "mean of 2 x 2"

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        edges = functional.pad((images[..., 1:, :] - images[..., :-1, :]).abs(), (0, 0, 0, 1))
        pooled = torch.cat([functional.adaptive_avg_pool2d(x, 8).flatten(1) for x in (images, 4 * edges)], 1) * self.scale
        return VisionFeatures(pooled, pooled[:, :, None, None])


@pytest.fixture(scope="module")
def space() -> FeatureSpace:
    return FeatureSpace("pixels and edges", Downsampled())


@pytest.fixture(scope="module")
def real(world) -> torch.Tensor:
    names = [scene.id for scene in world.pools("train").two_objects]
    order = np.random.default_rng(0).permutation(len(names))[:300]
    return to_tensor([world.picture(names[index]) for index in order])


def exact(n: int, mean: torch.Tensor, root: torch.Tensor, seed: int) -> torch.Tensor:
    """n samples whose mean and covariance are exactly those of N(mean, root root^T)."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * (n - 1) ** 0.5
    return x @ root.T + mean


def test_frechet_distance_of_two_gaussians_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(1)
    roots = [torch.randn(6, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    means = [torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2)]
    first, second = (root @ root.T for root in roots)
    values, vectors = torch.linalg.eigh(first)
    half = vectors @ values.sqrt().diag() @ vectors.T
    cross = torch.linalg.eigvalsh(half @ second @ half).clamp(min=0).sqrt().sum()
    expected = (means[0] - means[1]).square().sum() + first.trace() + second.trace() - 2 * cross
    found = frechet_distance(
        *(exact(50 + seed, mean, root, seed) for seed, (mean, root) in enumerate(zip(means, roots, strict=True)))
    )
    assert found == pytest.approx(float(expected), rel=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features() -> None:
    """Singular covariances: no root of a matrix is taken, and the distance of a set to itself is 0."""
    x = torch.randn(20, 60, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(x, x + 2.0) == pytest.approx(60 * 4.0)


def test_kernel_distance_is_the_mean_over_pairs_written_out() -> None:
    a, b = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (4, 5))

    def mean(x, y, skip):
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (skip and i == j)]
        return sum(float((x[i] @ y[j] / 3 + 1) ** 3) for i, j in pairs) / len(pairs)

    assert kernel_distance(a, b) == pytest.approx(mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False))


def test_kernel_distance_is_0_on_average_for_equal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([kernel_distance(*torch.randn(2, 40, 8, generator=generator).unbind()) for _ in range(400)])
    error = values.std() / 20
    assert abs(values.mean()) < 3 * error
    assert (values < 0).any(), "an unbiased estimate of 0 is below it at times"
    shifted = torch.tensor([kernel_distance(x, y + 0.5) for x, y in torch.randn(20, 2, 40, 8, generator=generator).unbind()])
    assert shifted.mean() > 20 * error


@pytest.mark.parametrize("name", DISTANCES)
def test_both_grow_with_noise_blur_and_mode_drop(name: str, space, real) -> None:
    distance, reference, drawn = DISTANCES[name], space.measure(real[:150]), real[150:]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(drawn.shape, generator=generator)
    noisy = [(drawn + sigma * noise).clamp(-1, 1) for sigma in (0.0, 0.2, 0.5)]
    blurred = [
        to_tensor([picture.filter(ImageFilter.GaussianBlur(radius)) for picture in to_pictures(drawn)])
        for radius in (0, 1.5, 4)
    ]
    dropped = [drawn[torch.arange(len(drawn)) % modes] for modes in (150, 20, 3)]
    for kind, series in (("noise", noisy), ("blur", blurred), ("mode drop", dropped)):
        values = [distance(space.measure(images), reference) for images in series]
        assert values[0] < values[1] < values[2], f"{name} distance under {kind}: {values}"


def test_figures_carry_the_encoder_the_resizing_and_the_floor(world, oracle, space) -> None:
    bench = Bench(None, world, oracle, Pictures(), {}, n=40, features=space)
    names = [scene.id for scene in world.pools("val").two_objects[:80]]
    asked, others = names[:40], names[40:]
    truth = [world.picture(name) for name in asked]
    figures = judge_distribution(bench, "val/two_objects", truth, asked, others)
    assert set(figures) == {"val/two_objects_kernel_distance", "val/two_objects_frechet_distance"}
    for figure in figures.values():
        assert figure.value == figure.baselines["real"], "real pictures of the same captions are the floor"
        assert figure.low < figure.value < figure.high
        assert figure.n == 40
        weights = figure.facts["weights"]
        assert figure.to_dict()["facts"] == {
            "encoder": "pixels and edges",
            "weights": weights,
            "resize": "64 x 64 to 32 x 32, mean of 2 x 2",
            "n_real": 40,
        }
        assert len(weights) == 16
    for key, figure in judge_distribution(bench, "val/two_objects", truth[:1] * 40, asked, others).items():
        assert figure.value > figure.baselines["real"], f"{key}: one picture again and again passes for all"
    with torch.no_grad():
        other = FeatureSpace("x", Downsampled())
        other.encoder.scale.mul_(2)
    assert other.describe((32, 32))["weights"] != weights
    assert other.describe((32, 32))["resize"] == "none"


def test_says_what_is_wrong(world, oracle, space) -> None:
    with pytest.raises(DocumentError, match=r"shapes \(1, 3\) and \(4, 3\): expected at least two pictures on each side"):
        kernel_distance(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(DocumentError, match="finite numbers"):
        frechet_distance(torch.full((3, 3), float("nan")), torch.zeros(4, 3))
    bench = Bench(None, world, oracle, Pictures(), {}, features=space)
    names = [scene.id for scene in world.pools("val").two_objects[:6]]
    with pytest.raises(DocumentError, match="3 drawn and 3 other real pictures, expected at least 4 each"):
        judge_distribution(bench, "val/two_objects", [world.picture(name) for name in names[:3]], names[:3], names[3:])
