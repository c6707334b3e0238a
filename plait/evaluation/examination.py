"""What an examination is, and what a world that asks by itself has to say about its own.

An examination turns a bench and a split into figures and the judged items behind them. It is handed what systems answer that are blind to
part of the task (`Examinations.prepare`), so that no figure stands without its baselines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from plait.evaluation.about import About
from plait.evaluation.bench import Bench
from plait.evaluation.figures import Figure, Record
from plait.protocols import Judge, Policy

Judged = tuple[dict[str, Figure], list[Record]]


@dataclass(frozen=True)
class Examination:
    """One examination.

    Args:
        judge: (bench, blind answers of `Examinations.prepare`, split) -> figures and records. It raises `UnaskableError` where the model
            cannot be asked.
        needs_pictures: a language model without pictures is not asked.
        draws: pictures are drawn or decoded, so it matters how they are sampled.
        divisor: of the prompts, for examinations whose prompts are long.
    """

    judge: Callable[[Bench, Any, str], Judged]
    needs_pictures: bool = True
    draws: bool = True
    divisor: int = 1

    def __call__(self, bench: Bench, blind: Any, split: str) -> Judged:
        """See `judge`."""
        return self.judge(bench, blind, split)


@dataclass(frozen=True)
class Choice:
    """The chosen image policy and what every candidate reached on val; where there was nothing to choose by, no shares."""

    name: str
    policy: Policy
    shares: dict[str, float]


@runtime_checkable
class Examinations(Protocol):
    """What a world asks (`plait.protocols.World.examinations`)."""

    examinations: Mapping[str, Examination]
    plan: Mapping[str, Sequence[str]]
    """split -> names of examinations"""
    about: About
    judge: Judge | None
    """of its pictures, if there is one; calibrated in place"""
    training_pictures: Sequence[str]
    """ids of the pictures on which the use of codes is measured"""

    def calibrate(self, bench: Bench) -> dict[str, Any]:
        """Make the judge fit the model's tokenizer, on training pictures. Returns what there is to say about it."""

    def choose(self, bench: Bench, candidates: Mapping[str, Policy], n: int) -> Choice:
        """How pictures are sampled, chosen on `n` prompts that are not reported."""

    def prepare(self, bench: Bench, *, is_brief: bool = False) -> Any:
        """What blind systems know: computed once, and handed to every examination; briefly where nobody looks at baselines."""
