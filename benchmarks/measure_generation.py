"""Drawing 256 image tokens with guidance: plait, as it is and compiled, against transformers and against Liquid's published loop.

python benchmarks/measure_generation.py
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from side_by_side import Arm, Report, format_median, read_options
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from plait.backbones.causal_lm import CausalLM
from plait.document import Document, ImageSpan, TextSpan
from plait.sampling.policies import SamplingPolicy
from plait.systems.liquid import LiquidTemplate, build
from plait.systems.unified import UnifiedModel

TEXT, CODES, GRID, GUIDANCE, PROMPT = 4_096, 8_192, (16, 16), 7.0, 14
STEPS = GRID[0] * GRID[1]
PAD, EOS, BOS, BOI, EOI, UNCONDITIONAL = 0, 1, 2, 7, 8, 9
SIZES = {
    "hidden_size": 384,
    "intermediate_size": 1_024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 64,
    "max_position_embeddings": 1_024,
    "tie_word_embeddings": True,
}
"""10.6 M parameters in the layers, 12,288 rows."""


class Numbers:
    """Words are numbers of ids."""

    size, bos_id, eos_id, pad_id = TEXT, BOS, EOS, PAD
    special_ids: ClassVar = frozenset({BOS, EOS, PAD, BOI, EOI, UNCONDITIONAL})
    markers: ClassVar = {
        "pad": PAD,
        "begin_document": BOS,
        "end_document": EOS,
        "begin_image": BOI,
        "end_image": EOI,
        "unconditional": UNCONDITIONAL,
    }

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Any) -> str:
        return " ".join(str(index) for index in ids)


class Codebook:
    """How many codes there are; nothing is decoded here."""

    code_sizes, digit_sizes, grid_shapes, image_size = (CODES,), ((CODES,),), (GRID,), (1, 1)


class TextIdsAreImpossible:
    """A logits processor of transformers."""

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.arange(TEXT), -torch.inf)


class Drawing:
    """The same weights as a plait model and as a transformers model, and the same prompts for both.

    Args:
        num_pictures: drawn at a time, each from a prompt of its own.
        dtype: of the weights.
    """

    def __init__(self, num_pictures: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        backbone = CausalLM.from_config("llama", vocab_size=TEXT, **SIZES)
        template = LiquidTemplate()
        self.plait: UnifiedModel = build(
            backbone=backbone, vision_tokenizer=Codebook(), text_tokenizer=Numbers(), template=template
        ).eval()
        self.plait.to(dtype)
        special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
        self.reference = LlamaForCausalLM(LlamaConfig(vocab_size=TEXT + CODES, **special, **SIZES)).eval().to(dtype)
        table = torch.cat([backbone.text_table, self.plait.head.own_rows[0].weight]).detach()
        rows = {"model.embed_tokens.weight": table, "lm_head.weight": table}
        self.reference.load_state_dict(backbone.model.state_dict() | rows)
        words = np.random.default_rng(0).integers(20, TEXT, (num_pictures, PROMPT))
        self.prompts = [
            Document((TextSpan(" ".join(map(str, row))), ImageSpan("drawn", form="codes")), ends=False) for row in words
        ]
        self.ids = torch.tensor([[BOS, *row, BOI] for row in words.tolist()])
        self.blind = torch.tensor([[BOS, UNCONDITIONAL, BOI]] * num_pictures)

    def draw(self, policy: SamplingPolicy) -> torch.Tensor:
        """plait's codes (n, steps)."""
        policies = {"text": SamplingPolicy(temperature=0.0), "image": policy}
        drawn = self.plait.generate(self.prompts, policies, range(len(self.prompts)), max_tokens=1)
        return torch.tensor(np.stack([document.images[0].codes[0].reshape(-1) for document in drawn]))

    @torch.inference_mode()
    def generate(self) -> torch.Tensor:
        """transformers' codes (n, steps): a second call for the unconditional row, and one cache for each."""
        out = self.reference.generate(
            self.ids,
            attention_mask=torch.ones_like(self.ids),
            negative_prompt_ids=self.blind,
            negative_prompt_attention_mask=torch.ones_like(self.blind),
            guidance_scale=GUIDANCE,
            logits_processor=LogitsProcessorList([TextIdsAreImpossible()]),
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
        )
        return out[:, self.ids.shape[1] :] - TEXT

    @torch.inference_mode()
    def multiply(self) -> None:
        """Nothing but plait's products with weights: two rows through every linear map and the rows of the codes, per token."""
        layers = [module.weight for module in self.plait.backbone.decoder.modules() if isinstance(module, torch.nn.Linear)]
        weights = [*layers, self.plait.head.own_rows[0].weight]
        rows = {width: torch.randn(2 * len(self.prompts), width) for width in {weight.shape[1] for weight in weights}}
        for _ in range(STEPS):
            for weight in weights:
                torch.nn.functional.linear(rows[weight.shape[1]], weight)

    @torch.inference_mode()
    def published(self) -> torch.Tensor:
        """Liquid's loop, re-written: conditional and unconditional rows in one left-padded batch, the whole head at every step, text
        masked before the draw, here of the most likely, the same token appended to both halves (specs section 7.1)."""
        from transformers import DynamicCache

        number = len(self.ids)
        padded = torch.full_like(self.ids, PAD)
        padded[:, -self.blind.shape[1] :] = self.blind
        ids = torch.cat([self.ids, padded])
        mask = torch.cat([torch.ones_like(self.ids), (padded != PAD).long()])
        cache, drawn = DynamicCache(), []
        for _ in range(STEPS):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            logits = self.reference(ids, attention_mask=mask, position_ids=positions, past_key_values=cache).logits[:, -1]
            full, blind = logits.chunk(2)
            guided = blind + GUIDANCE * (full - blind)
            guided[:, :TEXT] = -torch.inf
            drawn.append(guided.argmax(-1, keepdim=True))
            ids = drawn[-1].repeat(2, 1)
            mask = torch.cat([mask, torch.ones(2 * number, 1, dtype=mask.dtype)], -1)
        return torch.cat(drawn, -1) - TEXT


