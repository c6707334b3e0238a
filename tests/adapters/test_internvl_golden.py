"""InternVL against numbers of the public code: its release in, hidden states, features, logits and losses out of our parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from plait.adapters.internvl import VISION, convert_internvl, read_settings, rename_vision
from plait.records import Layout
from plait.systems.mllm_parts import MLLMParts, open_parts
from plait.vision.encoder import TransformersVision
from tests import goldens
from tests.adapters.internvl import write_release


def write_golden(golden: dict[str, np.ndarray], folder: Path) -> Path:
    """The golden as OpenGVLab would have released it."""
    settings = {
        name: json.loads(str(golden[f"cfg_{kind}"])) for name, kind in (("vision_config", "vit"), ("llm_config", "llm"))
    }
    return write_release(folder, goldens.weights(golden), image_token_id=int(golden["img_context_token_id"]), **settings)


def compare(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerance, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("path", goldens.family("internvl_vision*"))
def test_golden_vision(path: Path) -> None:
    """The vision tower of transformers with released weights: hidden states of every layer and the features that are read."""
    golden = goldens.read(path)
    config = json.loads(str(golden["cfg"]))
    release = {"model_type": "internvl_chat", "ps_version": "v2", "vision_config": config}
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    language = dict.fromkeys(sizes, 8)  # which is not built
    release["llm_config"] = language | {"architectures": ["InternLM2ForCausalLM"]}
    weights = rename_vision(goldens.weights(golden))
    has_bias = any("q_proj.bias" in name for name in weights)
    settings = read_settings(release, image_token_id=0, has_bias=has_bias)["vision_config"]
    tower = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).eval()
    tower.load_state_dict({name.removeprefix(VISION): value for name, value in weights.items() if VISION in name})
    pixels, layer = goldens.tensor(golden["pixel_values"]), int(golden["select_layer"])
    states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    compare(torch.stack(states), golden["hidden_states"], 1e-5)
    encoder = TransformersVision(tower, pixels.shape[-2:], layer=None if layer == -1 else layer)  # pixels are fed as they are
    assert encoder.leading == 1
    compare(encoder(pixels).patches.flatten(2).transpose(1, 2), golden["hidden_states"][layer][:, 1:], 1e-5)


@pytest.fixture(params=goldens.family("internvl_chat*"))
def opened(request, tmp_path) -> tuple[dict[str, np.ndarray], MLLMParts]:
    """A golden, and the parts of the release that it describes."""
    golden = goldens.read(request.param)
    parts = open_parts(convert_internvl(write_golden(golden, tmp_path / "release"), tmp_path / "converted"))
    return golden, parts


@torch.no_grad()
def test_golden_chat(opened) -> None:
    """Tokens of the tiles, logits, and both losses."""
    golden, parts = opened
    parts.backbone.eval()
    ids = goldens.tensor(golden["input_ids"])
    tokens = parts.look(goldens.tensor(golden["pixel_values"]))
    compare(tokens, golden["vit_embeds"], 1e-5)
    tokens = tokens[goldens.tensor(golden["image_flags"]).flatten() == 1]
    where = (ids == parts.image_token_id).nonzero(as_tuple=True)
    embeddings = parts.backbone.embed_text(ids).index_put(where, tokens.flatten(0, 1))
    flat, positions = torch.arange(ids.numel()).view(ids.shape), torch.arange(ids.shape[1]).expand(ids.shape)
    logits = parts.backbone.text_scores(parts.backbone(embeddings, Layout(positions, torch.zeros_like(ids), (flat,))))
    compare(logits, golden["logits"], 1e-4)
    labels = goldens.tensor(golden["labels"])[:, 1:].flatten()
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, reduction="none")
    compare(losses.sum() / (labels >= 0).sum(), golden["loss"], 1e-4)
    weights = goldens.tensor(golden["loss_weight"])[:, 1:].flatten()
    compare((losses * weights).sum() / weights.sum(), golden["loss_weighted"], 1e-4)
