"""SynerGen-VL learns to draw shapes that a word names, and guidance makes it keep to the word (specs, F15).

Two of five captions name a shape at random, so a model that has learned the documents well draws the named shape in about seven of
ten tries. Guidance sharpens what a caption changes: it must do better.
"""

import numpy as np
import pytest
import torch

from plait.document import Document, ImageSpan, TextSpan
from plait.freezing import FreezePlan
from plait.sampling.policies import SamplingPolicy
from plait.systems.synergen_vl import SynergenTemplate, build
from tests.systems.test_synergen_vl import Text, Tokenizer, tiny_backbone

SHAPES = {
    "red": ["111", "101", "111"],
    "blue": ["010", "111", "010"],
    "car": ["101", "010", "101"],
    "house": ["111", "010", "010"],
}
"""word -> its shape; the words are those that the tiny tokenizer has"""
WORDS = list(SHAPES)
GROUNDS = 4
"""ids of backgrounds; those of the shapes follow, one for each"""
STEPS, LEARNING_RATE, BATCH, DRAWN = 400, 4e-3, 32, 400


class Square(Tokenizer):
    grid_shapes, image_size = ((8, 8),), (8, 8)


def mask(word: str) -> np.ndarray:
    return np.array([[mark == "1" for mark in line] for line in SHAPES[word]])


def shape(word: str, rng: np.random.Generator) -> np.ndarray:
    """Ids of a grid of 8 x 8: the shape in one of four places, on one of four grounds."""
    grid = np.full((8, 8), rng.integers(GROUNDS))
    row, column = rng.integers(0, 2, 2) * 4
    grid[row : row + 3, column : column + 3][mask(word)] = GROUNDS + WORDS.index(word)
    return grid


def seen(grid: np.ndarray) -> str | None:
    """The word whose shape stands on a grid, whole and in its own id, wherever; None if there is none."""
    rows, columns = np.nonzero(grid >= GROUNDS)
    if not len(rows):
        return None
    box = grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    found = [word for number, word in enumerate(WORDS) if np.array_equal(box == GROUNDS + number, mask(word))]
    return found[0] if found and len(np.unique(box[box >= GROUNDS])) == 1 else None


def small_model():
    torch.manual_seed(0)
    return build(
        backbone=tiny_backbone(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2),
        vision_tokenizer=Square(),
        text_tokenizer=Text(),
        template=SynergenTemplate(text_to_image_ratio=1.0, caption_dropout=0.1),
        fold=(2, 4),
        head_layers=1,
        input_std=0.3,
    )


def test_the_judge_sees_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    for word in WORDS:
        grid = shape(word, rng)
        assert seen(grid) == word
        grid[grid >= GROUNDS] = GROUNDS + (WORDS.index(word) + 1) % 4
        assert seen(grid) is None, "a shape in the id of another word is none"
    assert seen(np.zeros((8, 8), int)) is None


@pytest.mark.slow
def test_it_draws_shapes_by_name_and_guidance_makes_it_keep_to_the_name() -> None:
    model, rng = small_model(), np.random.default_rng(0)
    groups = [{"params": [tensor for _, tensor in group["params"]]} for group in FreezePlan().parameter_groups(model)]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        documents = []
        for number in range(step * BATCH, (step + 1) * BATCH):
            word, other = rng.choice(WORDS, 2)
            drawn = shape(word if rng.random() < 0.6 else other, rng)
            pair = Document((TextSpan(str(word)), ImageSpan("i", codes=(drawn,))), id=str(number), kind="pair")
            documents.append(model.template.wrap(pair, number))
        terms = model.loss(model.builder.build(documents))
        means = {name: total / terms.counts[name] for name, total in terms.sums.items()}
        optimizer.zero_grad()
        sum(means.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(means["image"].detach()))
    assert np.mean(losses[-20:]) < 0.5, "nats per code; all codes alike would be ln 64 = 4.16"

    asked = [WORDS[number % 4] for number in range(DRAWN)]
    prompts = [model.template.draw_prompt(word) for word in asked]
    right = {}
    for guidance in (1.0, 3.0):
        policies = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(guidance=guidance)}
        made = model.generate(prompts, policies, range(DRAWN), max_tokens=3)
        right[guidance] = np.mean(
            [seen(document.images[0].codes[0]) == word for document, word in zip(made, asked, strict=True)]
        )
    assert right[1.0] > 0.3, f"one word of four is chance: {right}"
    assert right[3.0] > right[1.0] + 0.1, f"share of named shapes by guidance: {right}"
