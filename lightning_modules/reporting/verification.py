"""Read every number of a written report again from the files of the run it names, and say what differs.

A number holds if its run is where the page says (or where the reader says), its sources give the same value to the last bit, and
the page shows that value. A point of a curve holds if its file has that value at that step. A cell that is a number and names no
file is not verifiable, and neither is a report without any number. Pictures and prose are not read.
"""

import html.parser
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_modules.reporting.markdown import BEGIN, END
from lightning_modules.reporting.sources import METRICS, Reader
from lightning_modules.reporting.spec import Number, Source
from lightning_modules.reporting.workspace import read_sources
from plait.errors import CheckpointError, PlaitError

NUMERIC = re.compile(r"[-+]?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?%?|nan|-?inf", re.IGNORECASE)
"""a whole cell that reads as a number"""
HEADER = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)
"""of a card: facts for machines, no numbers of the page"""
BOLD = re.compile(r"(?<!\\)\*\*([^*]+)\*\*")
"""how a number stands in a sentence of Markdown"""


@dataclass
class Claims:
    """What a report claims: its runs, its numbers with the text that is shown, the points of its curves, and bare numbers."""

    folders: dict[str, str] = field(default_factory=dict)
    numbers: list[tuple[str, Number]] = field(default_factory=list)
    curves: list[tuple[Source, list[tuple[int, float]]]] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """How many numbers and points were read again, and a sentence for each that does not hold.

    Args:
        wrong: the files say something else, or the page shows something else than it states.
        unverified: nothing can be compared.
    """

    numbers: int
    points: int
    wrong: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether every number holds."""
        return not self.wrong and not self.unverified


def verify_report(path: Path | str, folders: Mapping[str, Path | str] | None = None) -> Verdict:
    """Verify a page (.html), a Markdown file (.md) or a W&B report (.json).

    Args:
        folders: id of a run -> its folder, for runs that lie elsewhere now; the others are where the report says.

    Raises:
        CheckpointError: the report cannot be read.
    """
    path = Path(path)
    claims = _read_claims(path)
    known = {run: path.parent / folder for run, folder in claims.folders.items()}
    reader = Reader(known | dict(folders or {}))
    wrong, unverified = [], [f"{text!r} is a number without a source" for text in claims.bare]
    if not claims.numbers:
        unverified.append(f"{path} holds no number that names its source")
    for text, number in claims.numbers:
        where = (
            f"{number.sources[0].file}, {number.sources[0].key!r}, run {number.sources[0].run}"
            if number.sources
            else "no source"
        )
        try:
            found = reader.value(number.sources, number.rule)
        except (PlaitError, KeyError, IndexError, ValueError) as error:
            unverified.append(f"{text} ({where}): {error}")
            continue
        if not _equal(found, number.value):
            wrong.append(f"{where} ({number.rule}): the report states {number.value!r}, the files say {found!r}")
        if text != number.text:
            wrong.append(f"{where}: the report shows {text}, its value is {number.text}")
    for source, points in claims.curves:
        wrong_here, lost = _compare_curve(reader, source, points)
        wrong += wrong_here
        unverified += lost
    return Verdict(len(claims.numbers), sum(len(points) for _, points in claims.curves), tuple(wrong), tuple(unverified))


def _compare_curve(reader: Reader, source: Source, points: list[tuple[int, float]]) -> tuple[list[str], list[str]]:
    where = f"curve of {source.key!r}, run {source.run}"
    try:
        if source.file != METRICS:
            raise CheckpointError(f"{source.file} holds no series")
        found = set(zip(*reader.run(reader.folder(source.run)).metrics.series(source.key), strict=True))
    except CheckpointError as error:
        return [], [f"{where}: {error}"]
    strange = [point for point in points if point not in found]
    return ([f"{where}: {len(strange)} of {len(points)} points are not in the file, first {strange[0]}"] if strange else []), []


def _equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _parse(value: str) -> float:
    return int(value) if re.fullmatch(r"-?\d+", value) else float(value)


class _Parser(html.parser.HTMLParser):
    """Claims of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()
        self.number: Number | None = None
        self.shown = ""
        self.cell: str | None = None
        self.is_code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "meta" and given.get("name") == "plait-runs":
            self.claims.folders = json.loads(given["content"])
        elif tag == "data":
            sources = tuple(Source(*source) for source in json.loads(given["data-sources"]))
            self.number, self.shown = Number(_parse(given["value"]), sources, given["data-rule"], given["data-form"]), ""
        elif tag == "polyline" and "data-source" in given:
            pairs = (pair.split(",") for pair in given["points"].split())
            # a curve of one point is drawn by saying it twice
            points = list(dict.fromkeys((int(step), float(value)) for step, value in pairs))
            self.claims.curves.append((Source(*json.loads(given["data-source"])), points))
        elif tag == "td":
            self.cell = ""
        self.is_code |= tag == "code"

    def handle_data(self, data: str) -> None:
        if self.number is not None:
            self.shown += data
        elif self.cell is not None and not self.is_code:
            self.cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self.number is not None:
            self.claims.numbers.append((self.shown, self.number))
            self.number = None
        elif tag == "td":
            self.claims.bare += [self.cell.strip()] if NUMERIC.fullmatch((self.cell or "").strip()) else []
            self.cell = None
        elif tag == "code":
            self.is_code = False


def is_report(path: Path | str) -> bool:
    """Whether a file is a report, which a newer one may replace."""
    try:
        claims = _read_claims(Path(path))
    except CheckpointError:
        return False
    return bool(claims.folders or claims.numbers)


def _read_claims(path: Path) -> Claims:
    try:
        text = path.read_text(encoding="utf-8")
        return _read_page(text) if path.suffix == ".html" else _read_markdown(_markdown_of(text, path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no report of plait-report, or damaged: {error!r}. Expected .html, .md or .json."
        ) from error


def _read_page(text: str) -> Claims:
    parser = _Parser()
    parser.feed(text)
    return parser.claims


def _read_markdown(text: str) -> Claims:
    """Numbers are matched with the list by their order: one that was added, left out or changed is found."""
    body, _, rest = text.rpartition(BEGIN)
    listed = json.loads(rest.partition(END)[0])
    shown = list(_numeric_cells(body))
    entries = listed["numbers"]
    claims = Claims(folders=listed["runs"], bare=shown[len(entries) :])
    for i, entry in enumerate(entries):
        sources = tuple(Source(*source) for source in entry["sources"])
        number = Number(_parse(entry["value"]), sources, entry["rule"], entry["form"])
        claims.numbers.append((shown[i] if i < len(shown) else "nothing", number))
    return claims


def _numeric_cells(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith("| "):
            yield from (cell.strip() for cell in line.strip("| ").split(" | ") if NUMERIC.fullmatch(cell.strip()))
        else:
            yield from (bold for bold in BOLD.findall(line) if NUMERIC.fullmatch(bold))


def _markdown_of(text: str, path: Path) -> str:
    """A Markdown file as it is; of a W&B report all Markdown, and the list of the file of sources beside it."""
    if path.suffix != ".json":
        return HEADER.sub("", text)
    stored: Mapping[str, Any] = json.loads(text)
    tables = "\n".join(block["content"] for block in stored["spec"]["blocks"] if block["type"] == "markdown-block")
    return f"{tables}\n{BEGIN}{read_sources(stored, path)}{END}"
