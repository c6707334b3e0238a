"""A release of InternVL in OpenGVLab's layout: every weight at its place, and what is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from plait.adapters.internvl import convert_internvl, read_settings, rename_vision, to_transformers
from plait.errors import CheckpointError
from plait.systems.mllm_parts import open_parts
from tests.adapters.internvl import LANGUAGE, VISION, draw_weights, list_shapes, write_release


def test_a_release_becomes_parts_that_hold_all_of_it(tmp_path: Path) -> None:
    weights = draw_weights()
    parts = open_parts(convert_internvl(write_release(tmp_path / "release", weights, image_token_id=7), tmp_path / "converted"))
    attention = parts.encoder.model.encoder.layer[0].attention
    for third, name in zip(weights["vision_model.encoder.layers.0.attn.qkv.weight"].split(16), "qkv", strict=True):
        assert torch.equal(getattr(attention, f"{name}_proj").weight, third)
    assert torch.equal(parts.connector.maps[2].weight, weights["mlp1.3.weight"])
    assert torch.equal(parts.backbone.text_weight, weights["language_model.output.weight"])
    assert not parts.backbone.is_tied
    held = sum(p.numel() for part in (parts.encoder, parts.connector, parts.backbone) for p in part.parameters())
    assert held == sum(value.numel() for value in weights.values())
    assert (parts.image_token_id, parts.connector.tokens_per_tile, parts.encoder.leading) == (7, 4, 1)


def test_the_full_layout_is_that_of_transformers() -> None:
    """InternVL2.5-8B, from which ARMOR starts: every name and shape, and the sizes of its three parts."""
    vision = VISION | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    vision |= {"image_size": 448, "patch_size": 14}
    language = {"vocab_size": 92553, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "bias": False}
    language |= {"num_attention_heads": 32, "num_key_value_heads": 8, "architectures": ["InternLM2ForCausalLM"]}
    config = {"model_type": "internvl_chat", "ps_version": "v2", "vision_config": vision, "llm_config": language}
    settings = read_settings(config, image_token_id=92546, has_bias=True)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model("internvl", **settings))
        released = {name: torch.empty(shape) for name, shape in list_shapes(vision, language).items()}
        converted = to_transformers(released, num_attention_heads=32, num_key_value_heads=8)
    assert {name: value.shape for name, value in converted.items()} == {k: v.shape for k, v in model.state_dict().items()}
    sizes = {
        part: sum(v.numel() for k, v in released.items() if k.startswith(part)) for part in ("vision_model", "mlp1", "language")
    }
    assert sizes == {"vision_model": 304_012_288, "mlp1": 33_570_816, "language": 7_737_782_272}


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("model_type='internvl', expected 'internvl_chat'", {"model_type": "internvl"}),
        ("architectures=.*Qwen2ForCausalLM.*end in -hf", {"llm_config": LANGUAGE | {"architectures": ["Qwen2ForCausalLM"]}}),
        ("ps_version='v1', expected 'v2'", {"ps_version": "v1"}),
        ("vision_config of InternVL lacks num_hidden_layers", {"vision_config": {"hidden_size": 8}}),
    ],
)
def test_another_release_is_refused(message: str, changes: dict, tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", draw_weights(), **changes)
    with pytest.raises(CheckpointError, match=message):
        convert_internvl(release, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_what_a_release_lacks_is_named(tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", draw_weights())

    def refuse(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            convert_internvl(release, tmp_path / "converted")

    (release / "added_tokens.json").write_text("{}")
    refuse("has no <IMG_CONTEXT>")
    (release / "added_tokens.json").write_text("[]")
    refuse("holds no mapping of names")
    (release / "config.json").unlink()
    refuse(r"config\.json cannot be read: .*Expected a release of OpenGVLab")
    with pytest.raises(CheckpointError, match=r"unknown name vision_model\.head\.weight"):
        rename_vision({"vision_model.head.weight": torch.zeros(1)})
