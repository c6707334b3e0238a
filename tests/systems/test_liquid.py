"""Liquid: its formats and loss masks, its head on a real backbone, and that it learns and draws."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from plait.backbones.causal_lm import CausalLM
from plait.data.filling import Pictures
from plait.data.mixture import Mixture
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.sampling.policies import SamplingPolicy
from plait.sequence.audit import audit
from plait.systems.liquid import CAPTION, DRAW, HIDDEN, LiquidTemplate, build
from tests.systems.words import words_of

CODES = (np.arange(4).reshape(2, 2) % 3,)
GREEDY = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(temperature=0.0)}


PIECES = re.compile(r"<\w+>|[^\s<]+")


Text = words_of(LiquidTemplate(word_dropout=0.5).texts(), PIECES)


class Tokenizer:
    """A stand-in: 12 codes of digits (3, 4) on a 2 x 2 grid."""

    code_sizes, digit_sizes, grid_shapes, image_size = (12,), ((3, 4),), ((2, 2),), (4, 4)

    def encode(self, images):
        return ((images[:, 0] * 6 + 6).round().long(),)

    def loss(self, batch):
        raise NotImplementedError("the tokenizer of these tests is not trained")

    def decode(self, codes, noise=None):
        return codes[0][:, None].float().expand(-1, 3, -1, -1) / 6 - 1


def tiny_liquid(
    architecture: str = "llama",
    code_rows: str = "dense",
    image_positions: bool = False,
    has_max_z: bool = False,
    **template,
):
    torch.manual_seed(0)
    backbone = CausalLM.from_config(
        architecture,
        vocab_size=Text.size + 5,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
    )
    return build(
        backbone=backbone,
        vision_tokenizer=Tokenizer(),
        text_tokenizer=Text(),
        template=LiquidTemplate(**template),
        code_rows=code_rows,
        image_positions=image_positions,
        has_max_z=has_max_z,
    )


def image(name: str = "i", **flags) -> ImageSpan:
    return ImageSpan(name, codes=CODES, **flags)


PAIR = Document((TextSpan("a red car"), image()), id="pair", kind="pair")


def supervised(model, document: Document) -> tuple[list[str], list[str]]:
    """(all tokens, those that carry loss) of one worded document as people read them."""
    (tokens,) = audit(model.builder.build([document]), model.builder)
    return [token.text for token in tokens], [token.text for token in tokens if token.term]


def test_format_a_text_to_image() -> None:
    model = tiny_liquid(text_to_image_ratio=1.0, caption_dropout=0.0, instructions=(DRAW,))
    tokens, loss = supervised(model, model.template.wrap(PAIR, 0))
    codes = ["0", "1", "2", "0"]
    opening = ["<begin_document>", "a", "red", "car", *DRAW.split(), "<begin_image>"]
    assert tokens == [*opening, *codes, "<end_image>", "<end_document>"]
    assert loss == [*codes, "<end_image>", "<end_document>"]  # 1,026 targets for 1,024 codes; never the begin marker


def test_format_b_drops_the_whole_text_at_the_published_rate() -> None:
    model = tiny_liquid(text_to_image_ratio=1.0)
    tokens, _ = supervised(model, replace(PAIR, spans=(TextSpan("<unconditional>"), image(form="codes", loss=True))))
    assert tokens[:3] == ["<begin_document>", "<unconditional>", "<begin_image>"]
    dropped = [model.template.wrap(PAIR, counter).text == "<unconditional>" for counter in range(4000)]
    assert 0.08 < np.mean(dropped) < 0.12


def test_format_d_captions() -> None:
    model = tiny_liquid(text_to_image_ratio=0.0)
    tokens, loss = supervised(model, model.template.wrap(PAIR, 0))
    assert tokens[1] == "<begin_image>"
    assert tokens[7:] == [*CAPTION.split(), "a", "red", "car", "<end_document>"]
    assert loss == ["a", "red", "car", "<end_document>"]


def test_hidden_words_are_not_read_and_no_targets() -> None:
    model = tiny_liquid(text_to_image_ratio=0.0, word_dropout=0.5)
    seen = set()
    for counter in range(200):
        worded = model.template.wrap(PAIR, counter)
        tokens, loss = supervised(model, worded)
        read = tokens[7 + len(CAPTION.split()) : -1]
        shown = [word for word, original in zip(read, ["a", "red", "car"], strict=True) if word == original]
        assert all(word in (original, HIDDEN) for word, original in zip(read, ["a", "red", "car"], strict=True))
        # the end is learned where the last word is
        assert loss == (shown if read[-1] == HIDDEN else [*shown, "<end_document>"])
        assert "".join(span.text for span in worded.spans[2:]) == " ".join(read)  # a released tokenizer reads the pieces as one
        seen.add(tuple(read))
    assert len(seen) == 8  # every subset of three words
    drawn = LiquidTemplate(text_to_image_ratio=1.0, caption_dropout=0.0, word_dropout=0.3, instructions=(DRAW,))
    texts = [drawn.wrap(PAIR, counter).text for counter in range(2000)]
    assert all(text.endswith(DRAW) for text in texts)
    assert 0.27 < np.mean([text.split().count(HIDDEN) / 3 for text in texts]) < 0.33


def test_hiding_nothing_is_the_published_wording() -> None:
    plain = LiquidTemplate(text_to_image_ratio=0.5)
    assert HIDDEN not in " ".join(plain.texts())  # the words, and so the ids, of trained models stay as they were
    assert HIDDEN in " ".join(LiquidTemplate(word_dropout=0.1).texts())
    with pytest.raises(RecipeError, match=r"word_dropout is 1\.5, expected a share"):
        LiquidTemplate(word_dropout=1.5)


def test_ratio_of_directions() -> None:
    template = LiquidTemplate(text_to_image_ratio=0.8)
    drawn = [template.wrap(PAIR, counter).spans[-1].__class__ is ImageSpan for counter in range(4000)]
    assert 0.78 < np.mean(drawn) < 0.82
    assert [template.wrap(PAIR, 7), template.wrap(PAIR, 8)] == [template.wrap(PAIR, 7), template.wrap(PAIR, 8)]


def test_the_direction_of_a_pair_does_not_depend_on_its_source() -> None:
    # both choices are drawn from (seed, counter): once one number decided both, and rare sources were never captioned
    model = tiny_liquid(text_to_image_ratio=0.3)
    model.template.seed = 3
    data = Mixture(
        sources={"rare": [replace(PAIR, id="rare")], "frequent": [replace(PAIR, id="frequent")]},
        weights={"rare": 0.2, "frequent": 0.8},
        template=model.template,
        builder=model.builder,
        pictures=Pictures(lambda name: CODES),
        row_length=64,
        num_batches=1,
        seed=3,
    )
    documents = [data.document(counter) for counter in range(3000)]
    for name, share in (("rare", 0.2), ("frequent", 0.8)):
        drawn = [isinstance(document.spans[-1], ImageSpan) for document in documents if document.id == name]
        assert len(drawn) / 3000 == pytest.approx(share, abs=0.03)
        assert np.mean(drawn) == pytest.approx(0.3, abs=0.06)


def test_format_e_text_supervises_all_and_does_not_end() -> None:
    model = tiny_liquid()
    text = Document((TextSpan("the red car is left of the house", loss=True),), ends=False, kind="text")
    tokens, loss = supervised(model, model.template.wrap(text, 0))
    assert loss == tokens[1:]
    assert tokens[-1] == "house"


def test_format_f_chat_supervises_answers_and_their_end() -> None:
    model = tiny_liquid()
    questions = Document(
        (image(), TextSpan("what colour ?"), TextSpan("red", True), TextSpan("what is it ?"), TextSpan("car", True)),
        kind="dialogue",
    )
    tokens, loss = supervised(model, model.template.wrap(questions, 0))
    assert loss == ["red", "<end_of_turn>", "car", "<end_of_turn>", "<end_document>"]
    assert tokens[1:4] == ["<start_of_turn>", "user", "<begin_image>"]


def test_edits_learn_to_begin_a_picture() -> None:
    model = tiny_liquid()
    edit = Document((image("before"), TextSpan("make the car blue"), image("after", loss=True)), kind="dialogue")
    _, loss = supervised(model, model.template.wrap(edit, 0))
    assert loss[0] == "<begin_image>"
    assert loss[-3:] == ["<end_image>", "<end_of_turn>", "<end_document>"]


def test_a_document_without_loss_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"'document' holds image, image, expected .* some with loss"):
        LiquidTemplate().wrap(Document((image(), image("j")), kind="document"), 0)


@pytest.mark.parametrize("architecture", ["llama", "gemma", "gemma2"])
def test_loss_equals_cross_entropy_of_written_out_logits(architecture) -> None:
    model = tiny_liquid(architecture)
    documents = [model.template.wrap(replace(PAIR, id=str(i)), i) for i in range(12)]
    batch = model.builder.build(documents, row_length=64)
    terms = model.loss(batch)
    hidden = model.hidden(batch)
    logits = model.head.logits(hidden.flatten(0, 1), range(len(model.builder.vocabulary.segments)))
    where = batch.targets.flatten() >= 0
    expected = torch.nn.functional.cross_entropy(logits[where], batch.targets.flatten()[where], reduction="sum")
    assert torch.allclose(sum(terms.sums.values()), expected, rtol=1e-5)
    assert terms.counts == batch.counts


@pytest.mark.parametrize("code_rows", ["dense", "factorised"])
def test_it_learns_eight_documents_and_writes_them_back(code_rows) -> None:
    model = tiny_liquid(code_rows=code_rows, caption_dropout=0.0, instructions=(DRAW,))
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(8):
        codes = (rng.integers(12, size=(2, 2)),)
        caption = f"a {['red', 'blue'][number % 2]} {['car', 'house'][number // 2 % 2]} {['left', 'above'][number // 4]}"
        pairs.append(Document((TextSpan(caption), ImageSpan(f"i{number}", codes=codes)), id=str(number), kind="pair"))
    draw = [LiquidTemplate(text_to_image_ratio=1.0, caption_dropout=0.0, instructions=(DRAW,)).wrap(p, 0) for p in pairs]
    tell = [LiquidTemplate(text_to_image_ratio=0.0).wrap(p, 0) for p in pairs]
    batch = model.builder.build(draw + tell, row_length=128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(240):  # after 120 one word was wrong where sums are rounded otherwise
        terms = model.loss(batch)
        optimizer.zero_grad()
        sum(terms.sums.values()).div(sum(terms.counts.values())).backward()
        optimizer.step()
    prompts = [model.template.draw_prompt(p.spans[0].text) for p in pairs]
    drawn = model.generate(prompts, GREEDY, list(range(8)))
    assert all(np.array_equal(d.images[0].codes[0], p.images[0].codes[0]) for d, p in zip(drawn, pairs, strict=True))
    told = model.generate([model.template.caption_prompt(p.images[0]) for p in pairs], GREEDY, list(range(8)))
    assert [model.template.answer(d.spans[-1].text) for d in told] == [p.spans[0].text for p in pairs]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampled_batch_of_eight_equals_eight_singles(guidance) -> None:
    model = tiny_liquid(image_positions=guidance != 1.0)
    policies = {"text": SamplingPolicy(), "image": SamplingPolicy(guidance=guidance, top_k=8, top_p=0.9)}
    prompts = [model.template.draw_prompt("a red car")] * 3 + [model.template.caption_prompt(image())] * 3
    prompts += [model.template.story_prompt((TextSpan("the car is red"),)), model.template.edit_prompt(image(), "make it blue")]
    budget = {"max_images": 2, "max_tokens": 30}
    together = model.generate(prompts, policies, list(range(8)), **budget)
    for seed, prompt in enumerate(prompts):
        assert model.generate([prompt], policies, [seed], **budget) == [together[seed]]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_compiled_generation_draws_the_same(architecture) -> None:
    """Calls of one token for every row go through tensors of fixed shapes (counted here, where a compiler would stand)."""
    model = tiny_liquid(architecture, image_positions=True)
    policies = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(guidance=3.0, temperature=0.0)}
    prompts = [model.template.draw_prompt("a red car"), model.template.draw_prompt("the blue car is red")]
    expected = model.generate(prompts, policies, [0, 1], max_tokens=9)
    calls = []

    def count(function, **_):
        return lambda *args: calls.append(len(args[0])) or function(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", count)
        model.compile_generation()
    assert model.generate(prompts, policies, [0, 1], max_tokens=9) == expected
    # three more codes after the first, two rows of each picture; and one call of the head for each of the four
    assert calls.count(4) == 3 + 4


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_head_that_is_replaced_is_the_one_that_draws(is_compiled, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model, other = tiny_liquid(), tiny_liquid()
    for parameter in other.head.parameters():
        torch.nn.init.normal_(parameter)
    prompts = [model.template.draw_prompt("a red car")]
    before = model.generate(prompts, GREEDY, [0])
    if is_compiled:
        model.compile_generation()
        assert model.generate(prompts, GREEDY, [0]) == before
    model.head = other.head
    assert model.generate(prompts, GREEDY, [0]) == other.generate(prompts, GREEDY, [0]) != before


def test_drawing_says_the_same_places_as_training() -> None:
    """Every code that was drawn greedily, with a cache and one by one, is the best one where the whole document is read at once."""
    model = tiny_liquid(image_positions=True)
    torch.nn.init.normal_(model.image_positions.weight)  # large: wrong places would show
    prompts = [model.template.draw_prompt("a red car"), model.template.edit_prompt(image(), "make it blue")]
    for document in model.generate(prompts, GREEDY, [0, 1]):
        batch = model.builder.build([document])
        with torch.inference_mode():
            hidden = model.hidden(batch)
            place, vocabulary = batch.images[-1], model.builder.vocabulary
            segment = vocabulary.segments.index(vocabulary.code_segments[0])
            logits = model.head.logits(hidden[0, place.start - 1 : place.start + place.length - 1], [segment])
        drawn = document.images[-1].codes[0].reshape(-1)
        assert logits.argmax(-1).tolist() == drawn.tolist()


def test_places_are_said_inside_pictures_only() -> None:
    model = tiny_liquid(image_positions=True)
    assert set(model.parts) == {"backbone", "head", "image_positions"}
    assert set(tiny_liquid().parts) == {"backbone", "head"}
    batch = model.builder.build([model.template.caption_prompt(image())])
    place = batch.images[0]
    assert batch.cells[0, place.start : place.start + place.length].tolist() == [0, 1, 2, 3]
    assert (batch.cells >= 0).sum() == place.length
    added = model.image_positions(batch.cells)
    assert torch.equal(added[batch.cells < 0], torch.zeros_like(added[batch.cells < 0]))
    assert torch.equal(added[0, place.start : place.start + place.length], model.image_positions.weight)


def test_parts_that_do_not_fit_are_refused() -> None:
    backbone = CausalLM.from_config(
        "llama", vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    with pytest.raises(RecipeError, match="but the backbone's table has 4 rows"):
        build(backbone=backbone, vision_tokenizer=Tokenizer(), text_tokenizer=Text(), template=LiquidTemplate())
    with pytest.raises(RecipeError, match="final soft cap"):
        tiny_liquid("gemma2", "factorised")
