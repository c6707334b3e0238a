"""How a report begins: what it looks like, a few sentences of verdict, and a chart.

Every sentence is made from figures and says what their intervals say, so it cannot contradict them; what is worse than expected, or no
better than an answer that did not need the skill, is said first.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lightning_modules.reporting.groups import Groups, find_number
from lightning_modules.reporting.results import list_values
from lightning_modules.reporting.sources import EVALUATION, METRICS, Place, Reader
from lightning_modules.reporting.spec import Bar, Block, Chart, Number, Prose, Samples, Section, Source, Strip, Term
from plait.evaluation.about import About
from plait.evaluation.figures import find_best_blind, find_best_lookup

Sentence = tuple[str | Number, ...]
Expected = Mapping[str, Sequence[float]]
"""figure name -> (lowest, highest) that the recipe is held to"""
CHANGES = {
    "context_gain": "solved examples before the prompt change the share of right answers by ",
    "interleaved_slope": "each further picture of a row changes the share of right ones by ",
}
"""figures that are changes -> what they change"""
SURE = 0.95
"""from here on "nearly always\""""
MOST = 5
"""figures that a sentence names"""


def open_report(reader: Reader, runs: Sequence[Place], evaluations: Groups, expected: Expected | None = None) -> Section:
    """The first section.

    Args:
        evaluations: configuration -> its evaluations; the first two are told, the rest stands in the tables.
        expected: of figures; what lies below is said first.
    """
    blocks: list[Block] = []
    told = list(evaluations.items())[:2]
    strips = [_show_evaluation(reader, places[0]) for _, places in told] or [_show_runs(runs)]
    blocks += [Strip(strip) for strip in strips if strip]
    sentences = list(_tell_runs(reader, runs))
    for configuration, places in told:
        judged = _judge(reader, places, expected or {})
        sentences += [(f"{configuration}: ", *sentence) for sentence in judged] if len(evaluations) > 1 else judged
    if not evaluations:
        sentences.append(("Nothing was examined: no figure says how well it does. Next: plait-evaluate run=<folder>.",))
    blocks.append(Prose(tuple(sentences)))
    for configuration, places in told:
        blocks.append(_draw_chart(reader, places, configuration if len(evaluations) > 1 else ""))
    return Section("At a glance", tuple(block for block in blocks if not isinstance(block, Chart) or block.bars))


def _show_evaluation(reader: Reader, place: Place) -> tuple[Samples, ...]:
    about, results = reader.about(place.folder), reader.json(place.folder / EVALUATION)["results"]
    splits = sorted(dict.fromkeys(key.split("/")[0] for key in results), key=partial(_order, about))
    found = []
    for name, skill in about.shown.items():
        files = (f"samples/{split}-{name}.json" for split in splits)
        if file := next((file for file in files if (place.folder / file).is_file()), None):
            found.append(Samples(about.name_skill(skill), place.id, file, 1, rank=0))
    return tuple(found[: MOST - 1])


def _show_runs(runs: Sequence[Place]) -> tuple[Samples, ...]:
    """The last samples of the last run, or one of each of the last runs."""
    found = []
    for run in runs[::-1][:MOST]:
        for file in sorted((run.folder / "samples").glob("*.json"))[-1:]:
            found.append(
                Samples(run.label, run.id, file.relative_to(run.folder).as_posix(), 3 if len(runs) == 1 else 1, rank=0)
            )
    return tuple(found[:3])


def _order(about: About, key: str) -> tuple[bool, int]:
    """Splits that ask something new first, in the order in which they are told."""
    split = key.split("/")[0]
    known = [*(name for name in about.splits if name not in about.recall), *about.recall]
    return split not in known, known.index(split) if split in known else 0


def _tell_runs(reader: Reader, runs: Sequence[Place]) -> Iterator[Sentence]:
    """What went wrong while training, and where the loss of the last stage ended."""
    states = {run.label: reader.run(run.folder).passport["state"] for run in runs}
    unfinished = [f"{label} ({state})" for label, state in states.items() if state != "finished"]
    if unfinished:
        yield (f"Not finished: {', '.join(unfinished)}.",)
    proofs = {run.label: reader.run(run.folder).ledger.proof for run in runs}
    broken = [label for label, proof in proofs.items() if proof is not None and not proof.is_kept]
    if broken:
        yield (f"Not kept: the proof of {', '.join(broken)} (frozen tensors changed, or trained ones did not move).",)
    last = [run for run in runs if "val/loss" in reader.run(run.folder).metrics.keys][-1:]
    if last and not any((run.folder / EVALUATION).is_file() for run in runs) and len(runs) == 1:
        yield ("The loss on held-out data ended at ", reader.number([Source(last[0].id, METRICS, "val/loss")]), ".")


