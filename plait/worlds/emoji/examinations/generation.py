"""Text to image: does the picture show what the caption says? The oracle of the world is the judge.

One caption, one sample. The headline score asks for everything at once (objects, each in its colour, each in its place);
the others say which part is missing, and `unrecognisable` is the share of pictures in which the judge recognises nothing at
all. One object and two objects are different figures: the first is recall of single cells, the second is composition.
"""

from collections.abc import Sequence
from functools import partial
from random import Random

from plait.evaluation.bench import Bench, describe_policies
from plait.evaluation.distribution import judge_distribution
from plait.evaluation.figures import Figure, Record, summarise
from plait.worlds.emoji.captions import parse
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import describe_finding, score_scene

NAMES = {1: "one_object", 2: "two_objects"}


ABOUT = {
    "one_object": ("drawing one thing", "share of captions whose picture shows the thing, in its colour and place"),
    "two_objects": ("drawing two things", "share of captions whose picture shows both things, each in its colour and place"),
}


def judge_generation(bench: Bench, blind: BlindAnswers, split: str, num_things: int) -> tuple[dict[str, Figure], list[Record]]:
    """Draw the captions of a split's scenes with so many things.

    Returns:
        figures `<split>/one_object` or `<split>/two_objects` with `_objects`, `_colours`, `_cells`, `_places`, `_relation`,
        `_unrecognisable`, and the records behind them; where the bench has features, the distances of `judge_distribution` for two
        objects (one object has too few scenes).
    """
    key = f"{split}/{NAMES[num_things]}"
    documents = bench.take(bench.world.source(NAMES[num_things], split), name=lambda document: document.text)
    records = draw_captions(bench, key, documents)
    expected = [Scene.from_json(document.meta["scene"]) for document in documents]
    asked = [parse(document.text) for document in documents]
    baselines = blind.score(expected) | blind.look_up_drawn(asked, [partial(score_scene, expected=scene) for scene in expected])
    figures = summarise(key, records, baselines, describe_policies(bench.policies))
    if bench.features is not None and num_things == 2:
        drawn = [record.pictures[-1] for record in records]
        figures |= judge_distribution(bench, key, drawn, [scene.id for scene in expected], _take_others(bench, split, expected))
    return figures, records


def _take_others(bench: Bench, split: str, asked: Sequence[Scene]) -> list[str]:
    """As many further pictures of two objects, as far as the split has them."""
    others = sorted(set(bench.world.pools(split).two_objects) - set(asked), key=lambda scene: scene.id)
    return [scene.id for scene in Random(bench.seed).sample(others, min(len(others), len(asked)))]


def draw_captions(bench: Bench, key: str, documents: Sequence) -> list[Record]:
    """One picture per pair document, judged against its scene."""
    prompts = [bench.model.template.draw_prompt(document.text) for document in documents]
    completions = bench.complete(key, prompts)
    pictures = bench.illustrate(completions)
    seen = bench.judge.see([shown[-1] for shown in pictures])
    records = []
    for document, completion, shown, finding in zip(documents, completions, pictures, seen, strict=True):
        scene = Scene.from_json(document.meta["scene"])
        records.append(
            Record(
                key,
                completion.document,
                shown,
                score_scene(finding, scene),
                expected=document.text,
                found=describe_finding(finding),
                cluster=document.text,
                seed=completion.seed,
                prompt=completion.prompt,
            )
        )
    return records
