"""From judged items to figures: a mean with its interval, beside what blind systems reach on the same items.

An item is judged on several scores at once (objects, colours, places, all of it); every score becomes a figure of its own. A
figure never stands without its baselines, and these are computed from the same items by the same judge. Knows no task.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from plait.document import Document
from plait.errors import DocumentError
from plait.evaluation.statistics import bootstrap_mean

Scores = Mapping[str, float]
"""score name -> value of one item; a score that makes no sense for an item is absent"""

MAIN = "all"
"""the score that gives a task its headline figure"""
DEFECTS = ("unrecognisable", "ungrammatical")
"""scores that blind systems, which answer with scenes, never have: they get no baseline"""


@dataclass(frozen=True)
class Record:
    """One judged item, kept so that a person can look at it.

    Args:
        key: the figure it counts in, such as "test_pair/two_objects".
        document: the completed document: what the model was given and what it made.
        pictures: one per image span of the document, in its order.
        scores: score name -> value.
        expected: what would have been right, in words.
        found: what the judge read, in words.
        cluster: name of what the item shares with others (picture, story).
        seed: seed of its one sample.
        asked: what was asked, where `expected` depends on what the model itself wrote; otherwise empty.
        part_of: the figure in which this one is averaged with others; empty: none.
        prompt: what the model was given, holes where it was to draw; None where nothing was generated.
    """

    key: str
    document: Document
    pictures: tuple[Image.Image, ...]
    scores: Scores
    expected: str
    found: str
    cluster: str
    seed: int = 0
    asked: str = ""
    part_of: str = ""
    prompt: Document | None = None


@dataclass(frozen=True)
class Figure:
    """A mean, its interval, its baselines, and the sampling policy behind it.

    Args:
        skipped: prompts that the model could not be asked, and `reason` why; they are in no mean. Without any other, n is 0 and
            there is no value (NaN).
    """

    value: float
    low: float
    high: float
    n: int
    baselines: Mapping[str, float] = field(default_factory=dict)
    policy: str = ""
    skipped: int = 0
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """what else the number depends on (encoder, gallery)"""

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from the majority baseline to 1 that the value has gone; None without a gap."""
        majority = self.baselines.get("majority")
        return None if majority is None or majority >= 1 else (self.value - majority) / (1 - majority)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `facts` and `gap_closed` only where there are any and where there is a gap to close."""
        result = {name: getattr(self, name) for name in ("value", "low", "high", "n", "policy")}
        result["baselines"] = dict(self.baselines)
        if self.facts:
            result["facts"] = dict(self.facts)
        if self.gap_closed is not None:
            result["gap_closed"] = self.gap_closed
        return result


def summarise(
    key: str,
    records: Sequence[Record],
    blind: Mapping[str, Sequence[Scores]] | None = None,
    policy: str = "",
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Figure]:
    """One figure per score of the records: `key` for the main score, `key_<score>` for the others.

    Args:
        blind: baseline name -> the scores it reaches on each record, in the order of the records.
        policy: how the samples were drawn, for people.
        facts: see `Figure`.

    Raises:
        DocumentError: no records, or a baseline that was not scored on every record.
    """
    if not records:
        raise DocumentError(f"Figure {key!r} has no items: the split holds no document for it. Leave the figure out by name.")
    for name, scored in (blind or {}).items():
        if len(scored) != len(records):
            raise DocumentError(f"Figure {key!r}: baseline {name!r} has {len(scored)} items, the model {len(records)}.")
    figures = {}
    for score in dict.fromkeys(name for record in records for name in record.scores):
        members = [index for index, record in enumerate(records) if score in record.scores]
        interval = bootstrap_mean(
            [records[index].scores[score] for index in members], [records[index].cluster for index in members]
        )
        baselines = {
            name: sum(scored[index][score] for index in members) / len(members)
            for name, scored in (blind or {}).items()
            if score not in DEFECTS and all(score in scored[index] for index in members)
        }
        name = key if score == MAIN else f"{key}_{score}"
        figures[name] = Figure(interval.value, interval.low, interval.high, interval.n, baselines, policy, facts=facts or {})
    return figures


def skip(key: str, num_prompts: int, reason: str) -> dict[str, Figure]:
    """The figure of what could not be asked at all."""
    return {key: Figure(math.nan, math.nan, math.nan, 0, skipped=num_prompts, reason=reason)}


def average(key: str, figures: Mapping[str, Figure], records: Sequence[Record], policy: str) -> tuple[Figure, list[Record]]:
    """The mean of several figures, each weighing the same, and their records, which now name it; clusters (pictures, stories) are
    resampled whole, over all figures at once.

    Args:
        figures: those that are averaged, by name; what was skipped among them is added up.
        records: theirs, in any order.
    """
    asked = {name: figure for name, figure in figures.items() if figure.n}
    skipped = sum(figure.skipped for figure in figures.values())
    reason = "; ".join(dict.fromkeys(figure.reason for figure in figures.values() if figure.reason))
    named = [replace(record, part_of=key) for record in records]
    if not asked:
        return skip(key, skipped, reason)[key], named
    weights = {name: len(records) / (len(asked) * figure.n) for name, figure in asked.items()}
    interval = bootstrap_mean(
        [weights[record.key] * record.scores[MAIN] for record in records], [record.cluster for record in records]
    )
    first, *others = (figure.baselines for figure in asked.values())
    shared = [name for name in first if all(name in other for other in others)]
    baselines = {name: sum(figure.baselines[name] for figure in asked.values()) / len(asked) for name in shared}
    # the mean of the items is the same up to rounding, which may not put it outside its interval
    value = sum(figure.value for figure in asked.values()) / len(asked)
    low, high = min(interval.low, value), max(min(interval.high, 1.0), value)
    found = Figure(value, low, high, interval.n, baselines, policy, skipped, reason)
    return found, named