def _judge(reader: Reader, places: Sequence[Place], expected: Expected) -> Iterator[Sentence]:
    """A few sentences on one configuration."""
    about, results = reader.about(places[0].folder), reader.json(places[0].folder / EVALUATION)["results"]
    name_skill = about.name_skill
    keys = [key for key in results if about.is_headline(key) and _is_share(results[key])]
    values = {key: list_values(reader, key, places) for key in keys}
    below = [key for key in keys if key in expected and values[key][0].value < expected[key][0]]
    if below:
        found = _join(
            ((f"{name_skill(key)} ({key}) ", values[key][0], f", expected {expected[key][0]:.2f} or more") for key in below),
            "; ",
        )
        yield ("Below what is expected: ", *found, ". Another seed may do better.")
    new = sorted((key for key in keys if not about.is_recall(key)), key=partial(_order, about))
    asked = [key for key in new or keys if _is_skill(about, key)]
    blind = {key: best[1] for key in asked if (best := find_best_blind(results[key]["baselines"]))}
    weak = [key for key in asked if key in blind and values[key][1].value <= blind[key]]
    sure = [key for key in asked if key not in weak and values[key][1].value >= SURE]
    rest = [key for key in asked if key not in weak and key not in sure]
    for words, members in (
        ("No better than an answer that does not need the skill", weak),
        (f"Nearly always right (the low end of the interval is {SURE} or more)", sure),
        ("Better than that, and not nearly always right", [key for key in rest if key in blind]),
        ("Not nearly always right, and without an answer to compare with", [key for key in rest if key not in blind]),
    ):
        if members:
            equal = [key for key in members if key not in weak and _is_looked_up(results[key], values[key])]
            yield (*_list(about, words, members, values), *_tell_lookups(about, equal))
    losses = [key for key in results if about.is_headline(key) and key.split("/")[1] in about.losses]
    if losses:
        costs = ((*list_values(reader, key, places)[:1], f" {about.explain(key)}") for key in losses[:MOST])
        yield ("What unseen documents cost it: ", *_join(costs, "; "), ".")
    changes = {key: list_values(reader, key, places) for key in results if key.split("/")[1] in CHANGES}
    worse = [key for key, (_, _, high) in changes.items() if high.value < 0]
    if worse:
        said = _join(((f"on {key.split('/')[0]} {CHANGES[key.split('/')[1]]}", changes[key][0]) for key in worse), "; ")
        yield ("For the worse (the whole interval is below 0): ", *said, ".")
    yield (_tell_seeds(len(places)),)


def _list(about: About, words: str, keys: Sequence[str], values: Mapping[str, Sequence[Number]]) -> Sentence:
    said: list[Sentence] = []
    for split in dict.fromkeys(key.split("/")[0] for key in keys):
        own = [key for key in keys if key.split("/")[0] == split]
        named = _join(((f"{about.name_skill(key)} ", values[key][0]) for key in own[:MOST]), ", ")
        more = f" and {len(own) - MOST} more" if len(own) > MOST else ""
        meaning = f" ({about.splits[split]})" if split in about.splits else ""
        said.append((f"on {split}{meaning} ", *named, more))
    return (f"{words}: ", *_join(iter(said), "; "), ".")


def _tell_seeds(seeds: int) -> str:
    if seeds == 1:
        return "All of this is one run with one seed: intervals are over items, and another seed may do otherwise."
    few = " Fewer than three name no winner." if seeds < 3 else ""
    return f"All of this is a mean over {seeds} seeds; intervals are over seeds and items.{few}"


def _join(parts: Iterator[Sentence], between: str) -> list[str | Number]:
    joined: list[str | Number] = []
    for part in parts:
        joined += [between, *part] if joined else part
    return joined


def _is_looked_up(figure: Mapping[str, Any], values: Sequence[Number]) -> bool:
    lookup = find_best_lookup(figure["baselines"])
    return lookup is not None and values[1].value <= lookup[1]


def _tell_lookups(about: About, keys: Sequence[str]) -> tuple[str, ...]:
    if not keys:
        return ()
    named = dict.fromkeys(f"{about.name_skill(key)} ({key.split('/')[0]})" for key in keys)
    return (f" A table of what was seen, without a model, does as well on {', '.join(named)}.",)


def _is_skill(about: About, key: str) -> bool:
    return about.name_skill(key) != key.split("/")[1]


def _is_share(figure: Mapping[str, Any]) -> bool:
    return 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


def _draw_chart(reader: Reader, places: Sequence[Place], title: str) -> Chart:
    about, results = reader.about(places[0].folder), reader.json(places[0].folder / EVALUATION)["results"]
    bars = []
    keys = [key for key in results if about.is_headline(key) and _is_skill(about, key) and _is_share(results[key])]
    new = [key for key in keys if not about.is_recall(key)]
    for key in sorted(new or keys, key=partial(_order, about)):
        best = find_best_blind(results[key]["baselines"])
        blind = find_number(reader, places[0], EVALUATION, "results", key, "baselines", best[0]) if best else None
        bars.append(
            Bar(Term(key, about.explain(key)), *list_values(reader, key, places), blind or None, best[0] if best else "")
        )
    return Chart(tuple(bars), title)
