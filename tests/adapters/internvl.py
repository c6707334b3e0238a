"""A release of InternVL as OpenGVLab lays it out, for tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from plait.adapters.internvl import IMAGE_TOKEN

VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 28,
    "patch_size": 7,
    "qk_normalization": False,
    "norm_type": "layer_norm",
}
LANGUAGE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bias": False,
}


def write_release(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    *,
    image_token_id: int = 39,
    vision_config: dict[str, Any] = VISION,
    llm_config: dict[str, Any] = LANGUAGE,
    **changes: Any,
) -> Path:
    """Write its files, with pictures in [-1, 1] fed as they are; `changes` are entries of its config."""
    config = {
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "downsample_ratio": 0.5,
        "vision_config": vision_config,
        "llm_config": {"architectures": ["InternLM2ForCausalLM"], **llm_config},
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "added_tokens.json").write_text(json.dumps({"<img>": 1, IMAGE_TOKEN: image_token_id}))
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    return folder


def list_shapes(vision: Mapping[str, Any] = VISION, language: Mapping[str, Any] = LANGUAGE) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a release without norms of queries and keys."""
    inner, width = vision["hidden_size"], language["hidden_size"]
    side, grid = vision["patch_size"], vision["image_size"] // vision["patch_size"]
    shapes = {
        "vision_model.embeddings.class_embedding": (1, 1, inner),
        "vision_model.embeddings.position_embedding": (1, 1 + grid**2, inner),
        "vision_model.embeddings.patch_embedding.weight": (inner, 3, side, side),
        "vision_model.embeddings.patch_embedding.bias": (inner,),
    }
    for index in range(vision["num_hidden_layers"]):
        maps = {"attn.qkv": (3 * inner, inner), "attn.proj": (inner, inner)}
        maps |= {"mlp.fc1": (vision["intermediate_size"], inner), "mlp.fc2": (inner, vision["intermediate_size"])}
        own = {f"{name}.weight": shape for name, shape in maps.items()} | {
            f"{name}.bias": shape[:1] for name, shape in maps.items()
        }
        own |= dict.fromkeys(("ls1", "ls2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"), (inner,))
        shapes |= {f"vision_model.encoder.layers.{index}.{name}": shape for name, shape in own.items()}
    shapes |= {"mlp1.0.weight": (4 * inner,), "mlp1.0.bias": (4 * inner,)}
    shapes |= {
        "mlp1.1.weight": (width, 4 * inner),
        "mlp1.1.bias": (width,),
        "mlp1.3.weight": (width, width),
        "mlp1.3.bias": (width,),
    }
    grouped = width * (language["num_attention_heads"] + 2 * language["num_key_value_heads"]) // language["num_attention_heads"]
    for index in range(language["num_hidden_layers"]):
        own = {
            "attention.wqkv": (grouped, width),
            "attention.wo": (width, width),
            "attention_norm": (width,),
            "ffn_norm": (width,),
        }
        own |= dict.fromkeys(("feed_forward.w1", "feed_forward.w3"), (language["intermediate_size"], width))
        own |= {"feed_forward.w2": (width, language["intermediate_size"])}
        shapes |= {f"language_model.model.layers.{index}.{name}.weight": shape for name, shape in own.items()}
    tables = ("language_model.model.tok_embeddings.weight", "language_model.output.weight")
    return shapes | dict.fromkeys(tables, (language["vocab_size"], width)) | {"language_model.model.norm.weight": (width,)}


def draw_weights() -> dict[str, torch.Tensor]:
    """Weights of a release with the sizes above."""
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in list_shapes().items()}
