"""A plain language model: scores equal written-out logits, it learns texts, and pictures are refused."""

import pytest
import torch

from plait.backbones.causal_lm import CausalLM
from plait.backbones.subwords import train_subwords
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.sampling.policies import SamplingPolicy
from plait.systems.language_model import PlainTemplate, build

TEXTS = ["a kettle boils water", "a kitten is a small cat", "rivers flow", "the harbour is narrow"]


def make(size: int = 300, rows: int = 320):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    backbone = CausalLM.from_config("qwen3", vocab_size=rows, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    return build(
        backbone=backbone, text_tokenizer=train_subwords(TEXTS, size=size, has_leading_space=True), template=PlainTemplate()
    )


@pytest.fixture(scope="module")
def model():
    return make()


def documents() -> list[Document]:
    return [
        Document((TextSpan(text[:5]), TextSpan(text[5:], loss=True)), id=text, ends=index % 2 == 0)
        for index, text in enumerate(TEXTS)
    ]


def test_scores_equal_written_out_logits(model) -> None:
    scores = model.score(documents())
    for document, score in zip(documents(), scores, strict=True):
        batch = model.builder.build([document])
        with torch.inference_mode():
            logits = model.head.logits(model.hidden(batch)[0], range(len(model.builder.vocabulary.segments)))
        where = batch.targets[0] >= 0
        expected = torch.nn.functional.cross_entropy(logits[where], batch.targets[0][where], reduction="sum")
        assert float(score) == pytest.approx(float(expected), rel=1e-4)
    with torch.no_grad():
        assert float(scores.sum()) == pytest.approx(float(model.loss(model.builder.build(documents())).sums["text"]), rel=1e-4)


def test_it_learns_texts_and_writes_them_back() -> None:
    model = make()
    batch = model.builder.build([Document((TextSpan(text, loss=True),), id=text) for text in TEXTS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = model.loss(batch).sums["text"] / batch.counts["text"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5
    prompts = [Document((TextSpan(text.rsplit(" ", 1)[0]),), ends=False) for text in TEXTS]
    policies = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy()}
    written = model.generate(prompts, policies, seeds=[0] * len(TEXTS), max_tokens=12)
    assert [model.template.answer(document.spans[-1].text) for document in written] == [
        text.rsplit(" ", 1)[1] for text in TEXTS
    ]


def test_pictures_and_silence_are_refused() -> None:
    template = PlainTemplate()
    with pytest.raises(RecipeError, match="has 1 pictures and 1 spans with loss, expected text with loss"):
        template.wrap(Document((TextSpan("a", loss=True), ImageSpan("x"))), 0)
    with pytest.raises(RecipeError, match="0 pictures and 0 spans with loss"):
        template.wrap(Document((TextSpan("a"),)), 0)
    with pytest.raises(RecipeError, match=r"has \d+ ids but the backbone's table has 64 rows"):
        make(rows=64)
