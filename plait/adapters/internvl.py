"""InternVL 2 and 2.5 as OpenGVLab released them, with an InternLM2 (arXiv 2412.05271; ARMOR starts from InternVL2.5-8B), -> the layout of
transformers (`InternVLForConditionalGeneration`, whose language model is a llama).

What is said of the release was read in OpenGVLab/InternVL, commit 2410d1d. Its layout comes with code, which is not run; releases in the
layout of transformers (their names end in -hf) need no converting. The vision tower has one map for queries, keys and values, here cut
into thirds; that of the language model is grouped (plait.adapters.internlm2). Rows are moved and nothing is rounded.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from plait.adapters.internlm2 import PREFIX, to_llama
from plait.adapters.internlm2 import read_settings as read_language_settings
from plait.adapters.shards import read_shards, write_shards
from plait.atomic import replace_folder
from plait.errors import CheckpointError

IMAGE_TOKEN = "<IMG_CONTEXT>"
ADDED, PROCESSOR = "added_tokens.json", "preprocessor_config.json"
LAYER = r"vision_model\.encoder\.layers\.(\d+)\."
VISION, PROJECTOR = "model.vision_tower.", "model.multi_modal_projector."
RULES = {
    r"vision_model\.embeddings\.class_embedding": rf"{VISION}embeddings.cls_token",
    r"vision_model\.embeddings\.position_embedding": rf"{VISION}embeddings.position_embeddings",
    r"vision_model\.embeddings\.patch_embedding\.(\w+)": rf"{VISION}embeddings.patch_embeddings.projection.\1",
    rf"{LAYER}ls([12])": rf"{VISION}encoder.layer.\1.lambda_\2",
    rf"{LAYER}norm1\.(\w+)": rf"{VISION}encoder.layer.\1.layernorm_before.\2",
    rf"{LAYER}norm2\.(\w+)": rf"{VISION}encoder.layer.\1.layernorm_after.\2",
    rf"{LAYER}mlp\.(fc[12])\.(\w+)": rf"{VISION}encoder.layer.\1.mlp.\2.\3",
    rf"{LAYER}attn\.([qk]_norm)\.(\w+)": rf"{VISION}encoder.layer.\1.attention.\2.\3",
    rf"{LAYER}attn\.proj\.(\w+)": rf"{VISION}encoder.layer.\1.attention.projection_layer.\2",
    r"mlp1\.0\.(\w+)": rf"{PROJECTOR}layer_norm.\1",
    r"mlp1\.1\.(\w+)": rf"{PROJECTOR}linear_1.\1",
    r"mlp1\.3\.(\w+)": rf"{PROJECTOR}linear_2.\1",
}
"""pattern of a name in the release -> the name in transformers"""
GROUPED = re.compile(rf"{LAYER}attn\.qkv\.(\w+)")
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size")


def convert_internvl(release: Path | str, target: Path | str) -> Path:
    """Write a release as a folder that `plait.backbones.mllm.open_mllm` reads; an older one there is replaced as a whole.

    Args:
        release: folder with config.json, added_tokens.json, preprocessor_config.json and safetensors.

    Returns:
        The target.

    Raises:
        CheckpointError: a file is missing or damaged, or see `read_settings` and `to_transformers`.
    """
    config, added, _ = (_read_json(Path(release) / name) for name in ("config.json", ADDED, PROCESSOR))
    if IMAGE_TOKEN not in added:
        raise CheckpointError(
            f"{Path(release) / ADDED} has no {IMAGE_TOKEN}, which takes the place of a picture: is it an InternVL?"
        )
    weights = read_shards(release)
    settings = read_settings(
        config, image_token_id=added[IMAGE_TOKEN], has_bias=any(".attn.qkv.bias" in name for name in weights)
    )
    text = settings["text_config"]
    heads = {name: text[name] for name in ("num_attention_heads", "num_key_value_heads")}
    converted = to_transformers(weights, **heads, is_tied=text["tie_word_embeddings"])
    with replace_folder(target, "config.json") as beside:
        write_shards(beside, converted)
        entries = {"model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"], **settings}
        (beside / "config.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
        shutil.copyfile(Path(release) / PROCESSOR, beside / PROCESSOR)
    return Path(target)


def read_settings(config: Mapping[str, Any], *, image_token_id: int, has_bias: bool) -> dict[str, Any]:
    """Settings of transformers' `internvl` that computes what a config of the release describes.

    Args:
        has_bias: whether the maps of queries, keys and values of the vision tower have one.

    Raises:
        CheckpointError: another model, a size is missing, or a choice that transformers' model does not have.
    """
    language = config.get("llm_config") or {}
    found = {
        "model_type": (config.get("model_type"), "internvl_chat"),
        "llm_config.architectures": (language.get("architectures"), ["InternLM2ForCausalLM"]),
        "ps_version": (config.get("ps_version", "v1"), "v2"),
    }
    for name, (value, expected) in found.items():
        if value != expected:
            raise CheckpointError(
                f"The config has {name}={value!r}, expected {expected!r}: InternVL 2 or 2.5 with an InternLM2, as OpenGVLab released it. "
                "Other sizes are released in the layout of transformers too (names that end in -hf), which is read as it is."
            )
    vision = config.get("vision_config") or {}
    missing = [name for name in SIZES if name not in vision]
    if missing:
        raise CheckpointError(f"vision_config of InternVL lacks {', '.join(missing)}, expected all of {', '.join(SIZES)}.")
    text = read_language_settings(language)
    return {
        "vision_config": {
            "model_type": "internvl_vision",
            **{name: vision[name] for name in SIZES},
            "attention_bias": has_bias,
            "use_qk_norm": vision.get("qk_normalization", True),
            "norm_type": vision.get("norm_type", "rms_norm"),
            "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
            "hidden_act": vision.get("hidden_act", "gelu"),
            "use_mean_pooling": True,  # which is how transformers says that no norm follows the layers
        },
        "text_config": {"model_type": "llama", **text},
        "tie_word_embeddings": text["tie_word_embeddings"],
        "image_token_id": image_token_id,
        "downsample_ratio": config.get("downsample_ratio", 0.5),
        "vision_feature_layer": config.get("select_layer", -1),
    }


def to_transformers(
    released: Mapping[str, Tensor], *, num_attention_heads: int, num_key_value_heads: int, is_tied: bool = False
) -> dict[str, Tensor]:
    """A state dict of the release under the names of transformers' `InternVLForConditionalGeneration`.

    Args:
        num_attention_heads, num_key_value_heads, is_tied: of the language model.

    Raises:
        CheckpointError: a name that the release does not have, or see `plait.adapters.internlm2.to_llama`.
    """
    language = {name: value for name, value in released.items() if name.startswith(PREFIX)}
    llama = to_llama(
        language, num_attention_heads=num_attention_heads, num_key_value_heads=num_key_value_heads, is_tied=is_tied
    )
    renamed = rename_vision({name: value for name, value in released.items() if name not in language})
    return renamed | {f"model.language_model.{name[6:]}" if name.startswith("model.") else name: llama[name] for name in llama}


def rename_vision(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the vision tower and of the projector under the names of transformers.

    Raises:
        CheckpointError: a name that neither has.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in released.items():
        if grouped := GROUPED.fullmatch(name):
            layer = f"{VISION}encoder.layer.{grouped[1]}.attention."
            thirds = (third.clone() for third in value.chunk(3))  # a file takes no views of one tensor
            renamed |= {f"{layer}{part}_proj.{grouped[2]}": third for part, third in zip("qkv", thirds, strict=True)}
            continue
        new = next((re.sub(rule, ours, name) for rule, ours in RULES.items() if re.fullmatch(rule, name)), None)
        if new is None:
            raise CheckpointError(
                f"InternVL: unknown name {name}. Expected those of vision_model, mlp1 and {PREFIX}* and no other."
            )
        renamed[new] = value
    return renamed


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Expected a release of OpenGVLab with config.json, {ADDED} and {PROCESSOR}."
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no mapping of names. Fetch the release again.")
    return found
