"""Emu3's tokenizer at a small size: size of the released one, both short cuts against transformers' whole path, frozen, messages."""

import pytest
import torch
from torch import nn
from transformers import Emu3VQVAE, Emu3VQVAEConfig

from plait.errors import RecipeError, VocabularyError
from plait.freezing import FreezePlan
from plait.protocols import ImageDecoder, VisionTokenizer
from plait.tokenizers.codes import hash_tokenizer
from plait.tokenizers.emu3 import Emu3Tokenizer

SMALL = {"image_size": (16, 24), "width": 32, "multipliers": (1, 1), "blocks_per_level": 1, "attention_levels": (1,)}


def make(**settings) -> Emu3Tokenizer:
    """With statistics and norms that are not those of a new BatchNorm, and rows where the latents are."""
    torch.manual_seed(0)
    tokenizer = Emu3Tokenizer(**{**SMALL, "num_codes": 40, **settings})
    for module in tokenizer.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(tokenizer.quantize.embedding.weight)
    return tokenizer


def whole(tokenizer: Emu3Tokenizer, **settings) -> Emu3VQVAE:
    """transformers' own model with the same weights: every frame through every layer."""
    sizes = {**SMALL, **settings}
    config = Emu3VQVAEConfig(
        codebook_size=40,
        base_channels=sizes["width"],
        channel_multiplier=list(sizes["multipliers"]),
        num_res_blocks=sizes["blocks_per_level"],
        attn_resolutions=list(sizes["attention_levels"]),
        hidden_size=sizes["width"] * sizes["multipliers"][-1],
        temporal_downsample_factor=tokenizer.temporal_downsampling,
    )
    model = Emu3VQVAE(config)
    model.load_state_dict(tokenizer.state_dict())
    return model.eval()


