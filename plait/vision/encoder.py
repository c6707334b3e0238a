"""Any vision encoder of transformers as one part: pictures in, a pooled embedding and a map of patch features out.

The model runs as transformers wrote it. What differs between architectures is brought to one form here: leading tokens that are no
patch (class and register tokens) are dropped from the map, a model without pooling is pooled by the mean over its patches. It
knows no text, no loss and no system.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from plait.axes import Images
from plait.errors import RecipeError
from plait.records import VisionFeatures
from plait.vision.inputs import RESIZE_FILTER, PictureInput

FOREIGN = ("attn_implementation", "_attn_implementation", "auto_map", "quantization_config")
"""what transformers would follow to code of a repository"""


class TransformersVision(nn.Module):
    """A vision model of transformers behind `plait.protocols.VisionEncoder`.

    Args:
        model: takes `pixel_values`, gives `last_hidden_state` as tokens in raster order or as a map.
        image_size: (height, width) that it reads.
        mean, std: per channel, of its normalisation.
        layer: which of its hidden states are the patches; None: the last, as it gives them.

    Raises:
        RecipeError: its output is no grid of patches.
    """

    resize_filter = RESIZE_FILTER

    def __init__(
        self,
        model: PreTrainedModel,
        image_size: Sequence[int],
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        layer: int | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.input = PictureInput(image_size, mean, std)
        # channels last: a step of the vision base takes three quarters of the time on a CPU (reports/bases.md); the same up to
        # rounding
        self.model = model.to(memory_format=torch.channels_last)
        self.image_size = self.input.image_size
        self.width, self.grid_shape, self.leading = _measure(model, self.image_size)

    @classmethod
    def from_config(cls, architecture: str, image_size: Sequence[int], **sizes: Any) -> "TransformersVision":
        """A randomly initialised encoder.

        Args:
            architecture: a model type of transformers ("resnet", "siglip_vision_model", "dinov2", ...).
            image_size: (height, width), both alike.
            sizes: settings of its config class (hidden_size, patch_size, num_hidden_layers, ...).

        Raises:
            RecipeError: an unknown architecture, or settings that it refuses.
        """
        try:
            _check_settings(sizes)
            # transformers tells lists from tuples, a config file does not
            sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
            config = AutoConfig.for_model(architecture, image_size=image_size[0], **sizes)
            model = AutoModel.from_config(config)
        except (ValueError, TypeError, KeyError) as error:
            raise RecipeError(
                f"vision.architecture={architecture} with {sizes}: transformers refuses it ({str(error).splitlines()[0]}). Expected "
                "a vision model such as siglip_vision_model or vit, and settings of its config. Next: correct the node `vision`."
            ) from error
        return cls(model, image_size)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, revision: str | None = None, subfolder: str = ""
    ) -> "TransformersVision":
        """An encoder with released weights, read from safetensors only; of a model with a text tower, its vision tower.

        Args:
            name_or_folder: name on the Hub or a folder written by `save_pretrained`, with its preprocessor_config.json.
            revision, subfolder: on the Hub.

        Raises:
            RecipeError: there is no such model, or it cannot be read.
        """
        source = str(name_or_folder)
        try:
            where = {"revision": revision, "subfolder": subfolder}
            settings, _ = ImageProcessingMixin.get_image_processor_dict(source, **where)
            where["trust_remote_code"] = False
            _check_attention(AutoConfig.from_pretrained(source, **where))
            model = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32, **where)
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"name_or_folder={source}: transformers cannot read it ({str(error).splitlines()[0]}). Expected a name on the Hub or a "
                "folder with config.json, preprocessor_config.json and safetensors. Next: check the spelling and the network."
            ) from error
        model = getattr(model, "vision_model", model)
        size = model.config.image_size
        statistics = {name: settings[f"image_{name}"] for name in ("mean", "std") if f"image_{name}" in settings}
        return cls(model, (size, size) if isinstance(size, int) else size, **statistics)

    def forward(self, images: Images) -> VisionFeatures:
        """Pictures in [-1, 1] of any size -> features."""
        wanted = {} if self.layer is None else {"output_hidden_states": True}
        found = self.model(pixel_values=self.input(images), **wanted)
        hidden = found.last_hidden_state if self.layer is None else found.hidden_states[self.layer]
        pooled = getattr(found, "pooler_output", None)
        if hidden.ndim == 3:
            height, width = self.grid_shape
            hidden = rearrange(hidden[:, -height * width :], "b (gh gw) d -> b d gh gw", gh=height)
        return VisionFeatures(hidden.mean((2, 3)) if pooled is None else pooled.flatten(1), hidden)


def _check_settings(sizes: Mapping[str, Any]) -> None:
    """Refuse settings that name weights or code of a repository."""
    for name in sizes:
        if name in FOREIGN or "backbone" in name or "pretrained" in name:
            raise ValueError(f"{name!r} is no setting of a model from config")


def _check_attention(config: PreTrainedConfig) -> None:
    for own in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if "/" in str(named := getattr(own, "_attn_implementation", None)):
            raise ValueError(f"its config.json names the attention {named!r}, code of a repository, which is not run")


@torch.no_grad()
def _measure(model: PreTrainedModel, image_size: tuple[int, int]) -> tuple[int, tuple[int, int], int]:
    """(width, grid, tokens before those of patches) of what a model gives for one picture."""
    was_training = model.training
    hidden = model.eval()(
        pixel_values=torch.zeros(1, 3, *image_size)
    ).last_hidden_state  # without a trace in running statistics
    model.train(was_training)
    if hidden.ndim == 4:
        return hidden.shape[1], (hidden.shape[2], hidden.shape[3]), 0
    patch = getattr(model.config, "patch_size", None)
    patches = (patch, patch) if isinstance(patch, int) else patch or (image_size[0] + 1, 1)
    grid = (image_size[0] // patches[0], image_size[1] // patches[1])
    if not 0 < grid[0] * grid[1] <= hidden.shape[1]:
        raise RecipeError(
            f"{type(model).__name__} gives {hidden.shape[1]} tokens for {image_size} pixels and says patch_size={patch}: expected at "
            "least one token per patch. Next: choose an encoder whose tokens are patches."
        )
    return hidden.shape[2], grid, hidden.shape[1] - grid[0] * grid[1]
