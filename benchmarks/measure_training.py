"""A training step of plait (packed, attention per document, lean loss) against the usual padded step of transformers.

python benchmarks/measure_training.py

Both arms train the same weights on the same documents of the demo's mixture: drawn, worded, encoded, batched, forward, backward,
optimiser step. The headline is the size of the demo, chosen before anything was measured because it is what `make demo` trains.
"""

import tempfile
from collections.abc import Iterator, Sequence

import torch
from side_by_side import Arm, Report, format_median, read_options
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from plait.backbones.configuration import build_config
from plait.data.mixture import Mixture
from plait.freezing import FreezePlan
from plait.sequence.batch import SequenceBatch
from plait.sequence.layout import Tokens
from plait.systems.unified import UnifiedModel

PADDED_BATCH = 16
LARGER = ["backbone.hidden_size=256", "backbone.intermediate_size=768", "backbone.num_hidden_layers=8"]
LARGER += ["backbone.num_attention_heads=8", "backbone.num_key_value_heads=8"]
SIZES = {  # heading -> overrides, documents per round
    "The demo's size (headline)": (["batches.documents_per_window=64", "batches.batches_per_window=1"], 64),
    "Width 256, 8 layers": ([*LARGER, "batches.documents_per_window=32", "batches.batches_per_window=1"], 32),
}
"""A round is one window of the mixture, one batch of plait: 64 documents as in the demo, 32 at the larger size."""


