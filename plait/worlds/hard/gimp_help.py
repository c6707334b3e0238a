"""GIMP's help: figures that show a picture before and after an operation, as documents of editing (GFDL).

A figure counts if it shows two pictures or more, each with a caption, and exactly the first caption says that it is the original. Every
later picture makes a pair with it; what is asked is the title of the figure and the caption of that picture.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

LICENSE = "GFDL-1.2-or-later"
LEAST_SIDE = 96
"""pixels: smaller ones are icons"""

_ORIGINAL = re.compile(r"\b(original|before|without|unchanged|initial|source|no filter)\b", re.I)
_NUMBER = re.compile(r"^Figure [\d.]+\s*")


@dataclass(frozen=True)
class EditPair:
    """Two pictures and what was done.

    Args:
        name: page, number of the figure on it, number of the picture in that.
        instruction: title of the figure and caption of the second picture, without quotation marks.
    """

    name: str
    before: Path
    after: Path
    instruction: str


@dataclass
class _Figure:
    title: str = ""
    pictures: list[list[str]] = field(default_factory=list)  # [source, caption]


class _Figures(HTMLParser):
    """Figures of a page with their titles, pictures and captions."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[_Figure] = []
        self._open: list[str] = []  # classes of the divisions and titles that are open
        self._depth = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = dict(attributes)
        if tag in ("div", "p"):
            self._open.append(f"{tag}.{own.get('class') or ''}")
            if self._open[-1] == "div.figure":
                self.figures.append(_Figure())
        elif tag == "img" and "div.mediaobject" in self._open and self._is_inside():
            self.figures[-1].pictures.append([own.get("src") or "", ""])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("div", "p") and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._is_inside():
            return
        if "p.title" in self._open:
            self.figures[-1].title += data
        elif "div.caption" in self._open and self.figures[-1].pictures:
            self.figures[-1].pictures[-1][1] += data

    def _is_inside(self) -> bool:
        return bool(self.figures) and "div.figure" in self._open


def list_pairs(folder: Path) -> list[EditPair]:
    """All pairs whose files are there, in the order of the pages."""
    return [pair for page in sorted(folder.glob("*.html")) for pair in read_page(page)]


def read_page(page: Path) -> Iterator[EditPair]:
    """The pairs of a page."""
    parser = _Figures()
    parser.feed(page.read_text(encoding="utf-8", errors="replace"))
    for number, figure in enumerate(parser.figures):
        pictures = [(page.parent / source, _clean(caption)) for source, caption in figure.pictures]
        said = [bool(_ORIGINAL.search(caption)) for _, caption in pictures]
        if len(pictures) < 2 or not all(caption for _, caption in pictures) or said != [True] + [False] * (len(said) - 1):
            continue
        before = pictures[0][0]
        for place, (after, caption) in enumerate(pictures[1:], start=1):
            if before != after and before.is_file() and after.is_file():
                title = _NUMBER.sub("", _clean(figure.title))
                yield EditPair(f"{page.stem}/{number}/{place}", before, after, f"{title}: {caption}")


def _clean(text: str) -> str:
    return " ".join(re.sub(r"[“”\"]", "", text).split())
