"""Liquid's sequences and its guided loop against numbers of the released code: collator, evaluation prompt, Gemma with image rows."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plait.adapters.liquid import to_unified
from plait.backbones.causal_lm import CausalLM
from plait.checkpoints import assign_weights
from plait.document import Document, ImageSpan, TextSpan
from plait.protocols import Policy
from plait.sampling.policies import SamplingPolicy
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from plait.systems.liquid import LiquidTemplate, build
from tests import goldens


class GoldenText:
    """The goldens' stub tokenizer: special strings, words and marks, an id each; `words` begin at id 10."""

    pieces = re.compile(r"<[a-z_]+>|\n|\w+|[^\w\s]")

    def __init__(self, golden, size: int) -> None:
        ids = {name: int(golden.get(f"{name}_id", golden.get(name, default))) for name, default in DEFAULTS.items()}
        self.size, self.bos_id, self.eos_id, self.pad_id = size, ids["bos"], ids["eos"], ids["pad"]
        self.markers = {marker: ids[name] for marker, name in MARKERS.items()}
        self.special_ids = frozenset(self.markers.values())
        self.words = {f"<{name}>": index for name, index in ids.items()}
        self.words |= {str(word): 10 + place for place, word in enumerate(golden.get("words", ()))}

    def encode(self, text: str) -> list[int]:
        return [self.words[piece] if piece in self.words else int(piece) for piece in self.pieces.findall(text)]

    def decode(self, ids) -> str:
        names = {index: word for word, index in self.words.items()}
        return " ".join(names.get(index, str(index)) for index in ids)


DEFAULTS = {"pad": 0, "bos": 2, "eos": 1, "boi": 7, "eoi": 8, "uncond": 9}
MARKERS = {
    "pad": "pad",
    "begin_document": "bos",
    "end_document": "eos",
    "begin_image": "boi",
    "end_image": "eoi",
    "unconditional": "uncond",
}


def layout(golden, num_codes: int, grid: tuple[int, int]) -> DocumentLayout:
    size = int(golden["tokenizer_len"])
    text = GoldenText(golden, size)
    vocabulary = Vocabulary(size, (num_codes,), text.markers)
    return DocumentLayout(vocabulary, text, [code_frame(vocabulary.code_segments, (grid,))])


@pytest.mark.parametrize("path", goldens.family("liquid_collator*"))
def test_golden(path: Path) -> None:
    """Ids, labels and padding of one mixed batch. Each row's random choices are given, so each row has its own template."""
    golden = goldens.read(path)
    codes = golden["codes"]
    builder = SequenceBuilder(layout(golden, int(codes.max()) + 1, (1, codes.shape[1])))
    longest = int(golden["model_max_length"])
    rows = []
    for row, kind in enumerate(golden["kinds"].tolist()):
        tokens = builder.encode(documents(golden, row, kind))
        # The collator cuts the batch to its length; plait refuses to, so the cut is made here.
        rows.append((tokens.ids[:longest], np.where(tokens.loss, tokens.ids, -100)[:longest]))
    width = golden["input_ids"].shape[1]
    assert width == max(len(ids) for ids, _ in rows)
    for row, (ids, labels) in enumerate(rows):
        np.testing.assert_array_equal(np.pad(ids, (0, width - len(ids)), constant_values=0), golden["input_ids"][row])
        # the first label is never a target: models predict from the first id on
        expected = golden["labels"][row][1:]
        np.testing.assert_array_equal(np.pad(labels, (0, width - len(labels)), constant_values=-100)[1:], expected)
        np.testing.assert_array_equal(np.arange(width) < len(ids), golden["attention_mask"][row])


def documents(golden, row: int, kind: str) -> Document:
    """The document of one row in the wording that the collator chose for it."""
    text = str(golden["texts"][row])
    if kind == "e":  # plain text carries loss everywhere and has no end marker
        return Document((TextSpan(text, loss=True),), ends=False)
    place = int(golden["prompt_index"][row])
    template = LiquidTemplate(
        text_to_image_ratio=0.0 if kind == "d" else 1.0,
        caption_dropout=1.0 if kind == "b" else 0.0,
        instructions=(str(golden["prompts"][max(place, 0)]).strip(),),
    )
    pair = Document((TextSpan(text), ImageSpan("picture", codes=(golden["codes"][row][None],))), kind="pair")
    return template.wrap(pair, 0)


@pytest.mark.parametrize("path", goldens.family("liquid_vqa_wrap*"))
def test_golden_double_wrap(path: Path) -> None:
    golden = goldens.read(path)
    codes = golden["codes"][None]
    prompt = LiquidTemplate(double_wrap=True).question_prompt(ImageSpan("picture", codes=(codes,)), str(golden["question"]))
    tokens = layout(golden, int(codes.max()) + 1, codes.shape).encode(prompt)
    np.testing.assert_array_equal(tokens.ids, golden["input_ids"])
    once = LiquidTemplate().question_prompt(ImageSpan("picture", codes=(codes,)), str(golden["question"]))
    assert len(layout(golden, int(codes.max()) + 1, codes.shape).encode(once)) == len(tokens) - 2


class Codes:
    """A vision tokenizer that only says how many codes there are: the loop's pictures are never decoded."""

    def __init__(self, size: int, count: int) -> None:
        self.code_sizes, self.digit_sizes, self.grid_shapes, self.image_size = (size,), ((size,),), ((1, count),), (1, 1)

    def encode(self, images):
        raise NotImplementedError("no pixels in this test")

    def decode(self, codes, noise=None):
        raise NotImplementedError("no pixels in this test")

    def loss(self, batch):
        raise NotImplementedError("no pixels in this test")


