"""SynerGen-VL: what it reads and writes, that its parts agree with each other, and that its stages train what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from plait.backbones.causal_lm import CausalLM
from plait.data.filling import Pictures
from plait.data.mixture import Mixture
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import LayoutError, RecipeError
from plait.freezing import FreezePlan
from plait.sampling.policies import SamplingPolicy
from plait.sequence.audit import audit
from plait.sequence.chat import PIECES
from plait.systems.synergen_vl import CAPTION, DRAW, SynergenTemplate, build
from tests.systems.words import words_of

GRID, CODES = (4, 8), 64
GREEDY = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(temperature=0.0)}
ALIGN_1 = FreezePlan(freeze=["backbone"], train=["*.mlp.vision.*"])
ALIGN_2 = FreezePlan(freeze=["backbone"], train=["*.mlp.vision.*", "*.self_attn.?_proj.*"])


Text = words_of(SynergenTemplate().texts(), PIECES)


class Tokenizer:
    """A stand-in: 64 codes on a grid of 4 x 8."""

    code_sizes, digit_sizes, grid_shapes, image_size = (CODES,), ((8, 8),), (GRID,), (4, 8)

    def encode(self, images):
        return ((images[:, 0] * 32 + 32).long().clamp(0, CODES - 1),)

    def loss(self, batch):
        raise NotImplementedError("the tokenizer of these tests is not trained")

    def decode(self, codes, noise=None):
        return codes[0][:, None].float().expand(-1, 3, -1, -1) / 32 - 1


def tiny_backbone(architecture: str = "llama", **sizes: int) -> CausalLM:
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    tiny |= {"vocab_size": Text.size + 5, "num_hidden_layers": 2, "head_dim": 16, "max_position_embeddings": 256}
    return CausalLM.from_config(architecture, **(tiny | sizes))


def tiny_synergen(architecture: str = "llama", fold=(2, 4), seed: int = 0, template=None, **options):
    torch.manual_seed(seed)
    return build(
        backbone=tiny_backbone(architecture),
        vision_tokenizer=Tokenizer(),
        text_tokenizer=Text(),
        template=SynergenTemplate(**(template or {})),
        fold=fold,
        head_layers=2,
        **options,
    )


def draw_weights(model, std: float = 0.4):
    """Large random weights: what should not matter would show."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                width = 1.0 if "codes" in name or "positions" in name or "embed" in name else parameter.shape[1] ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (std * 2 / width))
    return model


def image(seed: int = 0, name: str = "i", **flags) -> ImageSpan:
    return ImageSpan(name, codes=(np.random.default_rng(seed).integers(0, CODES, GRID),), **flags)


PAIR = Document((TextSpan("a red car"), image()), id="pair", kind="pair")


def supervised(model, document: Document) -> tuple[list[str], list[str]]:
    (tokens,) = audit(model.builder.build([document]), model.builder)
    return [token.text for token in tokens], [token.text for token in tokens if token.term]


def patches(codes: np.ndarray) -> list[str]:
    """The grid of 4 x 8 in rectangles of 2 x 4, written out by hand."""
    blocks = [codes[row : row + 2, column : column + 4] for row in (0, 2) for column in (0, 4)]
    return [" ".join(str(code) for line in block for code in line) for block in blocks]


def test_drawing_supervises_the_begin_marker_every_code_and_both_ends() -> None:
    model = tiny_synergen(template={"text_to_image_ratio": 1.0, "caption_dropout": 0.0})
    tokens, loss = supervised(model, model.template.wrap(PAIR, 0))
    opening = [
        "<begin_document>",
        "<|im_start|>",
        "user",
        *DRAW.split(),
        "a",
        "red",
        "car",
        "<|im_end|>",
        "<|im_start|>",
        "assistant",
    ]
    drawn = ["<begin_image>", *patches(PAIR.images[0].codes[0]), "<end_image>", "<|im_end|>", "<end_document>"]
    assert tokens == [*opening, *drawn]
    assert loss == drawn


def test_captioning_supervises_the_answer_alone() -> None:
    model = tiny_synergen(template={"text_to_image_ratio": 0.0})
    tokens, loss = supervised(model, model.template.wrap(PAIR, 0))
    picture = ["<begin_image>", *patches(PAIR.images[0].codes[0]), "<end_image>"]
    question = [*CAPTION.split(), "<|im_end|>", "<|im_start|>", "assistant"]
    assert tokens == ["<begin_document>", "<|im_start|>", "user", *picture, *question, *loss]
    assert loss == ["a", "red", "car", "<|im_end|>", "<end_document>"]