class Workload:
    """One model in both forms, and the same documents for both.

    Args:
        overrides: of the recipe of pretraining.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        # untrained: the time of a step does not depend on what the weights are. Without the vectors of `image_positions`, which
        # input ids alone cannot carry into the other arm
        fixed = ["experiment=liquid/pretraining", "base.vision_tokenizer=random", "model.image_positions=false"]
        with tempfile.TemporaryDirectory() as folder:
            config = compose_job("train", [*fixed, f"paths.folder={folder}", "trainer.max_steps=100", *overrides])
            assembly = Assembly(config)
            torch.manual_seed(0)
            self.model: UnifiedModel = assembly.build("model")
            self.mixture: Mixture = assembly.build("batches")
            optimizer = assembly.build("stage.optimizer")
        self.padded = to_transformers(self.model, dict(config.backbone))
        self.optimizers = [
            optimizer(FreezePlan().parameter_groups(self.model)),
            optimizer([{"params": list(self.padded.named_parameters())}]),
        ]

    def encode_pictures(self, rounds: int) -> None:
        """Have the codes of every picture that will be asked for, as the code cache of a real run has them."""
        for number in range(-1, rounds):
            self.documents(number)

    def step_packed(self, number: int) -> int:
        """Train plait on one window; the real tokens of it."""
        tokens = 0
        for batch in self.packed(number):
            self.packed_loss(batch).backward()
            self._step(0)
            tokens += batch.num_tokens
        return tokens

    def step_padded(self, number: int) -> int:
        """Train transformers on the same window, with as many optimiser steps of as many documents."""
        tokens = 0
        documents = self.documents(number)
        share = len(documents) // self.mixture.batches_per_window
        for step in batched(documents, share):
            count = count_targets(step)
            for members in batched(step, PADDED_BATCH):
                (self.padded_loss(members) / count).backward()
                tokens += sum(map(len, members))
            self._step(1)
        return tokens

    def packed(self, number: int) -> Iterator[SequenceBatch]:
        """The batches of one window."""
        size = self.mixture.batches_per_window
        return (self.mixture[number % 50 * size + part] for part in range(size))

    def documents(self, number: int) -> list[Tokens]:
        """The documents of one window in the order in which they are drawn."""
        size = self.mixture.documents_per_window
        first = number % 50 * size
        return [self.mixture.builder.encode(self.mixture.document(first + index)) for index in range(size)]

    def packed_loss(self, batch: SequenceBatch) -> Tensor:
        """Mean over all targets of the step."""
        return sum(self.model.loss(batch).sums.values()) / sum(batch.counts.values())

    def padded_loss(self, members: Sequence[Tokens]) -> Tensor:
        """Sum over the targets of one padded batch: the loss of transformers over its full logits, not its mean."""
        rows = [torch.from_numpy(item.ids) for item in members]
        masks = [torch.ones_like(row) for row in rows]
        labels = [torch.from_numpy(item.ids).masked_fill(~torch.from_numpy(item.loss), -100) for item in members]
        ids, mask = (nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (rows, masks))
        labels = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        # num_items_in_batch=1: the documented way to a sum, for gradient accumulation
        return self.padded(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=1, use_cache=False).loss

    def _step(self, arm: int) -> None:
        self.optimizers[arm].step()
        self.optimizers[arm].zero_grad()

    @torch.no_grad()
    def losses(self) -> tuple[float, float]:
        """Mean loss of window 0 in both forms."""
        packed = list(self.packed(0))
        counts = [sum(batch.counts.values()) for batch in packed]
        first = sum(float(self.packed_loss(batch)) * count for batch, count in zip(packed, counts, strict=True)) / sum(counts)
        documents = self.documents(0)
        second = sum(float(self.padded_loss(members)) for members in batched(documents, PADDED_BATCH))
        return first, second / count_targets(documents)

    def real_share(self) -> float:
        """Share of real tokens in the padded batches of window 0."""
        groups = [list(map(len, members)) for members in batched(self.documents(0), PADDED_BATCH)]
        return sum(map(sum, groups)) / sum(len(lengths) * max(lengths) for lengths in groups)


def to_transformers(model: UnifiedModel, sizes: dict) -> nn.Module:
    """The same weights as one model of transformers, whose vocabulary holds text, markers and codes."""
    backbone = {key: value for key, value in sizes.items() if key not in ("_target_", "architecture", "layer_types")}
    layer_types = model.backbone.config.layer_types
    settings = backbone | {"layer_types": layer_types, "vocab_size": model.builder.vocabulary.size}
    twin = AutoModelForCausalLM.from_config(build_config(sizes["architecture"], **settings), attn_implementation="sdpa")
    weights = {name: value for name, value in model.backbone.model.state_dict().items() if "layers" in name or "norm" in name}
    table = torch.cat([model.backbone.text_table, *(rows.weight for rows in model.head.own_rows)])
    assert not twin.load_state_dict(weights | {"model.embed_tokens.weight": table, "lm_head.weight": table}).missing_keys
    return twin


def batched(items: Sequence[Tokens], size: int) -> Iterator[Sequence[Tokens]]:
    """Consecutive runs of `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


def count_targets(documents: Sequence[Tokens]) -> int:
    """Tokens that must be predicted; the first of a document never is."""
    return sum(int(item.loss[1:].sum()) for item in documents)


def main() -> None:
    options = read_options(__doc__, rounds=7)
    report = Report("training", "A training step: packed per document against padded", options)
    for heading, (overrides, documents) in SIZES.items():
        work = Workload(overrides)
        work.encode_pictures(options.rounds)
        packed, padded = work.losses()
        if abs(packed - padded) > 1e-4 * abs(padded):
            raise SystemExit(f"{heading}: the arms differ in loss, {packed:.6f} against {padded:.6f}: nothing to compare.")
        arms = [
            Arm(
                "padded transformers",
                f"`AutoModelForCausalLM` with sdpa over one enlarged vocabulary, batches of "
                f"{PADDED_BATCH} documents in natural order padded to their longest, full logits",
                work.step_padded,
            ),
            Arm("plait", "the batches of the recipe's `Mixture` (packed), `UnifiedModel.loss`", work.step_packed),
        ]
        measured = report.measure(heading, arms, unit="real token")
        model = work.model
        report.text(
            f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, vocabulary {model.builder.vocabulary.size}; "
            f"a round is {documents} documents, one optimiser step (Muon and AdamW, those of the recipe) in both arms, "
            f"drawing and batching included. Losses of both arms before training: {packed:.6f} and {padded:.6f}. "
            f"The padded batches hold {work.real_share():.1%} real tokens."
        )
        gain = measured.speed_up("plait")
        if "headline" in heading:
            report.bar(f"at least 2.0 times the real tokens per second; measured {format_median(gain)}", gain.value >= 2.0)
    report.close()


if __name__ == "__main__":
    main()
