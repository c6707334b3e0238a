"""The VQGAN against numbers of the published code: every golden file of the family, shapes and settings read from the file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.tokenizers.vector_quantizer import VectorQuantizer
from plait.tokenizers.vqgan import VQGAN
from tests import goldens


@pytest.mark.parametrize("path", goldens.family("vqgan_*"))
def test_golden(path: Path) -> None:
    golden = goldens.read(path)
    if "shapes" in golden:
        check_names_and_shapes(golden)
    elif "grad_z" in golden:
        check_quantizer(golden)
    else:
        assert "enc0" in golden or "dec0" in golden, f"{path.name}: not a known kind of VQGAN golden: {sorted(golden)[:8]}"
        check_model(golden)


def check_names_and_shapes(golden: dict[str, np.ndarray]) -> None:
    """Names in order, shapes and parameter count of a configuration that is read off the shapes."""
    shapes = {str(key): _shape(value) for key, value in zip(golden["keys"], golden["shapes"], strict=True)}
    with torch.device("meta"):
        model = VQGAN(**_settings_from_shapes(shapes))
    state = model.state_dict()
    assert list(state) == list(shapes)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes
    assert sum(parameter.numel() for parameter in model.parameters()) == int(golden["params"])


def check_quantizer(golden: dict[str, np.ndarray]) -> None:
    """Codes, ties, both losses and both gradients of the quantiser alone."""
    weight = torch.from_numpy(golden["w.embedding.weight"])
    for is_legacy, name in ((True, "loss_legacy"), (False, "loss_not_legacy")):
        quantizer = VectorQuantizer(*weight.shape, is_legacy=is_legacy)
        quantizer.load_state_dict({"embedding.weight": weight})
        latents = torch.from_numpy(golden["z"]).requires_grad_()
        quantized, codes, losses = quantizer(latents)
        np.testing.assert_array_equal(codes.numpy(), golden["ids_bhw"])
        np.testing.assert_array_equal(codes.flatten().numpy(), golden["ids"])
        np.testing.assert_allclose(quantized.detach().numpy(), golden["quant"], atol=1e-6)
        np.testing.assert_allclose(losses.mean().item(), golden[name], atol=1e-6)
        if is_legacy:
            (losses.mean() + (quantized * torch.from_numpy(golden["proj"])).sum()).backward()
            np.testing.assert_allclose(latents.grad.numpy(), golden["grad_z"], atol=1e-6)
            np.testing.assert_allclose(quantizer.embedding.weight.grad.numpy(), golden["grad_embedding"], atol=1e-6)


@torch.no_grad()
def check_model(golden: dict[str, np.ndarray]) -> None:
    """Encoder, quantiser and decoder of a small model with the golden's weights; a file may hold either half."""
    model = VQGAN(**_settings_from_config(golden)).eval()
    assert list(model.state_dict()) == [str(key) for key in golden["keys"]]
    missing, unexpected = model.load_state_dict(goldens.weights(golden), strict=False)
    half = "encoder" if "enc0" in golden else "decoder"
    assert not unexpected
    assert not [name for name in missing if name.startswith((f"{half}.", "quantize."))]

    for index in _indices(golden, "enc"):
        images = torch.from_numpy(golden[f"x{index}"])
        latents = model.latents(images)
        np.testing.assert_allclose(model.encoder(images).numpy(), golden[f"enc{index}"], atol=1e-5)
        np.testing.assert_allclose(latents.numpy(), golden[f"prequant{index}"], atol=1e-5)
        np.testing.assert_array_equal(model.encode(images)[0].flatten().numpy(), golden[f"ids{index}"])
        quantized, _, losses = model.quantize(latents)
        np.testing.assert_allclose(quantized.numpy(), golden[f"quant{index}"], atol=1e-5)
        np.testing.assert_allclose(losses.mean().item(), golden[f"loss{index}"], atol=1e-5)
    for index in _indices(golden, "dec"):
        quantized = torch.from_numpy(golden[f"quant{index}"])
        np.testing.assert_allclose(model.pixels(quantized).numpy(), golden[f"dec{index}"], atol=2e-5)
        batch, _, gh, gw = quantized.shape
        codes = torch.from_numpy(golden[f"ids{index}"]).reshape(batch, gh, gw)
        expected = np.clip(golden[f"dec{index}"], -1.0, 1.0)
        np.testing.assert_allclose(model.decode((codes,)).numpy(), expected, atol=2e-5)


def _indices(golden: dict[str, np.ndarray], kind: str) -> list[str]:
    return sorted(name[len(kind) :] for name in golden if re.fullmatch(rf"{kind}\d+", name))


def _shape(value: np.ndarray) -> tuple[int, ...]:
    return tuple(int(size) for size in json.loads(f"[{str(value).strip('[]()').rstrip(',')}]"))


def _settings_from_config(golden: dict[str, np.ndarray]) -> dict:
    resolution, attention = int(golden["cfg_resolution"]), golden["cfg_attn_resolutions"].tolist()
    multipliers = golden["cfg_ch_mult"].tolist()
    return {
        "image_size": (resolution, resolution),
        "width": int(golden["cfg_ch"]),
        "multipliers": multipliers,
        "blocks_per_level": int(golden["cfg_num_res_blocks"]),
        "attention_levels": [index for index in range(len(multipliers)) if resolution // 2**index in attention],
        "latent_channels": int(golden["cfg_z_channels"]),
        "num_codes": int(golden["cfg_n_embed"]),
        "code_width": int(golden["cfg_embed_dim"]),
    }


def _settings_from_shapes(shapes: dict[str, tuple[int, ...]]) -> dict:
    blocks = [
        match.groups() for name in shapes if (match := re.match(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight", name))
    ]
    levels = 1 + max(int(level) for level, _ in blocks)
    width = shapes["encoder.conv_in.weight"][0]
    return {
        "width": width,
        "multipliers": [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] // width for level in range(levels)],
        "blocks_per_level": 1 + max(int(block) for _, block in blocks),
        "attention_levels": [level for level in range(levels) if f"encoder.down.{level}.attn.0.q.weight" in shapes],
        "latent_channels": shapes["encoder.conv_out.weight"][0],
        "num_codes": shapes["quantize.embedding.weight"][0],
        "code_width": shapes["quantize.embedding.weight"][1],
    }