def test_a_tenth_of_the_drawings_is_of_nothing_and_equals_the_guidance_branch() -> None:
    template = SynergenTemplate(text_to_image_ratio=1.0)
    worded = [template.wrap(PAIR, counter) for counter in range(2000)]
    random = [document for document in worded if "<unconditional>" in document.text]
    assert 0.08 < len(random) / len(worded) < 0.12
    (branch,) = template.guidance_branches(template.draw_prompt("a red car"), 0)
    assert {document.spans[0].text for document in random} == {branch.spans[0].text}


def test_documents_come_back_from_folded_rows() -> None:
    model = tiny_synergen()
    pictures = [image(seed, f"i{seed}", form="codes", loss=seed % 2 == 0) for seed in range(3)]
    documents = [
        Document((pictures[0], TextSpan("a red car"), pictures[1]), id="a"),
        Document((TextSpan("the blue car is red", loss=True), pictures[2]), id="b"),
    ]
    batch = model.builder.build(documents, row_length=40)
    assert sorted(model.builder.read(batch), key=lambda d: d.id) == documents
    assert batch.counts == {"text": 4.0 + 4, "image": 2.0 * 32}  # words, end markers of images and documents; codes


def test_tiles_stand_inside_one_pair_of_markers() -> None:
    model = tiny_synergen()
    tiles = np.random.default_rng(0).integers(0, CODES, (3, *GRID))
    document = Document((ImageSpan("wide", form="codes", codes=(tiles,)), TextSpan("a red car", loss=True)), id="tiled")
    (tokens,) = [model.builder.encode(document)]
    assert tokens.cells[2 : 2 + 12].tolist() == [0, 1, 2, 3] * 3  # every tile has the same places
    batch = model.builder.build([document])
    assert model.builder.read(batch) == [document]
    flat = replace(document.images[0], codes=(tiles.reshape(1, 3, *GRID),))
    with pytest.raises(LayoutError, match="code grids"):
        model.builder.build([replace(document, spans=(flat,))])
    drawn = replace(document.images[0], loss=True)
    with pytest.raises(LayoutError, match=r"Image 'wide' carries loss and has 3 tiles, expected one.*tiling=small"):
        model.builder.build([replace(document, spans=(drawn,))])
    with pytest.raises(LayoutError, match=r"Image 'wide' has 3 tiles, expected one.*Decode each by itself"):
        model.pictures(document.images)


def test_a_tiled_picture_that_does_not_fit_its_row_says_how_many_tokens_it_takes() -> None:
    model = tiny_synergen()
    tiles = np.zeros((3, *GRID), dtype=np.int64)
    document = Document((ImageSpan("wide"), TextSpan("what colour ?"), TextSpan("red", loss=True)), id="tiled", kind="dialogue")
    mixture = Mixture(
        sources={"vqa": [document]},
        weights={"vqa": 1.0},
        template=model.template,
        builder=model.builder,
        pictures=Pictures(lambda name: (tiles,)),
        row_length=16,
        num_batches=1,
        documents_per_window=4,
        batches_per_window=1,
    )
    with pytest.raises(
        LayoutError, match=r"'tiled' has \d+ tokens, more than the row length 16.*12 of them.*tiling\.max_tiles.*model\.fold"
    ):
        mixture[0]


@pytest.mark.parametrize("condition", ["prefix", "add"])
def test_the_first_loss_of_codes_is_that_of_knowing_nothing(condition) -> None:
    model = tiny_synergen(condition=condition)
    batch = model.builder.build([Document((image(seed, loss=True, form="codes"),), id=str(seed)) for seed in range(16)])
    terms = model.loss(batch)
    assert terms.counts["image"] == 16 * 32 == batch.counts["image"]
    assert float(terms.sums["image"].detach()) / terms.counts["image"] == pytest.approx(np.log(CODES), abs=0.03)


def test_a_fold_that_does_not_divide_names_both() -> None:
    with pytest.raises(RecipeError, match=r"fold of 3 x 4.*grid of 4 x 8"):
        tiny_synergen(fold=(3, 4))


