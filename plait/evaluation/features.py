"""Features of pictures on a named encoder: figures on features mean nothing without the name, the weights and the resizing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn

from plait.axes import Float, Images, Tensor
from plait.images import to_tensor


@dataclass(frozen=True)
class FeatureSpace:
    """A vision encoder that figures are measured on.

    Args:
        name: of the encoder and its weights, for people ("efficientnet-lite0, ImageNet").
        encoder: a module behind `plait.protocols.VisionEncoder`; its pooled embedding is the feature.
        batch_size: pictures per call.
    """

    name: str
    encoder: nn.Module
    batch_size: int = 128

    def to(self, device: torch.device | str) -> "FeatureSpace":
        """The same space, its encoder moved."""
        self.encoder.to(device)
        return self

    @torch.inference_mode()
    def measure(self, pictures: Sequence[Image.Image] | Images) -> Float[Tensor, "n d"]:
        """One feature per picture, in double precision on the CPU."""
        images = pictures if isinstance(pictures, Tensor) else to_tensor(pictures)
        was_training = self.encoder.training
        device = next(self.encoder.parameters()).device
        self.encoder.eval()
        try:
            found = [self.encoder(chunk.to(device)).pooled.cpu().double() for chunk in images.split(self.batch_size)]
        finally:
            self.encoder.train(was_training)
        return torch.cat(found)

    def describe(self, picture_size: Sequence[int]) -> dict[str, str]:
        """What a figure says of the space it was measured in.

        Args:
            picture_size: (height, width) of the pictures.
        """
        size = tuple(self.encoder.image_size)
        sides = " to ".join(f"{height} x {width}" for height, width in (picture_size, size))
        resize = "none" if tuple(picture_size) == size else f"{sides}, {self.encoder.resize_filter}"
        return {"encoder": self.name, "weights": hash_weights(self.encoder), "resize": resize}


def hash_weights(module: nn.Module) -> str:
    """The first 16 hexadecimal digits of the sha256 over names and values of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
