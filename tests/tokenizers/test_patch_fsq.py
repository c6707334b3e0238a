"""The patch tokenizer: codes and digits, inverse pairs, gradients, sizes, and that it learns."""

import pytest
import torch

from plait.errors import RecipeError, VocabularyError
from plait.protocols import VisionTokenizer
from plait.tokenizers.patch_fsq import PatchFSQ

LEVELS = (8, 5, 4)


def make(**settings) -> PatchFSQ:
    torch.manual_seed(0)
    sizes = {"image_size": (32, 48), "patch_size": 8, "width": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2}
    return PatchFSQ(**{**sizes, "levels": LEVELS, **settings})


def pictures(count: int, height: int = 32, width: int = 48) -> torch.Tensor:
    """White pictures with one coloured rectangle each."""
    generator = torch.Generator().manual_seed(1)
    images = torch.ones(count, 3, height, width)
    for image in images:
        top, left = (int(torch.randint(0, size // 2, (), generator=generator)) for size in (height, width))
        image[:, top : top + height // 2, left : left + width // 2] = torch.rand(3, 1, 1, generator=generator) * 2 - 1
    return images


def test_offers_the_seam_of_a_vision_tokenizer() -> None:
    tokenizer = make()
    assert isinstance(tokenizer, VisionTokenizer)
    assert tokenizer.code_sizes == (160,)
    assert tokenizer.digit_sizes == (LEVELS,)
    assert tokenizer.grid_shapes == ((4, 6),)
    owned = [id(parameter) for part in tokenizer.parts.values() for parameter in part.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in tokenizer.parameters())


def test_default_settings_are_the_cpu_scale() -> None:
    tokenizer = PatchFSQ()
    (codes,) = tokenizer.encode(pictures(2, 64, 64))
    assert codes.shape == (2, 4, 4)
    assert codes.dtype == torch.int64
    assert tokenizer.decode((codes,)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("levels", [LEVELS, (8, 8, 8, 5, 5), (3, 7)])
def test_a_code_is_the_sum_of_its_digits_times_their_strides(levels: tuple[int, ...]) -> None:
    tokenizer = make(levels=levels)
    codes = torch.arange(tokenizer.code_sizes[0])
    rounded = tokenizer.quantizer.indices_to_codes(codes.reshape(1, -1))[0]
    # digit i as FSQ sees it: its level, counted from the lowest
    digits = torch.stack([(rounded[:, i] * (size // 2) + size // 2).round().long() for i, size in enumerate(levels)], dim=1)
    stride = torch.tensor([1, *levels[:-1]]).cumprod(0)
    assert (digits >= 0).all()
    assert (digits < torch.tensor(levels)).all()
    assert torch.equal((digits * stride).sum(1), codes)


def test_every_code_survives_decoding_to_digits_and_rounding_again() -> None:
    tokenizer = make()
    codes = torch.arange(tokenizer.code_sizes[0]).reshape(1, -1)
    again = tokenizer.quantizer.codes_to_indices(tokenizer.quantizer.indices_to_codes(codes))
    assert torch.equal(again.long(), codes)


@pytest.mark.parametrize("encoder_attends", [False, True])
def test_decoding_the_codes_equals_reconstructing_the_picture(encoder_attends: bool) -> None:
    tokenizer = trained_briefly(make(encoder_attends=encoder_attends))
    images = pictures(3)
    expected = tokenizer.reconstruct(images).clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("encoder_attends", "is_local"), [(False, True), (True, False)])
def test_a_local_encoder_sees_one_patch_and_an_attending_one_sees_all(encoder_attends: bool, is_local: bool) -> None:
    tokenizer = make(encoder_attends=encoder_attends, levels=(64, 64))
    images = pictures(1).requires_grad_()
    digits = tokenizer.encoder(images)
    digits[0, 0].sum().backward()
    outside = images.grad.clone()
    outside[:, :, :8, :8] = 0
    assert bool(outside.any()) != is_local


def test_position_of_a_patch_reaches_the_decoder() -> None:
    tokenizer = make(decoder_depth=2)
    torch.nn.init.normal_(tokenizer.decoder.patch_out.weight, std=0.02)  # zero at the start: everything white
    codes = torch.zeros(1, 4, 6, dtype=torch.long)
    codes[0, 0, 0], codes[0, 2, 3] = 17, 90
    moved = torch.zeros_like(codes)
    moved[0, 0, 0], moved[0, 3, 5] = 17, 90
    first, second = tokenizer.decode((codes,)), tokenizer.decode((moved,))
    assert not torch.allclose(first[:, :, :8, :8], second[:, :, :8, :8], atol=1e-4)


def test_works_on_sizes_that_it_was_not_built_for() -> None:
    tokenizer = make()
    (codes,) = tokenizer.encode(pictures(2, 64, 16))
    assert codes.shape == (2, 8, 2)
    assert tokenizer.decode((codes,)).shape == (2, 3, 64, 16)


def test_gradients_pass_the_rounding_to_the_encoder() -> None:
    tokenizer = make(decoder_depth=2)
    torch.nn.init.normal_(tokenizer.decoder.patch_out.weight, std=0.1)  # zero at the start, where nothing would flow yet
    terms = tokenizer.loss({"images": pictures(2)})
    assert terms.counts == {"reconstruction": 2.0}
    terms.sums["reconstruction"].backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_loss_is_a_sum_over_pictures() -> None:
    tokenizer = trained_briefly(make(foreground_weight=3.0))
    images = pictures(4)
    whole = tokenizer.loss({"images": images}).sums["reconstruction"]
    single = sum(tokenizer.loss({"images": image[None]}).sums["reconstruction"] for image in images)
    torch.testing.assert_close(whole, single)


def test_foreground_weight_counts_coloured_pixels_more() -> None:
    images = torch.ones(1, 3, 32, 48)
    images[:, 0, :8, :8] = -1.0  # 64 of 1536 pixels, one channel of three, off by two from the white first reconstruction
    plain = make().loss({"images": images}).sums["reconstruction"].item()
    weighted = make(foreground_weight=4.0).loss({"images": images}).sums["reconstruction"].item()
    squared = make(distance="squared").loss({"images": images}).sums["reconstruction"].item()
    assert plain == pytest.approx(2.0 * 64 / 1536 / 3)
    assert weighted == pytest.approx(4.0 * plain)
    assert squared == pytest.approx(2.0 * plain)


def test_overfits_eight_pictures() -> None:
    tokenizer = make(width=64, decoder_depth=2, levels=(8, 8, 8, 5, 5), distance="squared")
    images = pictures(8)
    before = (tokenizer.decode(tokenizer.encode(images)) - images).abs().mean()
    trained_briefly(tokenizer, images, steps=130, rate=3e-3)
    after = (tokenizer.decode(tokenizer.encode(images)) - images).abs().mean()
    assert after < 0.35 * before, f"mean error {before:.3f} -> {after:.3f}"


def test_says_what_is_wrong() -> None:
    tokenizer = make()
    with pytest.raises(RecipeError, match=r"30 x 48 pixels.*multiples of the patch, 8"):
        tokenizer.encode(torch.ones(1, 3, 30, 48))
    with pytest.raises(VocabularyError, match="from 0 to 160: expected 0 to 159"):
        tokenizer.decode((torch.tensor([[[0, 160]]]),))
    with pytest.raises(RecipeError, match="width 34 with 2 heads: expected a multiple of 8"):
        make(width=34)


def trained_briefly(tokenizer: PatchFSQ, images: torch.Tensor | None = None, steps: int = 5, rate: float = 1e-2) -> PatchFSQ:
    """The same tokenizer after a few steps, so that its decoder no longer writes plain white."""
    images = pictures(4) if images is None else images
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        tokenizer.loss({"images": images}).sums["reconstruction"].backward()
        optimizer.step()
    return tokenizer
