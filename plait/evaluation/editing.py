"""Edits: a picture, an instruction, the changed picture. Was the change made, and only the change?

A scene is a set of facts: which object has which colour, which object stands where. The change is what distinguishes the scene after
from the scene before; the rest is what both share. A system that hands back its input keeps the rest and makes no change: it is the
baseline `copy_input`.
"""

from collections.abc import Collection
from functools import partial

from plait.data.emoji_world.scenes import Scene, Thing
from plait.evaluation.bench import Bench, describe_policies
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.figures import MAIN, Figure, Record, summarise
from plait.evaluation.scoring import compare_scenes, describe_things


def compare_edit(found: Collection[Thing], before: Scene, after: Scene) -> dict[str, float]:
    """Scores of an edited picture, each 0 or 1.

    Returns:
        all: exactly the scene after. change: every new fact holds and none of those that had to go. rest: every shared fact
        holds (absent where the scenes share none).
    """
    seen, old, new = _facts(found), _facts(before.things), _facts(after.things)
    scores = {
        MAIN: compare_scenes(found, after)[MAIN],
        "change": float(new - old <= seen and not (old - new) & seen),
    }
    if old & new:
        scores["rest"] = float(old & new <= seen)
    return scores


def _facts(things: Collection[Thing]) -> set[tuple[str, str, str]]:
    return {(kind, t.object, getattr(t, kind)) for t in things for kind in ("colour", "slot")}


def judge_edits(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Carry out the instructions of a split.

    Returns:
        figures `<split>/edits` with `_change`, `_rest` and `_unrecognisable`, beside `copy_input`.
    """
    key = f"{split}/edits"
    documents = bench.take(
        bench.world.source("edits", split), name=lambda d: (d.spans[0].image_id, d.spans[1].text)
    )
    states = [[Scene.from_json(state) for state in document.meta["states"]] for document in documents]
    prompts = [
        bench.model.template.edit_prompt(bench.show(document.spans[0].image_id), document.spans[1].text)
        for document in documents
    ]
    completions = bench.complete(key, prompts)
    pictures = bench.illustrate(completions)
    seen = bench.see([shown[-1] for shown in pictures])
    judges = [partial(compare_edit, before=before, after=after) for before, after in states]
    records = []
    for document, completion, shown, things, judge in zip(documents, completions, pictures, seen, judges, strict=True):
        scores = {**judge(things), "unrecognisable": float(not things)}
        expected = describe_things(Scene.from_json(document.meta["scene"]).things)
        cluster = document.spans[0].image_id
        records.append(
            Record(key, completion.document, shown, scores, expected, describe_things(things), cluster, completion.seed)
        )
    baselines = blind.score([after for _, after in states], judges)
    baselines["copy_input"] = [judge(before.things) for (before, _), judge in zip(states, judges, strict=True)]
    return summarise(key, records, baselines, describe_policies(bench.policies)), records