@pytest.mark.parametrize("fold", [(1, 1), (2, 4), (2, 8)])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_what_is_drawn_with_caches_is_best_where_all_is_read_at_once(fold, architecture) -> None:
    """Greedy codes, drawn patch by patch through both caches (visual tokens after the prefill among them)."""
    model = draw_weights(tiny_synergen(architecture, fold=fold))
    prompts = [model.template.draw_prompt("a red car"), model.template.edit_prompt(image(form="codes"), "make it blue")]
    for document in model.generate(prompts, GREEDY, [0, 1], max_tokens=1):
        batch = model.builder.build([document])
        place = batch.images[-1]
        with torch.inference_mode():
            model.eval()
            hidden = model.hidden(batch)[0, place.start - 1 : place.start + place.length - 1]
            offset = model.builder.vocabulary.code_segments[0].offset
            codes = batch.patches[0, place.start : place.start + place.length] - offset
            logits = model.image_head.rows.logits(model.image_head.states(hidden, codes))
        assert len(set(codes.flatten().tolist())) > 4  # not one code everywhere
        assert torch.equal(logits.argmax(-1), codes.flatten())


def test_a_picture_drawn_under_guidance_is_that_of_two_separate_runs() -> None:
    """The two streams of a batch with prompts of unequal length, against each stream by itself, uncached."""
    model, weight = draw_weights(tiny_synergen()), 3.0
    policy = SamplingPolicy(guidance=weight, temperature=0.0)
    prompts = [model.template.draw_prompt("a red car"), model.template.draw_prompt("the blue car is red")]
    drawn = model.generate(prompts, {"text": GREEDY["text"], "image": policy}, [0, 1], max_tokens=1)
    for prompt, document in zip(prompts, drawn, strict=True):
        codes = torch.from_numpy(model.builder.layout.drawn_frame.encode(document.images[-1]))
        codes = codes - model.builder.vocabulary.code_segments[0].offset
        streams = []
        for asked in (model.template.guidance_branches(prompt, 0)[0], prompt):
            whole = replace(asked, spans=(*asked.spans[:-1], replace(document.images[-1], form="codes")))
            batch = model.builder.build([whole])
            place = batch.images[-1]
            with torch.inference_mode():
                model.eval()
                hidden = model.hidden(batch)[0, place.start - 1 : place.start + place.length - 1]
                streams.append(model.image_head.rows.logits(model.image_head.states(hidden, codes)))
        unconditional, conditional = streams
        guided = unconditional + weight * (conditional - unconditional)
        assert torch.equal(guided.argmax(-1), codes.flatten())
        assert not torch.equal(conditional.argmax(-1), codes.flatten())  # guidance did something


@pytest.mark.parametrize("part", ["head", "image_head"])
def test_damaged_weights_are_named_and_nothing_is_drawn(part: str) -> None:
    model = tiny_synergen()
    with torch.no_grad():
        next(getattr(model, part).parameters()).fill_(torch.nan)
    prompts = [model.template.draw_prompt("a red car"), model.template.caption_prompt(image(form="codes"))]
    with pytest.raises(RecipeError, match="logits are not finite"):
        model.generate(prompts, {"text": SamplingPolicy(), "image": SamplingPolicy()}, [0, 1], max_tokens=4)


def test_no_code_of_a_patch_reaches_its_own_loss_through_the_language_model() -> None:
    """The loss of a patch has no gradient at the tokens of that patch or of later ones, and some at every earlier one."""
    model = draw_weights(tiny_synergen())
    batch = model.builder.build([Document((TextSpan("a red car"), image(loss=True, form="codes")))])
    place = batch.images[0]
    embeddings, side = model.read(batch.reading)
    embeddings = embeddings.detach().requires_grad_()
    hidden = model.backbone(embeddings, batch.layout, side=side)
    codes = batch.patches[0, place.start : place.start + place.length] - model.builder.vocabulary.code_segments[0].offset
    for patch in range(place.length):
        states = model.image_head.states(hidden[0, place.start - 1 + patch][None], codes[patch][None])
        lse, target = model.image_head.score(states, torch.zeros(8, dtype=torch.long), codes[patch])
        (gradient,) = torch.autograd.grad((lse - target).sum(), embeddings, retain_graph=True)
        reached = gradient[0].abs().sum(-1) > 0
        assert reached[: place.start + patch].all()
        assert not reached[place.start + patch :].any()


def test_scores_of_documents_are_their_losses() -> None:
    model = draw_weights(tiny_synergen(template={"text_to_image_ratio": 1.0}))
    documents = [
        model.template.wrap(replace(PAIR, spans=(TextSpan("a red car"), image(seed)), id=str(seed)), seed) for seed in range(3)
    ]
    scores = model.score(documents)
    for document, score in zip(documents, scores, strict=True):
        terms = model.loss(model.builder.build([document]))
        torch.testing.assert_close(score, sum(terms.sums.values()).detach(), rtol=1e-4, atol=1e-3)


