"""Image-text-to-text models of transformers, taken apart: the vision tower, the settings and weights of the projector, the language model.

Two families are known, InternVL in the layout of transformers (arXiv 2404.16821; `internvl`) and LLaVA-1.5 (arXiv 2310.03744; `llava`): in
both the features of a picture go through a projector and take the places of its tokens among the embeddings, and the language model is
an ordinary decoder. What is taken apart is moved, not copied. The parts are put behind plait's protocols where they meet (see
plait.systems.mllm_parts): a backbone knows no connector. Nothing is said here of prompts, tiles or which token marks a picture's place
beyond its id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from plait.axes import Tensor
from plait.backbones.causal_lm import CausalLM
from plait.backbones.configuration import check_attention
from plait.backbones.proof import prove
from plait.errors import RecipeError

FAMILIES = ("internvl", "llava")
STATISTICS = ("mean", "std")
NAMES = {"layer_norm": "norm", "linear_1": "maps.0", "linear_2": "maps.2"}
"""modules of a projector -> those of `plait.vision.connector.Projector`"""
LEADING = {"default": 1, "full": 0}
"""how a family picks the features of patches -> tokens that it leaves out before them"""


@dataclass(frozen=True)
class SplitMLLM:
    """The parts of an image-text-to-text model.

    Args:
        vision: takes `pixel_values`.
        layer: which of its hidden states are its features; None: the last, as it gives them.
        leading: tokens before those of patches, which are no features.
        image_size: (height, width) of a tile.
        mean, std: per channel, of its normalisation.
        projector: settings of `plait.vision.connector.Projector`, without widths and grid.
        projector_weights: of such a projector.
        backbone: the language model.
        image_token_id: of the token that stands where the features of a picture go.
    """

    vision: PreTrainedModel
    layer: int | None
    leading: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    projector: dict[str, Any]
    projector_weights: dict[str, Tensor]
    backbone: CausalLM
    image_token_id: int


def open_mllm(
    name_or_folder: str | Path,
    *,
    gradient_checkpointing: bool = False,
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    subfolder: str = "",
) -> SplitMLLM:
    """Read a released model, from safetensors only, and take it apart; no code of the release is run.

    Args:
        name_or_folder: name on the Hub or a folder written by `save_pretrained`, with the settings of its image processor.
        gradient_checkpointing: of the language model (see `CausalLM`).
        dtype: type of the weights in memory; under autocast keep fp32.
        revision, subfolder: on the Hub.

    Raises:
        RecipeError: there is no such model, it cannot be read, it belongs to no family that is known, or see `split_mllm`.
    """
    source, where = str(name_or_folder), {"revision": revision, "subfolder": subfolder}
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source, **where)
        if absent := [f"image_{name}" for name in STATISTICS if f"image_{name}" not in settings]:
            raise RecipeError(
                f"The image processor of {source} does not say {' and '.join(absent)}, expected both: without them "
                "pictures would be normalised by a guess. Add them to preprocessor_config.json."
            )
        where["trust_remote_code"] = False
        config = AutoConfig.from_pretrained(source, **where)
        _check_family(config.model_type)
        check_attention(config)
        prove(config.get_text_config())  # before gigabytes are read
        options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        model, found = AutoModelForImageTextToText.from_pretrained(source, **options, **where)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"name_or_folder={source}: transformers cannot read it ({str(error).splitlines()[0]}). Expected a name on the Hub or a "
            "folder with config.json, preprocessor_config.json and safetensors. Check the spelling, the network, or download it first."
        ) from error
    if missing := sorted(found["missing_keys"]):  # which transformers draws at random
        raise RecipeError(
            f"name_or_folder={source} lacks {len(missing)} tensors of a {config.model_type!r} ({missing[0]}, ...), expected all of them. "
            "Fetch the release again."
        )
    statistics = {name: settings[f"image_{name}"] for name in STATISTICS}
    return split_mllm(model, **statistics, gradient_checkpointing=gradient_checkpointing)


def split_mllm(
    model: PreTrainedModel,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    gradient_checkpointing: bool = False,
) -> SplitMLLM:
    """Take a model of transformers apart; it is of no use afterwards.

    Args:
        mean, std: per channel, of its image processor.

    Raises:
        RecipeError: another family, a projector or a choice of features that a connector cannot express, or a language model that cannot be
            packed or cached.
    """
    config, inner = model.config, getattr(model, "model", None)
    _check_family(config.model_type)
    layer, activation, picked = config.vision_feature_layer, config.projector_hidden_act, config.vision_feature_select_strategy
    if not isinstance(layer, int) or activation != "gelu" or picked not in LEADING:
        raise RecipeError(
            f"The model {config.model_type!r} has vision_feature_layer={layer}, projector_hidden_act={activation!r} and "
            f"vision_feature_select_strategy={picked!r}, expected one layer, 'gelu', and one of {', '.join(LEADING)}. Choose another."
        )
    size, is_internvl = config.vision_config.image_size, config.model_type == "internvl"
    fold = round(1 / config.downsample_ratio) if is_internvl else 1
    projector = inner.multi_modal_projector
    return SplitMLLM(
        vision=inner.vision_tower,
        layer=None if is_internvl and layer == -1 else layer,  # llava takes the last hidden states before any norm
        leading=LEADING[picked],
        image_size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        mean=tuple(mean),
        std=tuple(std),
        projector={"fold": (fold, fold), "has_norm": is_internvl, "has_bias": projector.linear_1.bias is not None},
        projector_weights={_rename(name): value for name, value in projector.state_dict().items()},
        backbone=CausalLM(_causal_lm(inner.language_model, model.lm_head), gradient_checkpointing),
        image_token_id=config.image_token_id,
    )


def _check_family(name: str) -> None:
    if name not in FAMILIES:
        raise RecipeError(
            f"The model {name!r} is not supported: expected an image-text-to-text model of the families {' or '.join(FAMILIES)}, whose "
            "features go through a projector into an ordinary decoder. Choose one of them."
        )


def _rename(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{NAMES[module]}.{leaf}"


def _causal_lm(decoder: PreTrainedModel, head: nn.Module) -> PreTrainedModel:
    """A causal language model of the decoder and its output weight."""
    decoder.config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
    with torch.device("meta"):  # nothing of it stays but the frame
        model = AutoModelForCausalLM.from_config(decoder.config)
    model.config = decoder.config
    setattr(model, model.base_model_prefix, decoder)
    model.set_output_embeddings(head)
    return model.train(decoder.training)
