"""The VQGAN at a small size: size of the released one, inverse pairs, gradients, messages, and that it learns."""

import pytest
import torch

from plait.errors import RecipeError, VocabularyError
from plait.protocols import VisionTokenizer
from plait.tokenizers import vector_quantizer
from plait.tokenizers.vector_quantizer import VectorQuantizer
from plait.tokenizers.vqgan import VQGAN

SMALL = {"image_size": (16, 16), "width": 32, "multipliers": (1, 1), "blocks_per_level": 1, "latent_channels": 8}


def make(**settings) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(**{**SMALL, "num_codes": 40, "code_width": 4, **settings})


def test_default_is_the_released_tokenizer() -> None:
    with torch.device("meta"):
        tokenizer = VQGAN()
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == 68_718_467
    assert sum(parameter.numel() for parameter in tokenizer.encoder.parameters()) == 27_194_880
    assert sum(parameter.numel() for parameter in tokenizer.decoder.parameters()) == 39_294_851
    assert tokenizer.grid_shapes == ((32, 32),)
    assert tokenizer.code_sizes == (8192,)


def test_offers_the_seam_of_a_vision_tokenizer() -> None:
    tokenizer = make()
    assert isinstance(tokenizer, VisionTokenizer)
    assert tokenizer.digit_sizes == ((40,),)
    owned = [id(parameter) for part in tokenizer.parts.values() for parameter in part.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in tokenizer.parameters())


@pytest.mark.parametrize("attention_levels", [(), (1,)])
def test_decoding_the_codes_equals_decoding_what_was_quantised(attention_levels: tuple[int, ...]) -> None:
    tokenizer = make(attention_levels=attention_levels)
    images = torch.rand(2, 3, 24, 16) * 2 - 1
    (codes,) = tokenizer.encode(images)
    assert codes.shape == (2, 12, 8)
    quantized, again, _ = tokenizer.quantize(tokenizer.latents(images))
    assert torch.equal(codes, again)
    torch.testing.assert_close(tokenizer.decode((codes,)), tokenizer.pixels(quantized).clamp(-1, 1), atol=1e-4, rtol=0)


def test_every_row_is_nearest_to_itself_and_the_first_of_equal_rows_wins() -> None:
    quantizer = VectorQuantizer(num_codes=50, code_width=6)
    rows = quantizer.embedding.weight.detach()
    latents = rows.T.reshape(1, 6, 5, 10)
    assert torch.equal(quantizer.nearest(latents).flatten(), torch.arange(50))
    quantizer.embedding.weight.data[31] = rows[12]
    assert quantizer.nearest(latents).flatten()[31] == 12


def test_nearest_in_blocks_equals_nearest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    quantizer = VectorQuantizer(num_codes=16, code_width=3)
    latents = torch.randn(3, 3, 40, 40) / 16  # 4,800 positions, more than one block
    distances = torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, 3).double(), quantizer.embedding.weight.double())
    assert torch.equal(quantizer.nearest(latents).flatten(), distances.argmin(1))
    monkeypatch.setattr(vector_quantizer, "_DISTANCES", 7 * 16)  # seven latents at a time, as if the codebook were large
    assert torch.equal(quantizer.nearest(latents).flatten(), distances.argmin(1))


def test_nearest_does_not_depend_on_autocast() -> None:
    torch.manual_seed(1)
    quantizer, latents = VectorQuantizer(num_codes=512, code_width=4), torch.randn(1, 4, 32, 32) / 512
    codes = quantizer.nearest(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.nearest(latents), codes)


def test_gradients_reach_encoder_decoder_and_codebook() -> None:
    tokenizer = make()
    terms = tokenizer.loss({"images": torch.rand(2, 3, 16, 16) * 2 - 1})
    assert terms.counts == {"reconstruction": 2.0, "quantizer": 2.0}
    reconstruction = torch.autograd.grad(terms.sums["reconstruction"], tokenizer.encoder.conv_in.weight, retain_graph=True)[0]
    assert reconstruction.abs().sum() > 0, "the reconstruction error does not pass straight through the quantiser"
    sum(terms.sums.values()).backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
    assert tokenizer.quantize.embedding.weight.grad.abs().sum() > 0


def test_overfits_eight_pictures() -> None:
    tokenizer = make(distance="squared")
    colours = torch.linspace(-1, 1, 8)
    images = torch.ones(8, 3, 8, 8)
    for index, colour in enumerate(colours):
        images[index, index % 3, : 1 + index, 2:] = colour
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=5e-3)
    before = (tokenizer.decode(tokenizer.encode(images)) - images).abs().mean()
    for _ in range(40):
        optimizer.zero_grad()
        sum(tokenizer.loss({"images": images}).sums.values()).backward()
        optimizer.step()
    after = (tokenizer.decode(tokenizer.encode(images)) - images).abs().mean()
    assert after < 0.3 * before, f"mean error {before:.3f} -> {after:.3f}"


def test_says_what_is_wrong() -> None:
    tokenizer = make()
    with pytest.raises(RecipeError, match=r"15 x 16 pixels.*multiples of 2"):
        tokenizer.encode(torch.ones(1, 3, 15, 16))
    with pytest.raises(VocabularyError, match="from 3 to 40: expected 0 to 39"):
        tokenizer.decode((torch.tensor([[[3, 40]]]),))
    with pytest.raises(RecipeError, match=r"widths \[48, 96\].*multiples of 32"):
        make(width=48, multipliers=(1, 2))