def pictures(count: int = 2, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_default_is_the_released_tokenizer() -> None:
    with torch.device("meta"):
        tokenizer = Emu3Tokenizer()
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == 270_740_287
    assert tokenizer.quantize.embedding.weight.shape == (32768, 4)
    assert tokenizer.grid_shapes == ((64, 64),)
    assert tokenizer.code_sizes == (32768,)


def test_offers_the_seams_of_a_tokenizer_and_a_decoder() -> None:
    tokenizer = make()
    assert isinstance(tokenizer, VisionTokenizer)
    assert isinstance(tokenizer, ImageDecoder)
    assert (tokenizer.grid_shapes, tokenizer.digit_sizes, tokenizer.image_size) == (((8, 12),), ((40,),), (16, 24))
    owned = [id(parameter) for part in tokenizer.parts.values() for parameter in part.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in tokenizer.parameters())


@pytest.mark.parametrize(
    "settings", [{}, {"multipliers": (1, 2, 2)}, {"attention_levels": (), "temporal_downsampling": 2, "blocks_per_level": 2}]
)
@torch.no_grad()
def test_both_short_cuts_equal_the_whole_path_of_transformers(settings: dict) -> None:
    tokenizer = make(**settings)
    reference, images = whole(tokenizer, **settings), pictures(3, 24, 16)
    expected = torch.stack(reference.encode(images, image_sizes=torch.tensor([[24, 16]] * 3)).image_tokens)
    (codes,) = tokenizer.encode(images)
    assert torch.equal(codes, expected)
    assert codes.unique().numel() > 4, "the pictures all look alike to this tokenizer: the test would not see a difference"
    torch.testing.assert_close(tokenizer.pixels(codes), reference.decode(codes), atol=1e-5, rtol=0)
    frames = images[:, None].repeat(1, tokenizer.temporal_downsampling, 1, 1, 1)
    before = reference.quant_conv(reference.encoder(frames).transpose(1, 2))
    torch.testing.assert_close(tokenizer.latents(images), before.squeeze(2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_video_equals_that_of_transformers_and_a_still_one_is_the_picture() -> None:
    tokenizer = make()
    reference, frames = whole(tokenizer), pictures(16).unflatten(0, (2, 8))
    codes = tokenizer.encode_frames(frames)
    assert codes.shape == (2, 2, 8, 12)
    assert torch.equal(codes, torch.stack(reference.encode(frames, image_sizes=torch.tensor([[16, 24]] * 2)).image_tokens))
    drawn = tokenizer.decode_frames(codes)
    torch.testing.assert_close(drawn, reference.decode(codes).clamp(-1, 1), atol=1e-5, rtol=0)
    assert not torch.allclose(drawn[:, 0], drawn[:, 1], atol=1e-3), "frames of one grid differ: only the first is the picture"
    (still,) = tokenizer.encode(frames[:, 0])
    assert torch.equal(tokenizer.encode_frames(frames[:, :1].repeat(1, 4, 1, 1, 1))[:, 0], still)
    torch.testing.assert_close(tokenizer.decode_frames(still[:, None])[:, 0], tokenizer.decode((still,)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_has_the_width_of_its_level() -> None:
    """transformers has one width for all attention: with two it builds a model that cannot run."""
    settings = {"multipliers": (1, 2), "attention_levels": (0, 1)}
    tokenizer = make(**settings)
    down, up = tokenizer.encoder.down_block.down, tokenizer.decoder.up_block.up
    assert [level.attn[0].q_proj.in_features for level in down] == [32, 64]
    assert [[block.out_proj.in_features for block in level.attn] for level in up] == [[32, 32], [64, 64]]
    assert [block.scale for block in (down[0].attn[0], down[1].attn[0])] == [32**-0.5, 64**-0.5]
    (codes,) = tokenizer.encode(pictures())
    before = tokenizer.latents(pictures()), tokenizer.pixels(codes)
    for level in (down[0], up[0]):
        level.attn[0].out_proj.weight.mul_(5.0)
    after = tokenizer.latents(pictures()), tokenizer.pixels(codes)
    assert all((old - new).abs().max() > 1e-3 for old, new in zip(before, after, strict=True)), "level 0 does not attend"
    config = Emu3VQVAEConfig(
        base_channels=32, channel_multiplier=[1, 2], attn_resolutions=[0, 1], hidden_size=64, num_res_blocks=1
    )
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Emu3VQVAE(config).encode(pictures(), image_sizes=torch.tensor([[16, 24]] * 2))


@torch.no_grad()
def test_a_picture_does_not_depend_on_its_batch_nor_on_train() -> None:
    tokenizer = make()
    images = pictures(3)
    (codes,) = tokenizer.encode(images)
    drawn, identity = tokenizer.decode((codes,)), hash_tokenizer(tokenizer)
    nn.Sequential(tokenizer).train()
    assert not any(module.training for module in tokenizer.modules())
    assert torch.equal(tokenizer.train().encode(images[1:2])[0], codes[1:2])
    torch.testing.assert_close(tokenizer.decode((codes[1:2],)), drawn[1:2], atol=1e-5, rtol=0)
    assert hash_tokenizer(tokenizer) == identity, "running statistics have changed"


def test_precision_is_that_of_the_weights_under_autocast() -> None:
    tokenizer = make()
    (codes,) = tokenizer.encode(pictures())
    drawn = tokenizer.decode((codes,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.encode(pictures())[0], codes)
        assert torch.equal(tokenizer.decode((codes,)), drawn)
    half = tokenizer.to(torch.bfloat16)
    assert half.encode(pictures())[0].shape == codes.shape


def test_frozen_and_refuses_to_be_trained() -> None:
    tokenizer = make()
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    FreezePlan().apply(tokenizer)  # what a stage would do
    assert not tokenizer.decode(tokenizer.encode(pictures().requires_grad_())).requires_grad
    with pytest.raises(RecipeError, match=r"no loss: it is taken as released.*tokenizer=vqgan"):
        tokenizer.loss({"images": pictures()})


def test_says_what_is_wrong() -> None:
    tokenizer = make()
    with pytest.raises(RecipeError, match=r"15 x 16 pixels.*multiples of 2"):
        tokenizer.encode(torch.ones(1, 3, 15, 16))
    with pytest.raises(RecipeError, match=r"16 x 12 pixels.*multiples of 8"):
        make(image_size=(16, 12), multipliers=(1, 1, 1, 1))
    with pytest.raises(VocabularyError, match="from 3 to 40: expected 0 to 39"):
        tokenizer.decode((torch.tensor([[[3, 40]]]),))
    with pytest.raises(VocabularyError, match="from -1 to 3"):
        tokenizer.decode_frames(torch.tensor([[[[3, -1]]]]))
    with pytest.raises(RecipeError, match="video of 6 frames: expected a multiple of 4"):
        tokenizer.encode_frames(torch.ones(1, 6, 3, 16, 16))
    with pytest.raises(RecipeError, match=r"no level 16, expected indices from 0 to 1.*not pixels"):
        make(attention_levels=(16,))
    with pytest.raises(RecipeError, match="temporal_downsampling is 3, expected a power of two"):
        make(temporal_downsampling=3)
    with pytest.raises(RecipeError, match=r"widths \[48, 48\].*multiples of 32"):
        make(width=48)