def train(model, plan: FreezePlan, documents, steps: int = 5) -> dict[str, torch.Tensor]:
    """The state before; the model has learned for a few steps after."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = [{"params": [tensor for _, tensor in group["params"]]} for group in plan.parameter_groups(model)]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        terms = model.loss(model.builder.build(documents))
        sum(terms.sums.values()).backward()
        optimizer.step()
    return before


def pairs(model) -> list[Document]:
    return [model.template.wrap(replace(PAIR, id=str(counter)), counter) for counter in range(6)]


@pytest.mark.parametrize(("plan", "attends"), [(ALIGN_1, False), (ALIGN_2, True)], ids=["align 1", "align 2"])
def test_stages_train_what_they_say(plan, attends) -> None:
    model = tiny_synergen("qwen3")
    text = [Document((TextSpan("the blue car is red", loss=True),), id="text")]
    before = model.score(text), train(model, plan, pairs(model))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[1][name])}
    frozen = {name for name in before[1] if name not in moved and "places" not in name}
    assert all(".mlp.vision." in name or ".self_attn." in name for name in moved if name.startswith("backbone."))
    assert all(name.startswith("backbone.") for name in frozen)
    assert any(name.startswith("backbone.") and ".self_attn.q_proj" in name for name in moved) == attends
    assert {name for name in before[1] if ".mlp.vision." in name} <= moved
    assert not any("norm" in name for name in moved if name.startswith("backbone."))


def test_text_is_exactly_what_it_was_after_the_first_stage() -> None:
    model = tiny_synergen()
    document = Document((TextSpan("the blue car is red", loss=True),), id="text", ends=False)
    batch = model.builder.build([document])
    with torch.inference_mode():
        before = model.head.rows[0].logits(model.hidden(batch)[0]), model.score([document], is_plain=True)
    whole = model.score([document])
    train(model, ALIGN_1, pairs(model))
    with torch.inference_mode():
        after = model.head.rows[0].logits(model.hidden(batch)[0]), model.score([document], is_plain=True)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(model.score([document]), whole)  # among the markers, which have learned
    with pytest.raises(LayoutError, match="targets are codes or markers"):
        model.score(pairs(model), is_plain=True)


def test_weights_of_terms_multiply_their_gradients() -> None:
    model = draw_weights(tiny_synergen(template={"text_to_image_ratio": 1.0}))
    gradients = []
    for weight in (1.0, 2.0):
        model.zero_grad()
        (model.loss(model.builder.build(pairs(model))).sums["image"] * weight).backward()
        gradients.append(model.image_head.positions.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0] * 2)


def test_it_learns_eight_documents_and_writes_them_back() -> None:
    model = tiny_synergen(input_std=0.3, template={"text_to_image_ratio": 1.0, "caption_dropout": 0.0})
    captions = ["a red car", "a blue car", "the red car is blue", "the blue car is red", "red", "blue", "car red", "car blue"]
    raw = [
        Document((TextSpan(caption), image(seed, caption)), id=caption, kind="pair") for seed, caption in enumerate(captions)
    ]
    documents = [model.template.wrap(document, 0) for document in raw]
    train(model, FreezePlan(), documents, steps=160)
    drawn = model.generate([model.template.draw_prompt(caption) for caption in captions], GREEDY, range(8), max_tokens=3)
    for document, made in zip(raw, drawn, strict=True):
        assert np.array_equal(made.images[0].codes[0], document.images[0].codes[0])


def test_the_published_size() -> None:
    """Section 2 of the specs: 3.630 B parameters, 2.422 B of them for each token (no weight is made)."""

    class Full(Text):
        size = 92544

    class Emu3(Tokenizer):
        code_sizes, digit_sizes, grid_shapes, image_size = (32768,), ((32768,),), ((64, 64),), (512, 512)

    sizes = OmegaConf.to_container(OmegaConf.load("conf/backbone/internlm2_1_8b.yaml"))["backbone"]
    with torch.device("meta"):
        backbone = CausalLM.from_config(**{name: value for name, value in sizes.items() if name != "_target_"})
        model = build(backbone=backbone, vision_tokenizer=Emu3(), text_tokenizer=Full(), template=SynergenTemplate())
    experts = sum(p.numel() for name, p in model.named_parameters() if ".mlp.vision." in name)
    total = sum(p.numel() for p in model.parameters())
    assert total == pytest.approx(3.630e9, rel=1e-3)
    assert total - experts == pytest.approx(2.422e9, rel=1e-3)
    assert model.positions_per_image == 256
