"""Tiny image-text-to-text models of transformers with random weights, one per kind of tower and of language model."""

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

IMAGE_TOKEN = 39
TEXT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
VISION = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
KINDS = {
    "internvl": {"vision_config": {"image_size": [28, 28], "patch_size": [7, 7]}, "text_config": {"model_type": "qwen2"}},
    "internvl-llama": {
        "vision_config": {
            "image_size": [28, 28],
            "patch_size": [7, 7],
            "norm_type": "rms_norm",
            "use_qk_norm": True,
            "attention_bias": True,
        },
        "text_config": {"model_type": "llama"},
        "tie_word_embeddings": False,
    },
    "llava": {
        "vision_config": {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 7},
        "text_config": {"model_type": "llama"},
    },
    "llava-siglip": {
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7, "vision_use_head": False},
        "text_config": {"model_type": "gemma", "head_dim": 8},
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
        "multimodal_projector_bias": False,
    },
}


def build_whole(kind: str, **settings) -> PreTrainedModel:
    """A model with sharp attention."""
    settings = KINDS[kind] | settings
    settings = settings | {
        "vision_config": VISION | settings["vision_config"],
        "text_config": TEXT | settings["text_config"],
        "image_token_id" if kind.startswith("internvl") else "image_token_index": IMAGE_TOKEN,
    }
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind.split("-")[0], **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model
