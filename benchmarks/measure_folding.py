"""What folding gives: pictures of 256 codes with guidance at folds of 8 and 16 against none, and a step of training against Liquid's.

python benchmarks/measure_folding.py
"""

from collections.abc import Callable

import numpy as np
import torch
from measure_generation import GRID, GUIDANCE, PROMPT, SIZES, STEPS, TEXT, Codebook, Numbers
from side_by_side import Arm, Measured, Report, format_median, read_options

from plait.backbones.causal_lm import CausalLM
from plait.document import Document, ImageSpan, TextSpan
from plait.heads.unfolding import UnfoldingHead
from plait.records import Generation, Turn
from plait.sampling.policies import PerSampleNoise, SamplingPolicy
from plait.sequence.batch import SequenceBatch
from plait.systems import liquid, synergen_vl
from plait.systems.unified import UnifiedModel

LAYERS = 2
"""of the unfolding transformer; the backbone has six"""
FOLDS = {1: (1, 1), 8: (2, 4), 16: (2, 8)}
POLICIES = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(GUIDANCE, temperature=0.0)}


class Words(Numbers):
    """The wording of the systems is read as ids of its characters: prompts are equally long in all arms but for that."""

    def encode(self, text: str) -> list[int]:
        return [int(word) if word.isdigit() else 20 + ord(word[0]) for word in text.split()]


class NaiveHead(UnfoldingHead):
    """Draws without a cache: the patch so far is read anew for every code."""

    def step(self, generation, turn):
        hidden, number = generation.last[turn.rows.flatten()], len(turn.rows)
        drawn = torch.zeros(turn.rows.shape[1], 0, dtype=torch.int64)
        for place in range(self.codes_per_position):
            padded = torch.nn.functional.pad(drawn, (0, 1)).repeat(number, 1)
            last = self._so_far(hidden, padded)[:, place]
            drawn = torch.cat([drawn, turn.choose(self.rows.logits(last).chunk(number), drawn)[:, None]], 1)
        return drawn

    def _so_far(self, hidden, codes):
        length, self.codes_per_position = self.codes_per_position, codes.shape[1]
        places, whole = self.positions, self.positions.data
        places.data = whole[: codes.shape[1]]
        try:
            return self.states(hidden, codes).unflatten(0, codes.shape)
        finally:
            places.data, self.codes_per_position = whole, length


def new_model(fold: int | None) -> UnifiedModel:
    """SynerGen-VL at a fold, or Liquid: the same backbone, tokenizer and words."""
    torch.manual_seed(0)
    parts = {
        "backbone": CausalLM.from_config("llama", vocab_size=TEXT, **SIZES),
        "vision_tokenizer": Codebook(),
        "text_tokenizer": Words(),
    }
    if fold is None:
        return liquid.build(template=liquid.LiquidTemplate(text_to_image_ratio=1.0, caption_dropout=0.0), **parts).eval()
    template = synergen_vl.SynergenTemplate(text_to_image_ratio=1.0, caption_dropout=0.0)
    return synergen_vl.build(template=template, fold=FOLDS[fold], head_layers=LAYERS, **parts).eval()


def captions(number: int) -> list[str]:
    return [" ".join(map(str, row)) for row in np.random.default_rng(0).integers(300, TEXT, (number, PROMPT))]


def draw(model: UnifiedModel) -> Callable[[int], float]:
    """One picture."""
    prompt = [model.template.draw_prompt(captions(1)[0])]

    def run(_: int) -> float:
        model.generate(prompt, POLICIES, [0], max_tokens=1)
        return STEPS

    return run


@torch.inference_mode()
def step_backbone(model: UnifiedModel) -> Callable[[int], float]:
    """Positions of two rows through embeddings and backbone, one at a time."""
    layout = model.builder.layout

    @torch.inference_mode()
    def run(_: int) -> float:
        cache = model.backbone.new_cache(2, PROMPT + layout.drawn_frame.positions)
        ids = np.full((2, PROMPT), 30)
        tokens = [(ids, np.full_like(ids, -1), np.full((2, PROMPT, layout.codes_per_position), -1))]
        code = model.builder.vocabulary.code_segments[0].offset
        for cell in range(layout.drawn_frame.positions):
            one = np.full((2, 1), code)
            tokens.append((one, np.full_like(one, cell), np.full((2, 1, layout.codes_per_position), code)))
        for ids, cells, patches in tokens:
            embeddings, side = model.read(model.builder.place(ids, cells, patches))
            announced = cache.append(torch.arange(2), torch.full((2,), ids.shape[1]))
            model.backbone(embeddings, announced, side=side, cache=cache)
        return layout.drawn_frame.positions

    return run


