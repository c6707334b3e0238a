"""The loss of held-out documents, term by term, as training counts it: nats per token of text, nats per code of pictures, bits per byte.

Every document is scored by itself (a pair in both directions), and the interval of a mean over targets is that of a ratio: documents are
resampled whole, with their targets. `bits_per_byte` counts all that is learned of texts, their ends too, over the bytes of the texts alone,
so that models with different tokenizers compare. Beside them stands what needs no network: `trigram`, on the model's own tokens of training
documents, and `frequency`, how often training shows each code (add-one smoothing).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from plait.document import Document, TextSpan
from plait.errors import LayoutError, VocabularyError
from plait.evaluation.bench import Bench, UnaskableError
from plait.evaluation.figures import MAIN, Figure, Record
from plait.evaluation.statistics import bootstrap_ratio
from plait.evaluation.trigram import Trigrams
from plait.sequence.batch import TERMS
from plait.sequence.markers import END

BITS = "bits_per_byte"
LOSSES = ("loss_text", BITS, "loss_image")
ABOUT = {
    "loss_text": ("", "nats per token of held-out text (lower is better)"),
    BITS: ("", "bits per byte of held-out text (lower is better)"),
    "loss_image": ("", "nats per code of held-out pictures (lower is better)"),
}


@dataclass
class Cost:
    """What one document costs: figure -> (sum, number of targets), of the model and of what stands beside it."""

    model: dict[str, tuple[float, float]] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)


def judge_loss(bench: Bench, documents: Any, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Score up to `n` documents of a split.

    Args:
        documents: `plait.evaluation.documents.Documents`.

    Returns:
        `<split>/loss_text`, `<split>/bits_per_byte` and `<split>/loss_image`, as far as something of the kind is learned. The score of a
        record is its sum over the mean number of targets, so that scores of all documents average to the figure.

    Raises:
        UnaskableError: a document does not fit the model.
    """
    taken = [ways for ways in documents.take(split, bench.n) if ways]
    try:
        trigrams, frequencies = _fit_trigrams(bench, documents.training), _count_codes(bench, documents.training)
        costs = [_score(bench, ways, trigrams, frequencies) for ways in taken]
    except (LayoutError, VocabularyError) as error:
        raise UnaskableError(str(error), len(taken)) from error
    figures: dict[str, Figure] = {}
    records: list[Record] = []
    for name in LOSSES:
        members = [index for index, cost in enumerate(costs) if cost.model.get(name, (0, 0))[1]]
        if not members:
            continue
        sums, counts = (np.array([costs[index].model[name][place] for index in members]) for place in (0, 1))
        clusters = [_cluster(taken[index][0]) for index in members]
        ratio = bootstrap_ratio(sums, counts, clusters)
        beside = "frequency" if name == "loss_image" else "trigram"
        known = [costs[index].baseline.get(name) for index in members]
        baselines = {} if None in known else {beside: float(np.sum(known) / counts.sum())}
        key = f"{split}/{name}"
        figures[key] = Figure(ratio.value, ratio.low, ratio.high, ratio.n, baselines, is_share=False)
        for index, value, cluster in zip(members, sums / counts.mean(), clusters, strict=True):
            document = taken[index][0]
            shown = tuple(bench.world.picture(span.image_id) for span in document.images)
            facts = (document.id or document.text, "", cluster)
            records.append(Record(key, document, shown, {MAIN: float(value)}, *facts, prompt=document))
    return figures, records


def _score(bench: Bench, ways: Sequence[Document], trigrams: Trigrams | None, frequencies: Sequence[np.ndarray]) -> Cost:
    cost = Cost()
    builder, answer = bench.model.builder, bench.model.template.answer
    for document in ways:
        sums, counts = score_terms(bench.model, document)
        tokens = builder.encode(document)
        is_text = tokens.loss[1:] & (tokens.owners[1:] == TERMS.index("text"))
        learned = [span.text for span in document.spans if isinstance(span, TextSpan) and span.loss]
        num_bytes = sum(len(answer(text.replace(END, "")).encode()) for text in learned)
        guessed = 0.0 if trigrams is None else float(trigrams.score(tokens.ids)[is_text].sum())
        if num_bytes:  # a document that learns nothing but its end learns no text
            _add(cost, "loss_text", sums["text"], counts["text"], None if trigrams is None else guessed)
            _add(cost, BITS, sums["text"] / math.log(2), float(num_bytes), None if trigrams is None else guessed / math.log(2))
        if counts.get("image"):
            drawn = [span.codes for span in document.images if span.loss and span.codes is not None]
            looked_up = sum(float(table[grid].sum()) for grids in drawn for table, grid in zip(frequencies, grids, strict=True))
            _add(cost, "loss_image", sums["image"], counts["image"], looked_up)
    return cost


@torch.no_grad()
def score_terms(model: Any, document: Document) -> tuple[dict[str, float], dict[str, float]]:
    """Term -> (nats of an encoded document, number of targets), by the very loss of training."""
    batch = model.builder.build([document]).to(model.device)
    was_training = model.training
    model.eval()
    try:
        terms = model.loss(batch)
    finally:
        model.train(was_training)
    return {name: float(value) for name, value in terms.sums.items()}, dict(terms.counts)


def _add(cost: Cost, name: str, nats: float, targets: float, guessed: float | None) -> None:
    before = cost.model.get(name, (0.0, 0.0))
    cost.model[name] = (before[0] + nats, before[1] + targets)
    if guessed is not None:
        cost.baseline[name] = cost.baseline.get(name, 0.0) + guessed


def _fit_trigrams(bench: Bench, training: Sequence[Document]) -> Trigrams | None:
    builder = bench.model.builder
    return Trigrams((builder.encode(document).ids for document in training), builder.vocabulary.size) if training else None


def _count_codes(bench: Bench, training: Sequence[Document]) -> list[np.ndarray]:
    """Per level the nats of each code by its frequency in training."""
    tokenizer = bench.model.vision_tokenizer
    if tokenizer is None:
        return []
    counts = [np.ones(size) for size in tokenizer.code_sizes]
    for span in (span for document in training for span in document.images if span.codes is not None):
        for table, grid in zip(counts, span.codes, strict=True):
            np.add.at(table, np.asarray(grid).ravel(), 1)
    return [-np.log(table / table.sum()) for table in counts]


def _cluster(document: Document) -> str:
    return document.images[0].image_id if document.images else document.id
