"""Every system on the pretend accelerator: the numbers of the CPU, no two devices in one operator, and what is waited for.

The bar of training is no wait of the host per micro-batch; that of sampling, per turn, at most one wait and three copies to the device.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_modules.stage import Stage
from plait.document import Document, ImageSpan, TextSpan
from plait.sampling.policies import SamplingPolicy
from plait.systems.unified import UnifiedModel
from tests.pretend_device import DEVICE, Pretend, pretend_device
from tests.systems import test_language_model, test_liquid, test_mllm, test_synergen_vl
from tests.tokenizers import test_patch_fsq

LIQUID = {
    "dense": {},
    "factorised": {"code_rows": "factorised", "image_positions": True},
    "windowed": {"architecture": "gemma2"},
}
SYNERGEN = {"prefix": {}, "add": {"condition": "add"}}
SYSTEMS: dict[str, Callable[[], UnifiedModel]] = {
    **{f"liquid-{name}": lambda options=options: test_liquid.tiny_liquid(**options) for name, options in LIQUID.items()},
    **{
        f"synergen_vl-{name}": lambda options=options: test_synergen_vl.tiny_synergen(**options)
        for name, options in SYNERGEN.items()
    },
    "language_model": test_language_model.make,
    "mllm": test_mllm.tiny_mllm,
}


def pictures_of(model: UnifiedModel):
    return (test_liquid if model.template.wording == test_liquid.LiquidTemplate.wording else test_synergen_vl).image


def documents_of(model: UnifiedModel) -> list[Document]:
    """Pairs both ways round, or texts, as training has them."""
    if not model.builder.layout.frames:
        return test_language_model.documents()
    if model.builder.layout.drawn_frame is None:
        return test_mllm.DIALOGUES
    pair = Document((TextSpan("a red car"), pictures_of(model)()), kind="pair")
    return [model.template.wrap(replace(pair, id=f"pair {counter}"), counter) for counter in range(6)]


def prompts_of(model: UnifiedModel) -> list[Document]:
    if not model.builder.layout.frames:
        return [Document((TextSpan("a kettle"),), ends=False), Document((TextSpan("rivers"),), ends=False)]
    if model.builder.layout.drawn_frame is None:
        return [model.template.caption_prompt(test_mllm.picture(seed, tiles)) for seed, tiles in enumerate((0, 2, 3))]
    image = pictures_of(model)(form="codes")
    return [model.template.draw_prompt("a red car"), model.template.caption_prompt(image), model.template.draw_prompt("blue")]


def gradients(model: UnifiedModel) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name: value.held if isinstance(value, Pretend) else value for name, value in found.items()}


def train(model: UnifiedModel, device: torch.device | str) -> dict[str, torch.Tensor]:
    """Loss terms and gradients of one micro-batch."""
    batch = model.builder.build(documents_of(model), row_length=160).to(device)
    terms = model.loss(batch)
    sum(terms.sums.values()).backward()
    return {**{name: value.detach().cpu() for name, value in terms.sums.items()}, **gradients(model)}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_micro_batch_of_training(name: str) -> None:
    expected = train(SYSTEMS[name](), "cpu")
    model = SYSTEMS[name]()
    with pretend_device() as counts:
        model.to(DEVICE)
        batch = model.builder.build(documents_of(model), row_length=160).to(DEVICE)
        counts.clear()
        sum(model.loss(batch).sums.values()).backward()
        assert not counts.waits, counts
        model.zero_grad()
        found = train(model, DEVICE)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def sample(model: UnifiedModel, guidance: float) -> list[Document]:
    policies = {"text": SamplingPolicy(top_p=0.9), "image": SamplingPolicy(guidance=guidance, top_k=5)}
    prompts = prompts_of(model)
    return model.generate(prompts, policies, seeds=range(len(prompts)), max_images=1, max_tokens=6)


@pytest.mark.parametrize(("name", "guidance"), [("liquid-dense", 1.0), *((name, 3.0) for name in SYSTEMS)])
def test_sampling(name: str, guidance: float) -> None:
    expected = sample(SYSTEMS[name](), guidance)
    model, turns = SYSTEMS[name](), []
    model.backbone.register_forward_hook(lambda *_: turns.append(1))
    with pretend_device() as counts:
        model.to(DEVICE)
        counts.clear()
        found = sample(model, guidance)
        assert counts.waits.total() <= len(turns), counts
        # once per generation: masks, the first hidden states, random numbers made ahead
        assert counts.copies.total() <= 3 * len(turns) + 4, counts
    assert [str(document) for document in found] == [str(document) for document in expected]


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("is_plain", [False, True])
def test_scoring(name: str, is_plain: bool) -> None:
    cpu, model = SYSTEMS[name](), SYSTEMS[name]()
    documents = [Document((TextSpan("a"), TextSpan(" red car", loss=True)), ends=False)] if is_plain else documents_of(model)
    if is_plain and not model.builder.layout.frames:
        documents = test_language_model.documents()[1::2]
    with pretend_device() as counts:
        model.to(DEVICE)
        counts.clear()
        found = model.score(documents, is_plain=is_plain)
        assert not counts.waits, counts
    torch.testing.assert_close(found.held, cpu.score(documents, is_plain=is_plain))


@pytest.mark.parametrize("make", [lambda model: model, lambda model: Stage(model, max_steps=1, optimizer=torch.optim.SGD)])
def test_companions_go_where_the_model_goes(make: Callable[[UnifiedModel], torch.nn.Module]) -> None:
    """They are no part of it, keep their precision, and leave the one that data on the host are encoded with behind."""
    model, own = test_liquid.tiny_liquid(), test_patch_fsq.make(levels=(3, 4)).train()
    model._companions["vision_tokenizer"] = own
    names = [*model.state_dict()]
    spans = [ImageSpan(str(code), codes=(np.full((4, 6), code),)) for code in range(3)]
    expected = model.pictures(spans)
    with pretend_device():
        make(model).to(torch.bfloat16).to(DEVICE)
        tokenizer = model.vision_tokenizer
        assert {(value.device, value.dtype) for value in tokenizer.parameters()} == {(DEVICE, torch.float32)}
        assert {value.device.type for value in own.parameters()} == {"cpu"}
        torch.testing.assert_close(model.pictures(spans).held, expected)
        assert ([*model.state_dict()], [*model.parts]) == (names, ["backbone", "head"])
        model.to("cpu")
    assert {value.device.type for value in model.vision_tokenizer.parameters()} == {"cpu"}