@torch.inference_mode()
def draw_codes(model: UnifiedModel) -> Callable[[int], float]:
    """The codes of as many positions, from hidden states at random."""
    width, positions, segment = (
        model.backbone.width,
        model.builder.layout.drawn_frame.positions,
        len(model.builder.vocabulary.segments) - 1,
    )
    policy, noise = POLICIES["image"], PerSampleNoise([0])

    def choose(streams, before):
        return policy.draw(streams[0], streams[1:], torch.tensor([0]), noise)

    @torch.inference_mode()
    def run(_: int) -> float:
        turn = Turn(torch.arange(2)[:, None], (segment,), choose)
        for _ in range(positions):
            model.heads["image"].step(Generation(None, torch.randn(2, width)), turn)
        return STEPS

    return run


def train(model: UnifiedModel, number: int = 8) -> Callable[[int], float]:
    """Forward and backward over pictures with captions."""
    generator = np.random.default_rng(1)
    documents = []
    for index, caption in enumerate(captions(number)):
        picture = ImageSpan(str(index), codes=(generator.integers(0, Codebook.code_sizes[0], GRID),))
        documents.append(model.template.wrap(Document((TextSpan(caption), picture), id=str(index), kind="pair"), 0))
    batch: SequenceBatch = model.builder.build(documents)

    def run(_: int) -> float:
        model.zero_grad()
        terms = model.loss(batch)
        sum(value / terms.counts[name] for name, value in terms.sums.items()).backward()
        return number

    return run


def main() -> None:
    options = read_options(__doc__, rounds=7)
    report = Report("folding", "Folding: fewer positions for the same codes", options)
    models = {fold: new_model(fold) for fold in FOLDS}
    plain, naive = new_model(None), new_model(8)
    naive.image_head.__class__ = NaiveHead
    report.text(
        f"A Llama from config, width {SIZES['hidden_size']}, {SIZES['num_hidden_layers']} layers, with vision experts and an unfolding "
        f"transformer of {LAYERS} layers; random weights; pictures of {STEPS} codes of {Codebook.code_sizes[0]:,} kinds, guidance "
        f"{GUIDANCE:g}, greedy, one picture at a time."
    )
    pieces = report.measure(
        "What a step costs",
        [
            Arm("backbone", "a position of two rows through embeddings and backbone, fold 8", step_backbone(models[8])),
            Arm(
                "head",
                "a code of two rows through unfolding, classifier, guidance and draw, fold 8",
                draw_codes(models[8]),
            ),
        ],
        unit="position or code",
    )
    ratio = pieces.time_ratio("head").value
    report.text(f"c, a code of the head over a position of the backbone: {format_median(pieces.time_ratio('head'))}.", c=ratio)
    drawing = report.measure(
        "Drawing a picture",
        [
            Arm("fold 1", "the same unfolding head, one code per position", draw(models[1])),
            Arm("fold 8", "2 x 4", draw(models[8])),
            Arm("fold 16", "2 x 8", draw(models[16])),
            Arm("fold 8, naive head", "the patch so far is read anew for every code", draw(naive)),
            Arm("plain softmax", "Liquid: codes are rows of the head, one per position", draw(plain)),
        ],
        unit="code",
    )
    for fold in (8, 16):
        judge(report, drawing, fold, ratio)
    report.measure(
        "A step of training",
        [
            Arm("Liquid", "shared softmax, one code per position", train(plain)),
            *(Arm(f"fold {fold}", "unfolding head", train(model)) for fold, model in models.items()),
        ],
        unit="picture with caption",
    )
    report.close()


def judge(report: Report, drawing: Measured, fold: int, ratio: float) -> None:
    """The bar: 0.80 of what the costs of head and backbone allow."""
    allowed = fold * (1 + ratio) / (1 + fold * ratio)
    found = drawing.speed_up(f"fold {fold}").value
    report.bar(
        f"fold {fold}: at least 0.80 of r (1 + c) / (1 + r c) = {allowed:.2f} (found {found:.2f}, {found / allowed:.2f} of it)",
        found >= 0.8 * allowed,
    )


if __name__ == "__main__":
    main()
