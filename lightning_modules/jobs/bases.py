"""What the bases are examined on at the end of their training: retrieval for the vision base, reconstruction for the pixel base."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_modules.jobs.examination import flatten, list_items, write_sheets
from plait.atomic import write_json
from plait.data.filling import Pictures
from plait.document import ImageSpan
from plait.evaluation.bench import Bench
from plait.evaluation.features import FeatureSpace
from plait.evaluation.protocol import Evaluation
from plait.images import to_tensor
from plait.protocols import World
from plait.worlds.emoji import EmojiWorld
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.plan import list_training_scenes
from plait.worlds.emoji.examinations.reconstruction import judge_glyphs, judge_reconstruction
from plait.worlds.emoji.examinations.retrieval import Render, judge_retrieval
from plait.worlds.emoji.oracle import Oracle

Examine = Callable[[nn.Module, Path], Mapping[str, Any]]


def examine_vision(*, world: EmojiWorld, render: Render, n: int = 1000, seed: int = 0) -> Examine:
    """Retrieval with the encoder of an `AttributeClassifier`; see plait.worlds.emoji.examinations.retrieval."""

    def examine(model: nn.Module, folder: Path) -> Mapping[str, Any]:
        figures, records = judge_retrieval(FeatureSpace("vision base", model.vision), world, render, n, seed)
        return write(Evaluation({key: figure.to_dict() for key, figure in figures.items()}, records), folder)

    return examine


def examine_pixels(
    *, world: EmojiWorld, splits: Sequence[str] = ("val", "test_pair", "test_combo"), n: int = 300, seed: int = 0
) -> Examine:
    """Pixel error, and what the oracle still reads, after encoding and decoding; see plait.worlds.emoji.examinations.reconstruction."""
    oracle, blind = Oracle(world), BlindAnswers(list_training_scenes(world))

    def examine(model: nn.Module, folder: Path) -> Mapping[str, Any]:
        bench = Bench(_Reconstructed(model, world), world, oracle, Pictures(lambda name: ()), {}, n=n, seed=seed)
        found = Evaluation({}, [])
        for figures, records in (
            *(judge_reconstruction(bench, blind, split) for split in splits),
            *(judge_glyphs(bench, split) for split in ("train", "val")),
        ):
            found.results.update({key: figure.to_dict() for key, figure in figures.items()})
            found.records.extend(records)
        return write(found, folder)

    return examine


class _Reconstructed:
    """An autoencoder as what a bench decodes pictures with: a span stands for its picture, encoded and decoded."""

    def __init__(self, autoencoder: nn.Module, world: World) -> None:
        self.autoencoder, self.world = autoencoder, world

    def pictures(self, spans: Sequence[ImageSpan]) -> torch.Tensor:
        images = to_tensor([self.world.picture(span.image_id) for span in spans])
        device = next(self.autoencoder.parameters()).device
        return self.autoencoder.decode(self.autoencoder.encode(images.to(device)))


def write(found: Evaluation, folder: Path) -> Mapping[str, Any]:
    """Write evaluation.json, items.json, summary.json, sheets and samples; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = flatten(found, {}, "none")
    write_json(folder / "evaluation.json", {"results": found.results, "facts": found.facts})
    write_json(folder / "items.json", list_items(found))
    write_json(folder / "summary.json", summary)
    write_sheets(found, folder, 48)
    return summary
