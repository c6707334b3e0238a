"""The parts of a released image-text-to-text model behind plait's own protocols: encoder, connector, backbone.

What transformers made of each is found by plait.backbones.mllm; here it is put into the parts that every system is built of, so that
a system which starts from such a model knows no family of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from plait.axes import Float, Images, Tensor
from plait.backbones.causal_lm import CausalLM
from plait.backbones.mllm import SplitMLLM, open_mllm
from plait.errors import RecipeError
from plait.protocols import Connector, VisionEncoder
from plait.vision.connector import Projector
from plait.vision.encoder import TransformersVision


@dataclass(frozen=True)
class MLLMParts:
    """What a system that reads pictures as features is built of.

    Args:
        encoder: pictures in [-1, 1] -> features on a grid (`plait.protocols.VisionEncoder`).
        connector: features -> tokens of the backbone.
        backbone: the language model.
        image_token_id: of the text token that stands where a token of a picture goes.
    """

    encoder: VisionEncoder
    connector: Connector
    backbone: CausalLM
    image_token_id: int

    def look(self, tiles: Images) -> Float[Tensor, "n m d"]:
        """Tokens of pictures or of their tiles."""
        return self.connector(self.encoder(tiles).patches)


def open_parts(name_or_folder: str | Path, **options: Any) -> MLLMParts:
    """The parts of a released model.

    Args:
        name_or_folder: name on the Hub or a local folder.
        options: see `plait.backbones.mllm.open_mllm`.

    Raises:
        RecipeError: see `open_mllm` and `join_parts`.
    """
    return join_parts(open_mllm(name_or_folder, **options))


def join_parts(split: SplitMLLM) -> MLLMParts:
    """A model that was taken apart, as parts of plait with its weights.

    Raises:
        RecipeError: its features are not those of all patches and of nothing else.
    """
    encoder = TransformersVision(split.vision, split.image_size, split.mean, split.std, split.layer)
    if encoder.leading != split.leading:
        raise RecipeError(
            f"The model leaves out {split.leading} tokens before its features and its encoder has {encoder.leading} that are no patch, "
            "expected as many: the features of a picture are those of its patches. Choose another release."
        )
    sizes = {"feature_width": encoder.width, "grid_shape": encoder.grid_shape, "width": split.backbone.width}
    with torch.device("meta"):  # its weights are those of the model
        connector = Projector(**sizes, **split.projector)
    connector.load_state_dict(split.projector_weights, assign=True)
    return MLLMParts(encoder, connector, split.backbone, split.image_token_id)
