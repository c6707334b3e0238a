"""What a sample gallery shows: a miniature examination on val, or reconstructions; the same items every time it looks.

The judged items of plait.evaluation become samples, so the pages of a run, of W&B and of the report are made of the same records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_modules.jobs.examination import find_examinations, to_sample
from plait.data.filling import Pictures, fill_images
from plait.document import Document, ImageSpan
from plait.evaluation.bench import Bench
from plait.evaluation.continuation import cut_prompt
from plait.images import to_pictures, to_tensor
from plait.protocols import Policy, World
from plait.samples import Sample


def examine_a_few(
    *,
    world: World,
    pictures: Pictures,
    text_policy: Policy,
    prose_policy: Policy,
    image_policy: Policy,
    examinations: Sequence[str] = ("two_objects", "captions"),
    split: str = "val",
    n: int = 6,
) -> Callable[[nn.Module], list[Sample]]:
    """A gallery of `n` judged items per examination.

    Args:
        examinations: names of examinations of the world.

    Raises:
        RecipeError: it has none of this name.
    """
    asked = find_examinations(world, examinations)
    policies = {"text": text_policy, "prose": prose_policy, "image": image_policy}

    def draw(model: nn.Module) -> list[Sample]:
        bench, wording = Bench(model, world, asked.judge, pictures, policies, n=n), getattr(model.template, "wording", None)
        blind = asked.prepare(bench, is_brief=True)
        judged = (asked.examinations[name](bench, blind, split)[1][:n] for name in examinations)
        return [to_sample(record, wording) for records in judged for record in records]

    return draw


def complete_a_few(
    *,
    documents: Mapping[str, Sequence[Document]],
    world: World,
    pictures: Pictures,
    text_policy: Policy,
    image_policy: Policy,
    n: int = 6,
    max_images: int = 2,
    max_tokens: int = 64,
) -> Callable[[nn.Module], list[Sample]]:
    """A gallery of documents that the model completes, where nobody knows what is right: each is given up to what is to be learned from
    it (a story: its first span), and the model goes on.

    Args:
        documents: source -> raw documents, of which the first `n` of each are taken.
    """

    def draw(model: nn.Module) -> list[Sample]:
        samples = []
        for source in documents.values():
            whole = [
                fill_images(model.template.wrap(source[number], number), pictures) for number in range(min(n, len(source)))
            ]
            prompts = [cut_prompt(document) for document in whole]
            policies = {"text": text_policy, "image": image_policy}
            seeds = range(len(prompts))
            samples += complete(model, world, prompts, policies, seeds, max_images=max_images, max_tokens=max_tokens)
        return samples

    return draw


def complete(
    model: Any,
    world: World,
    prompts: Sequence[Document],
    policies: Mapping[str, Policy],
    seeds: Sequence[int],
    *,
    max_images: int,
    max_tokens: int,
) -> list[Sample]:
    """What a model makes of prompts, as samples.

    Args:
        world: shows the pictures that prompts are given.
        max_images, max_tokens: that a document may go on with after its prompt.
    """
    samples = []
    wording = getattr(model.template, "wording", None)
    made = model.generate(list(prompts), dict(policies), list(seeds), max_images=max_images, max_tokens=max_tokens)
    for prompt, document, seed in zip(prompts, made, seeds, strict=True):
        known = {span.image_id: world.picture(span.image_id) for span in prompt.images if not span.is_hole}
        sample = Sample(document, seed=seed, given=prompt, title=prompt.id, wording=wording)
        drawn = [
            span
            for span, is_made in zip(document.spans, sample.made, strict=True)
            if is_made and isinstance(span, ImageSpan) and span.codes is not None
        ]
        shown = dict(zip(map(id, drawn), to_pictures(model.pictures(drawn)) if drawn else (), strict=True))
        samples.append(replace(sample, pictures=partial(_find, shown, known)))
    return samples


def _find(drawn: Mapping[int, Any], given: Mapping[str, Any], span: ImageSpan) -> Any:
    return drawn.get(id(span), given.get(span.image_id))


def reconstruct_a_few(
    *, world: World, split: str = "val", n: int = 12, subsets: Sequence[str] = ("scenes", "glyphs")
) -> Callable[[nn.Module], list[Sample]]:
    """A gallery of pictures beside what a vision tokenizer makes of them: `n` of each subset, spread over it."""
    pools = [world.image_ids(split, subset) for subset in subsets]
    ids = [name for pool in pools for name in pool[:: max(1, len(pool) // n)][:n]]

    @torch.inference_mode()
    def draw(model: nn.Module) -> list[Sample]:
        originals = [world.picture(image_id) for image_id in ids]
        images = to_tensor(originals).to(next(model.parameters()).device)
        decoded = to_pictures(model.decode(model.encode(images)))
        samples = []
        for image_id, original, copy in zip(ids, originals, decoded, strict=True):
            name = f"{image_id}, decoded"
            document = Document((ImageSpan(image_id), ImageSpan(name)), id=image_id)
            samples.append(Sample(document, {image_id: original, name: copy}, given=1))
        return samples

    return draw
