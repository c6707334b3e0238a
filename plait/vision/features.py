"""How pictures enter a language model as features: an encoder sees them, a connector brings what it sees to the width of the model.

LLaVA (arXiv 2304.08485, section 4.1) and every multimodal language model since: encoder, projection, language model. Pictures are stacked
by size and come as uint8, each tile by itself.
"""

from typing import Any

from torch import nn

from plait.axes import Embeddings, Images
from plait.images import from_pixels
from plait.protocols import VisionEncoder
from plait.records import Reading, Side


class FeatureInput(nn.Module):
    """`plait.protocols.Input` for pictures of the form "features".

    Args:
        encoder: images in [-1, 1] -> features (`plait.protocols.VisionEncoder`).
        connector: its patches (n c gh gw) -> vectors (n m d), one for each position of a picture.
    """

    def __init__(self, encoder: nn.Module | VisionEncoder, connector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.connector = encoder, connector

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that the encoder reads; it resizes others."""
        return self.encoder.image_size

    def forward(self, images: Images) -> Any:
        """Pictures in [-1, 1] -> vectors (n m d)."""
        return self.connector(self.encoder(images).patches)

    def enter(self, embeddings: Embeddings, side: Side, reading: Reading) -> tuple[Embeddings, Side]:
        """See `plait.protocols.Input`: the positions of pictures get their features."""
        flat = embeddings.flatten(0, 1)
        for stack in reading.pictures:
            vectors = self(from_pixels(stack.pixels)).to(flat.dtype)
            flat = flat.index_copy(0, stack.places.flatten(), vectors.flatten(0, 1))
        return flat.view_as(embeddings), side