class Recorded:
    """A policy that keeps the guided logits it drew from."""

    def __init__(self, policy: SamplingPolicy) -> None:
        self.policy, self.guided = policy, []
        self.guidance_weights, self.reads_history = policy.guidance_weights, policy.reads_history

    def draw(self, logits, branches, samples, noise, history=None):
        self.guided.append(self.policy.guide(logits.float(), branches))
        return self.policy.draw(logits, branches, samples, noise, history)


def gemma(golden):
    """The golden's Gemma as a Liquid: text rows in the backbone, image rows in the head."""
    settings, offset, released = json.loads(str(golden["cfg"])), int(golden["offset"]), goldens.weights(golden)
    settings["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": settings.pop("rope_theta"),
    }  # its name in transformers 5
    num_codes = settings["vocab_size"] - offset
    model = build(
        backbone=CausalLM.from_config("gemma", **(settings | {"vocab_size": offset})),
        vision_tokenizer=Codes(num_codes, int(golden["steps"])),
        text_tokenizer=GoldenText({}, offset),
        template=LiquidTemplate(),
    )
    assign_weights(model, to_unified(released, [offset, num_codes], model.backbone.is_tied), "the golden")
    return model.eval()


def prompt(ids: list[int], specials: dict[str, int]) -> Document:
    """A left-padded row of the golden as a document: pads and the two markers around the text are the layout's."""
    inner = [index for index in ids if index != specials["pad"]]
    assert inner[0] == specials["begin_document"]
    assert inner[-1] == specials["begin_image"]
    words = " ".join("<unconditional>" if index == specials["unconditional"] else str(index) for index in inner[1:-1])
    return Document((TextSpan(words), ImageSpan("drawn", form="codes")), ends=False)


@pytest.mark.parametrize("path", goldens.family("liquid_gemma_cfg*"))
def test_golden_gemma(path: Path) -> None:
    """Logits over the whole vocabulary, the guided loop (greedy, and drawn by torch.multinomial under a global seed), tied gradients."""
    golden = goldens.read(path)
    model, offset, steps = gemma(golden), int(golden["offset"]), int(golden["steps"])
    specials = model.builder.vocabulary.specials
    rows = [prompt(ids, specials) for ids in golden["input_ids"].tolist()]
    for row, document in enumerate(rows):
        seen = golden["attention_mask"][row].astype(bool)
        np.testing.assert_allclose(all_logits(model, document), golden["prompt_logits"][row][seen], atol=1e-4)
    single = prompt(golden["single_ids"][0].tolist(), specials)
    np.testing.assert_allclose(all_logits(model, single), golden["single_logits"][0], atol=1e-4)

    conditional = rows[: len(rows) // 2]
    for case in sorted(int(name[4:]) for name in golden if re.fullmatch(r"case\d+", name)):
        temperature, top_k, top_p, seed = golden[f"case{case}"].tolist()
        policy = Recorded(SamplingPolicy(float(golden["guidance"]), temperature, int(top_k), top_p))
        assert isinstance(policy, Policy)
        torch.manual_seed(int(seed))
        policies = {"text": SamplingPolicy(temperature=0.0), "image": policy}
        drawn = model.generate(conditional, policies, noise=multinomial(offset), max_tokens=1)
        codes = np.stack([document.images[0].codes[0].reshape(-1) for document in drawn])
        np.testing.assert_array_equal(codes + offset, golden[f"tokens{case}"])
        guided = torch.stack(policy.guided, 1).numpy()
        np.testing.assert_allclose(
            guided, golden[f"cfg_logits{case}"][:, :steps, offset:], atol=1e-4 * float(golden["guidance"])
        )

    check_tied_gradients(golden, model)


def multinomial(offset: int):
    """Draws from the whole vocabulary under the global seed, as the published loop does."""

    def noise(probabilities, samples):
        wide = torch.nn.functional.pad(probabilities, (offset, 0))
        return torch.multinomial(wide, 1).squeeze(-1) - offset

    return SimpleNamespace(choose=noise, normal=noise)


@torch.no_grad()
def all_logits(model, document: Document) -> np.ndarray:
    """(s v) logits of one document over all segments in the order of the vocabulary, which is that of the released rows."""
    hidden = model.hidden(model.builder.build([document]))[0]
    return model.head.logits(hidden, range(len(model.builder.vocabulary.segments))).numpy()


def check_tied_gradients(golden, model) -> None:
    """Rows of the tied matrix get gradients from both of their roles."""
    specials = model.builder.vocabulary.specials
    document = prompt(golden["single_ids"][0].tolist(), specials)
    text = TextSpan(document.text, loss=True)
    batch = model.builder.build([Document((text, ImageSpan("drawn", begin_loss=True, form="codes")), ends=False)])
    terms = model.loss(batch)
    loss = sum(terms.sums.values()) / sum(terms.counts.values())
    np.testing.assert_allclose(loss.item(), golden["tied_loss"], atol=1e-4)
    loss.backward()
    table, codes = model.backbone.text_table.grad, model.head.own_rows[0].weight.grad
    expected_text, expected_codes = golden["tied_grad_embed_rows"], golden["tied_grad_image_rows"]
    np.testing.assert_allclose(table[: len(expected_text)].numpy(), expected_text, atol=1e-4)
    np.testing.assert_allclose(codes[: len(expected_codes)].numpy(), expected_codes, atol=1e-4)
