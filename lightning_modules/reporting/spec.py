"""A report as data: sections of tables, curves and pictures, in which every number says where it comes from.

A number is its value and what it was read from: the id of a run, a file of that run and a key in it; a number over several runs
names them all, and the rule that makes one of them. So a page can be checked later against the files (`verification`), and every
target shows the same numbers. The spec knows neither HTML nor W&B, nor how a key is read (`sources`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """Where a value lies.

    Args:
        run: id of the job that wrote it (job.json).
        file: relative to the folder of the run.
        key: of metrics.jsonl the name of a metric (its last value), of a JSON file the way down, joined by " > ".
    """

    run: str
    file: str
    key: str


@dataclass(frozen=True)
class Number:
    """A value that can be read again; `rule` is one of `sources.RULES`, `form` a format specification."""

    value: float
    sources: tuple[Source, ...]
    rule: str = "value"
    form: str = ".3f"

    @property
    def text(self) -> str:
        """As every target shows it."""
        if isinstance(self.value, float) and not math.isfinite(self.value):
            return repr(self.value)
        return format(self.value, self.form)


@dataclass(frozen=True)
class Term:
    """A name that is explained where it stands."""

    text: str
    about: str = ""


Cell = str | Number | Term
"""A word in backticks is a name to be copied (an id, a hash), never a number"""


@dataclass(frozen=True)
class Table:
    """Rows under columns; `is_folded` keeps it closed until it is asked for."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    is_folded: bool = False

    @property
    def numbers(self) -> Iterator[Number]:
        """Those of the cells, in order."""
        return (cell for row in self.rows for cell in row if isinstance(cell, Number))


@dataclass(frozen=True)
class Prose:
    """Sentences in which every number says where it comes from."""

    sentences: tuple[tuple[str | Number, ...], ...]

    @property
    def numbers(self) -> Iterator[Number]:
        """Those of the sentences, in order."""
        return (piece for sentence in self.sentences for piece in sentence if isinstance(piece, Number))


@dataclass(frozen=True)
class Bar:
    """A figure between 0 and 1 with its interval, beside the best answer that did not need the skill."""

    name: Term
    value: Number
    low: Number
    high: Number
    blind: Number | None = None
    blind_name: str = ""

    @property
    def numbers(self) -> tuple[Number, ...]:
        """As they are shown."""
        return (self.value, self.low, self.high, *((self.blind,) if self.blind else ()))


@dataclass(frozen=True)
class Chart:
    """Bars one below the other."""

    bars: tuple[Bar, ...]
    title: str = ""

    @property
    def numbers(self) -> Iterator[Number]:
        """Those of the bars, in order."""
        return (number for bar in self.bars for number in bar.numbers)


@dataclass(frozen=True)
class Curve:
    """The series of one metric of one run, or every k-th point of it."""

    label: str
    source: Source
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Plot:
    """Curves of one metric on one pair of axes."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Picture:
    """A picture file of a run; what has the highest `rank` is left out first where a page would grow too large, 0 never is."""

    title: str
    run: str
    file: str
    is_folded: bool = True
    rank: int = 1


@dataclass(frozen=True)
class Samples:
    """Interleaved samples of a run: the first `count` cards of one of its files of samples."""

    title: str
    run: str
    file: str
    count: int
    is_folded: bool = True
    rank: int = 1


@dataclass(frozen=True)
class Strip:
    """A few samples of several kinds in one row: what it looks like, at a glance."""

    samples: tuple[Samples, ...]


@dataclass(frozen=True)
class Link:
    """A weight file in a lineage: what it is called, its identity, and the identities of what it started from, by part."""

    name: str
    identity: str
    parents: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Lineage:
    """Links in order: parents stand before what came from them."""

    links: tuple[Link, ...]


@dataclass(frozen=True)
class Text:
    """A paragraph; with a title, words to unfold as they are (a config, a list of packages)."""

    text: str
    title: str = ""


Block = Prose | Strip | Chart | Table | Plot | Picture | Samples | Lineage | Text


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on how to read what stands below it, and the blocks."""

    title: str
    blocks: tuple[Block, ...]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The whole.

    Args:
        folders: id of every run that is named -> its folder.
        tracked: id of a run -> ids under which W&B knows it.
        configurations: id of a run -> its configuration, which it shares with its repetitions.
    """

    title: str
    sections: tuple[Section, ...]
    folders: Mapping[str, str]
    tracked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    configurations: Mapping[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> Iterator[Number]:
        """Every number of sentences, charts and tables, in reading order."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Prose | Chart | Table):
                    yield from block.numbers
