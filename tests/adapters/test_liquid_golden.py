"""A small Gemma of the published layout against numbers of the published loop: its weights in, the logits of its prompts out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.adapters.liquid import to_released, to_unified
from plait.backbones.causal_lm import CausalLM
from plait.checkpoints import assign_weights
from plait.records import Layout
from plait.systems.liquid import LiquidTemplate, build
from tests import goldens


class Text:
    """The ids below `offset`; no text is read here."""

    pad_id, eos_id, bos_id = 0, 1, 2
    special_ids = frozenset({0, 1, 2, 7, 8, 9})

    def __init__(self, size: int) -> None:
        self.size = size
        self.markers = {"pad": 0, "end_document": 1, "begin_document": 2, "begin_image": 7, "end_image": 8, "unconditional": 9}

    def encode(self, text):
        raise NotImplementedError("ids alone")

    def decode(self, ids):
        raise NotImplementedError("ids alone")


class Tokenizer:
    """As many codes as there are rows after the text."""

    grid_shapes, image_size = ((1, 1),), (1, 1)

    def __init__(self, size: int) -> None:
        self.code_sizes, self.digit_sizes = (size,), ((size,),)

    def encode(self, images):
        raise NotImplementedError("no pictures here")

    def loss(self, batch):
        raise NotImplementedError("no pictures here")


@pytest.mark.parametrize("path", goldens.family("liquid_gemma_cfg*"))
@torch.no_grad()
def test_golden(path: Path, tmp_path: Path) -> None:
    golden = goldens.read(path)
    settings, offset = json.loads(str(golden["cfg"])), int(golden["offset"])
    codes = settings["vocab_size"] - offset
    # written as the release writes it, with names of settings that transformers has since changed (rope_theta)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma", **settings}))
    model = build(
        backbone=CausalLM.from_folder(tmp_path, vocab_size=offset),
        vision_tokenizer=Tokenizer(codes),
        text_tokenizer=Text(offset),
        template=LiquidTemplate(),
    ).eval()
    released = goldens.weights(golden)
    assign_weights(model, to_unified(released, [offset, codes], model.backbone.is_tied), path.name)
    again = to_released(model.state_dict())
    assert again.keys() == released.keys() == set(map(str, golden["keys"])) - {"lm_head.weight"}
    assert all(torch.equal(again[name], value) for name, value in released.items())

    rows = [ids[mask.astype(bool)] for ids, mask in zip(golden["input_ids"], golden["attention_mask"], strict=True)]
    expected = [
        logits[mask.astype(bool)] for logits, mask in zip(golden["prompt_logits"], golden["attention_mask"], strict=True)
    ]
    for ids, logits in [*zip(rows, expected, strict=True), (golden["single_ids"][0], golden["single_logits"][0])]:
        np.testing.assert_allclose(logits_of(model, ids), logits, atol=1e-4)

    # the greedy case of the loop with guidance, its codes read again: the first half of the rows are prompts, the second their branches
    tokens, guidance = golden["tokens0"], float(golden["guidance"])
    assert (tokens >= offset).all()
    for number, drawn in enumerate(tokens):
        with_caption, without = (
            logits_of(model, np.concatenate([rows[row], drawn[:-1]]))[-len(drawn) :] for row in (number, number + len(tokens))
        )
        guided = without + guidance * (with_caption - without)
        np.testing.assert_allclose(guided, golden["cfg_logits0"][number], atol=1e-4 * guidance)
        assert (guided[:, offset:].argmax(-1) + offset).tolist() == drawn.tolist()


def logits_of(model, ids: np.ndarray) -> np.ndarray:
    """(s v) logits of one document of global ids."""
    tokens, places = ids.astype(np.int64)[None], torch.arange(len(ids))[None]
    layout = Layout(places, torch.zeros_like(places), (places,))
    reading = model.builder.place(tokens, np.full_like(tokens, -1), tokens[..., None])
    hidden = model.backbone(model.read(reading)[0], layout)[0]
    return model.head.logits(hidden, [0, 1]).numpy()
