"""From judged items to figures: a mean with its interval, beside what blind systems reach on the same items.

An item is judged on several scores at once (objects, colours, places, all of it); every score becomes a figure of its own. A
figure never stands without its baselines, and these are computed from the same items by the same judge. Knows no task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """

    key: str
    document: Document
    pictures: tuple[Image.Image, ...]
    scores: Scores
    expected: str
    found: str
    cluster: str
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """A mean, its interval, its baselines, and the sampling policy behind it."""

    value: float
    low: float
    high: float
    n: int
    baselines: Mapping[str, float] = field(default_factory=dict)
    policy: str = ""
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
        figures[name] = Figure(interval.value, interval.low, interval.high, interval.n, baselines, policy, facts or {})
    return figures
