"""What a sample gallery shows: a miniature examination on val, or reconstructions; the same items every time it looks.

The judged items of plait.evaluation become samples, so the pages of a run, of W&B and of the report are made of the same records.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lightning_modules.jobs.examination import to_sample
from plait.document import Document, ImageSpan
from plait.evaluation.bench import Bench, Codes
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.protocol import EXAMINATIONS, list_training_scenes
from plait.evaluation.verifier import Oracle
from plait.images import to_pictures, to_tensor
from plait.protocols import Policy
from plait.rendering import Sample


def examine_a_few(
    *,
    world: Any,
    codes: Codes,
    text_policy: Policy,
    prose_policy: Policy,
    image_policy: Policy,
    examinations: Sequence[str] = ("two_objects", "captions"),
    split: str = "val",
    n: int = 6,
) -> Callable[[nn.Module], list[Sample]]:
    """A gallery of `n` judged items per examination.

    Args:
        examinations: names of `plait.evaluation.protocol.EXAMINATIONS`.
    """
    oracle = Oracle(world)
    policies = {"text": text_policy, "prose": prose_policy, "image": image_policy}
    blind = BlindAnswers(list_training_scenes(world, 50))

    def draw(model: nn.Module) -> list[Sample]:
        bench = Bench(model, world, oracle, codes, policies, n=n)
        return [to_sample(record) for name in examinations for record in EXAMINATIONS[name](bench, blind, split)[1][:n]]

    return draw


def reconstruct_a_few(*, world: Any, split: str = "val", n: int = 12) -> Callable[[nn.Module], list[Sample]]:
    """A gallery of pictures beside what a vision tokenizer makes of them: scenes of a split, then glyphs."""
    ids = [*world.image_ids(split, "scenes")[:: max(1, len(world.image_ids(split, "scenes")) // n)][:n]]
    ids += world.image_ids("val", "glyphs")[:n]

    @torch.inference_mode()
    def draw(model: nn.Module) -> list[Sample]:
        originals = [world.picture(image_id) for image_id in ids]
        decoded = to_pictures(model.decode(model.encode(to_tensor(originals))))
        samples = []
        for image_id, original, copy in zip(ids, originals, decoded, strict=True):
            name = f"{image_id}, decoded"
            document = Document((ImageSpan(image_id), ImageSpan(name)), id=image_id)
            samples.append(Sample(document, {image_id: original, name: copy}, given=1))
        return samples

    return draw
