"""Tokenizers and vision models on the pretend accelerator: the numbers of the CPU, and nobody waits for it to train or to encode."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from plait.tokenizers.codes import hash_tokenizer
from tests.pretend_device import DEVICE, pretend_device
from tests.tokenizers import test_emu3, test_patch_autoencoder, test_patch_fsq, test_vqgan
from tests.vision import test_classifier

IMAGES = test_patch_fsq.pictures(3)
LEARNED: dict[str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor]]] = {
    "patch_fsq": (lambda: test_patch_fsq.make(encoder_attends=True, foreground_weight=3.0), {}),
    "vqgan": (lambda: test_vqgan.make(attention_levels=(1,)), {}),
    "patch_autoencoder": (lambda: test_patch_autoencoder.make(noise=0.0), {}),
    "classifier": (lambda: test_classifier.build(temperature=0.1), {"attributes": test_classifier.ATTRIBUTES}),
}
CODED = {"patch_fsq": test_patch_fsq.make, "vqgan": test_vqgan.make, "emu3": test_emu3.make}


@pytest.mark.parametrize("name", LEARNED)
def test_a_micro_batch_of_training(name: str) -> None:
    make, further = LEARNED[name]
    batch = {"images": IMAGES, "originals": IMAGES.flip(0), "numbers": torch.arange(3), **further}
    expected, model = make().loss(batch), make()
    with pretend_device() as counts:
        model.to(DEVICE)
        moved = {key: value.to(DEVICE) for key, value in batch.items()}
        counts.clear()
        terms = model.loss(moved)
        sum(terms.sums.values()).backward()
        assert not counts.waits, counts
        found = [value.detach().cpu() for value in terms.sums.values()]
        metrics = [float(number) for pair in terms.metrics.values() for number in pair]
    torch.testing.assert_close(found, [value.detach() for value in expected.sums.values()])
    assert metrics == pytest.approx([float(number) for pair in expected.metrics.values() for number in pair])


@pytest.mark.parametrize("name", CODED)
def test_encoding_and_decoding(name: str) -> None:
    """Decoding waits once: it looks whether the codes are its own."""
    cpu, tokenizer = CODED[name](), CODED[name]()
    with pretend_device() as counts, torch.no_grad():
        tokenizer.to(DEVICE)
        counts.clear()
        codes = tokenizer.encode(IMAGES.to(DEVICE))
        assert not counts.waits, counts
        images = tokenizer.decode(codes)
        assert counts.waits.total() == 1, counts
        assert hash_tokenizer(tokenizer) == hash_tokenizer(cpu)
    assert all(torch.equal(one.held, other) for one, other in zip(codes, cpu.encode(IMAGES), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(images.held, cpu.decode(cpu.encode(IMAGES)), rtol=1e-3, atol=1e-4)
