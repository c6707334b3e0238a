"""Edits: a picture, an instruction, the changed picture. Was the change made, and only the change?

What had to change and what had to stay are judged apart, because a system that hands back its input keeps all the rest and
makes no change: it is the baseline `copy_input`.
"""

from functools import partial

from plait.evaluation.bench import Bench, describe_policies
from plait.evaluation.figures import Figure, Record, summarise
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import describe_finding, describe_scene, imagine, score_edit
from plait.worlds.emoji.stories import follow

ABOUT = {"edits": ("editing", "share of instructions after which the picture shows the change, and only the change")}


def judge_edits(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Carry out the instructions of a split.

    Returns:
        figures `<split>/edits` with `_change`, `_rest` and `_unrecognisable`, beside `copy_input`.
    """
    key = f"{split}/edits"
    documents = bench.take(bench.world.source("edits", split), name=lambda d: (d.spans[0].image_id, d.spans[1].text))
    states = [[Scene.from_json(state) for state in document.meta["states"]] for document in documents]
    prompts = [
        bench.model.template.edit_prompt(bench.show(document.spans[0].image_id), document.spans[1].text)
        for document in documents
    ]
    completions = bench.complete(key, prompts)
    pictures = bench.illustrate(completions)
    seen = bench.judge.see([shown[-1] for shown in pictures])
    judges = [partial(score_edit, before=before, after=after) for before, after in states]
    records = []
    for document, completion, shown, finding, judge in zip(documents, completions, pictures, seen, judges, strict=True):
        expected, found = describe_scene(Scene.from_json(document.meta["scene"])), describe_finding(finding)
        cluster = document.spans[0].image_id
        facts = (expected, found, cluster, completion.seed)
        records.append(Record(key, completion.document, shown, judge(finding), *facts, prompt=completion.prompt))
    names = ("chance", "majority", "shuffled", "colour_only", "object_only")
    baselines = blind.score([after for _, after in states], judges, names)
    if blind.lookup is not None:  # it reads the picture, and the instruction by the grammar of stories
        read = [follow(blind.lookup.read(d.spans[0].image_id), d.spans[1].text) for d in documents]
        baselines |= blind.look_up_drawn(read, judges)
    baselines["copy_input"] = [judge(imagine(before.things)) for (before, _), judge in zip(states, judges, strict=True)]
    return summarise(key, records, baselines, describe_policies(bench.policies)), records
