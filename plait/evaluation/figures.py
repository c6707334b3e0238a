"""From judged items to figures: a mean with its interval, beside what blind systems reach on the same items.

An item is judged on several scores at once (objects, colours, places, all of it); every score becomes a figure of its own. A
figure never stands without its baselines, and these are computed from the same items by the same judge. Knows no task.

What stands among the baselines is one of three things, here and wherever figures are shown:

- a *blind answer* does not see all of what is asked: the most frequent answer, the question without the picture, the input handed back,
  what stands where without the colours. `gap_closed` is the share of the way from the best of them to 1 that the figure has gone, and
  `gap_from` names it. A blind answer that is always right leaves no gap;
- a *lookup* (`LOOKUPS`) sees everything and computes nothing: a seen scene, or seen blocks in seen slots. A figure that does not exceed
  the best lookup says that what was seen is found again and put together, and nothing beyond; a lookup that is right leaves a gap all the
  same, as a model has to learn what the table is given;
- the rest (`NO_ANSWERS`) is no answer to what was asked: what the judge makes of the originals, or the same model in its usual wording.
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
LOOKUPS = ("nearest_caption", "slot_lookup")
NO_ANSWERS = ("original", "usual_wording")
NO_SHARES = ("slope", "pixel_error")
"""scores that are no shares of right answers: they have no gap"""
GAIN = "_gain"
"""in the names of figures that are differences of shares, item by item"""
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
    is_share: bool = True
    """whether it is a share of right answers, of which 1 is all"""

    @property
    def gap_closed(self) -> float | None:
        """Share of the way from the best blind answer to 1 that the value has gone; None without a gap."""
        return stand(self.value, self.low, self.baselines).get("gap_closed") if self.is_share else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `facts` only where there are any, what `stand` says only of shares."""
        result = {name: getattr(self, name) for name in ("value", "low", "high", "n", "policy")}
        result["baselines"] = dict(self.baselines)
        if self.facts:
            result["facts"] = dict(self.facts)
        return result | (stand(self.value, self.low, self.baselines) if self.is_share else {})


def stand(value: float, low: float, baselines: Mapping[str, float]) -> dict[str, Any]:
    """Where a share of right answers stands among its baselines; each entry only where there is something to say.

    Args:
        low: end of the interval of the value.

    Returns:
        gap_from: name of the best blind answer; gap_closed, where that leaves a gap; lookup: name of the best lookup; exceeds_lookup:
        whether the whole interval lies above it.
    """
    blind, lookup = find_best_blind(baselines), find_best_lookup(baselines)
    found: dict[str, Any] = {}
    if blind is not None:
        found["gap_from"] = blind[0]
        if blind[1] < 1:
            found["gap_closed"] = (value - blind[1]) / (1 - blind[1])
    if lookup is not None:
        found |= {"lookup": lookup[0], "exceeds_lookup": low > lookup[1]}
    return found


def find_best_blind(baselines: Mapping[str, float]) -> tuple[str, float] | None:
    """Name and value of the best blind answer among baselines (the first of equally good ones); None without any."""
    return _find_best({name: value for name, value in baselines.items() if name not in (*LOOKUPS, *NO_ANSWERS)})


def find_best_lookup(baselines: Mapping[str, float]) -> tuple[str, float] | None:
    """The same of lookups."""
    return _find_best({name: value for name, value in baselines.items() if name in LOOKUPS})


def _find_best(values: Mapping[str, float]) -> tuple[str, float] | None:
    return max(values.items(), key=lambda item: item[1], default=None)


def summarise(
    key: str,
    records: Sequence[Record],
    blind: Mapping[str, Sequence[Scores]] | None = None,
    policy: str = "",
    facts: Mapping[str, Any] | None = None,
    is_share: bool = True,
) -> dict[str, Figure]:
    """One figure per score of the records: `key` for the main score, `key_<score>` for the others.

    Args:
        blind: baseline name -> the scores it reaches on each record, in the order of the records.
        policy: how the samples were drawn, for people.
        facts, is_share: see `Figure`; scores of `NO_SHARES` are none in any case.

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
        ends = (interval.value, interval.low, interval.high, interval.n)
        figures[name] = Figure(*ends, baselines, policy, facts=facts or {}, is_share=is_share and score not in NO_SHARES)
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