class Forced:
    """A policy that draws given codes and keeps the logits of each step, conditional and guided."""

    guidance_weights, reads_history = (GUIDANCE,), False

    def __init__(self, codes: torch.Tensor) -> None:
        self.codes, self.steps = codes, []

    def draw(self, logits, branches, samples, noise, history=None):
        self.steps.append((logits.float(), branches[0].float()))
        return self.codes[samples, len(self.steps) - 1]


def compare_bfloat16(codes: torch.Tensor) -> float:
    """The largest relative distance of step logits, |ours - theirs| / |theirs| per step and row, both in bf16 and teacher-forced on
    the codes of the fp32 model: plait step by step through its cache, transformers at once over the whole row."""
    drawing = Drawing(len(codes), torch.bfloat16)
    forced = Forced(codes)
    drawing.draw(forced)
    worst = 0.0
    for prompt, place in ((drawing.ids, 0), (drawing.blind, 1)):
        with torch.inference_mode():
            logits = (
                drawing.reference(torch.cat([prompt, codes[:, :-1] + TEXT], 1)).logits[:, prompt.shape[1] - 1 :, TEXT:].float()
            )
        ours = torch.stack([step[place] for step in forced.steps], 1)
        worst = max(worst, float(((ours - logits).norm(dim=-1) / logits.norm(dim=-1)).max()))
    return worst


def main() -> None:
    options = read_options(__doc__, rounds=7)
    report = Report("generation", "256 image tokens with guidance", options)
    report.text(
        "A Llama from config, width 384, 6 layers, 10.6 M parameters in its layers, random weights; 4,096 text rows and 8,192 codes; "
        "prompts of 16 tokens; guidance 7. One picture at a time (chosen before measuring), greedy, as all arms then draw the same "
        "codes."
    )
    measure(report, Drawing(1))
    report.close()


def measure(report: Report, drawing: Drawing) -> None:
    """The section and its bars."""
    number = len(drawing.prompts)
    greedy = SamplingPolicy(GUIDANCE, temperature=0.0)
    expected = drawing.generate()
    is_same = {"plait": torch.equal(drawing.draw(greedy), expected), "published": torch.equal(drawing.published(), expected)}
    as_it_is = drawing.plait.backbone._step, drawing.plait.head._compiled
    start = time.perf_counter()
    drawing.plait.compile_generation(options={"freezing": True})
    is_same["compiled"] = torch.equal(drawing.draw(greedy), expected)
    seconds = time.perf_counter() - start
    compiled = drawing.plait.backbone._step, drawing.plait.head._compiled

    def plait(state: tuple) -> float:
        drawing.plait.backbone._step, drawing.plait.head._compiled = state
        drawing.draw(greedy)
        return number * STEPS

    def reference(run: Callable[[], Any]) -> float:
        run()
        return number * STEPS

    arms = [
        Arm("transformers", "`generate(guidance_scale=7)`", lambda _: reference(drawing.generate)),
        Arm("published loop", "Liquid's, re-written", lambda _: reference(drawing.published)),
        Arm("plait", "`UnifiedModel.generate`", lambda _: plait(as_it_is)),
        Arm("plait compiled", "after `compile_generation`, warm", lambda _: plait(compiled)),
        Arm(
            "weights alone",
            "plait's products with weights as torch does them, and nothing else: what is left when the code around them costs nothing "
            "(packed or narrower weights could still be faster)",
            lambda _: reference(drawing.multiply),
        ),
    ]
    measured = report.measure(f"{number} picture{'s' * (number > 1)} at a time", arms, unit="token")
    for arm, bar in (("plait", 3.0), ("plait compiled", 3.5)):
        gain = measured.speed_up(arm)
        report.bar(f"{arm}: at least {bar} times as fast as transformers; {format_median(gain)}", gain.value >= bar)
    same = ", ".join(f"{name} {'yes' if value else 'NO'}" for name, value in is_same.items())
    report.text(f"Compiling took {seconds:.0f} s. Greedy codes equal to those of transformers: {same}.", is_same=is_same)
    report.bar("codes identical in fp32", all(is_same.values()))
    distance = compare_bfloat16(expected)
    report.bar(f"bf16 step logits within 2e-2 relative, teacher-forced; {distance:.4f}", distance <= 2e-2)


if __name__ == "__main__":
    main()
