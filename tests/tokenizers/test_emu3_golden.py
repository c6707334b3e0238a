"""Emu3's tokenizer against numbers of the published code: every golden file of the family, shapes and settings read from the file.
Weights come under the published names and pass through the adapter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from plait.adapters.emu3 import to_released, to_transformers
from plait.tokenizers.emu3 import Emu3Tokenizer
from tests import goldens


@pytest.mark.parametrize("path", goldens.family("emu3_vq_*"))
@torch.no_grad()
def test_golden(path: Path) -> None:
    golden = goldens.read(path)
    tokenizer = Emu3Tokenizer(**settings(golden))
    assert sorted(to_released(tokenizer.state_dict())) == sorted(str(key) for key in golden["keys"])
    missing, unexpected = tokenizer.load_state_dict(to_transformers(goldens.weights(golden)), strict=False)
    halves = {
        kind: [name.removeprefix(kind) for name in golden if name.startswith(kind) and name[len(kind) :].isdigit()]
        for kind in ("x", "dec")
    }
    used = [("encoder.", "quant_conv.")] * bool(halves["x"]) + [("decoder.", "post_quant_conv.")] * bool(halves["dec"])
    prefixes = ("quantize.", *(name for names in used for name in names))
    assert not unexpected
    assert used, f"{path.name}: not a known kind of Emu3 golden: {sorted(golden)[:8]}"
    assert not [name for name in missing if name.startswith(prefixes) and not name.endswith("num_batches_tracked")]
    for name in halves["x"]:
        check_encoder(tokenizer, golden, name)
    for name in halves["dec"]:
        check_decoder(tokenizer, golden, name)


def check_encoder(tokenizer: Emu3Tokenizer, golden: dict[str, np.ndarray], name: str) -> None:
    """A picture (b 3 h w) through our short cut, a video (b t 3 h w) through all frames; axes of latents are b t d gh gw in the file."""
    pixels = torch.from_numpy(golden[f"x{name}"])
    is_picture = pixels.ndim == 4
    frames = pixels[:, None].repeat(1, tokenizer.temporal_downsampling, 1, 1, 1) if is_picture else pixels
    whole = tokenizer.encoder(frames)  # transformers' own path with these weights
    if f"latent{name}" in golden:
        np.testing.assert_allclose(whole.numpy(), golden[f"latent{name}"], atol=1e-5)
    if f"prequant{name}" in golden:
        latents = tokenizer.quant_conv(whole.transpose(1, 2)).transpose(1, 2)
        np.testing.assert_allclose(latents.numpy(), golden[f"prequant{name}"], atol=1e-5)
        if is_picture:
            np.testing.assert_allclose(tokenizer.latents(pixels)[:, None].numpy(), golden[f"prequant{name}"], atol=1e-5)
    codes = tokenizer.encode(pixels)[0] if is_picture else tokenizer.encode_frames(pixels)
    np.testing.assert_array_equal(codes.numpy(), golden[f"ids{name}"])


def check_decoder(tokenizer: Emu3Tokenizer, golden: dict[str, np.ndarray], name: str) -> None:
    """One grid (b gh gw) gives a picture, grids over time (b t gh gw) a video; the file's values are not clamped."""
    codes, expected = torch.from_numpy(golden[f"ids{name}"]), golden[f"dec{name}"]
    if codes.ndim == 3:
        np.testing.assert_allclose(tokenizer.pixels(codes).numpy(), expected, atol=2e-5)
        np.testing.assert_allclose(tokenizer.decode((codes,)).numpy(), expected.clip(-1, 1), atol=2e-5)
    else:
        np.testing.assert_allclose(tokenizer.decode_frames(codes).numpy(), expected.clip(-1, 1), atol=2e-5)


def settings(golden: dict[str, np.ndarray]) -> dict:
    """The published settings by our names."""
    assert int(golden["cfg_embed_dim"]) == int(golden["cfg_z_channels"])
    assert not bool(golden["cfg_double_z"])
    multipliers = golden["cfg_ch_mult"].tolist()
    side = 2 ** (len(multipliers) - 1)
    return {
        "image_size": (side, side),
        "width": int(golden["cfg_ch"]),
        "multipliers": multipliers,
        "blocks_per_level": int(golden["cfg_num_res_blocks"]),
        "attention_levels": golden["cfg_attn_resolutions"].tolist(),
        "num_codes": int(golden["cfg_codebook_size"]),
        "code_width": int(golden["cfg_embed_dim"]),
        "temporal_downsampling": int(golden["cfg_temporal_downsample_factor"]),
    }
