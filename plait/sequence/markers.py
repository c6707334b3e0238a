"""Markers in texts: the strings that stand for one id, who may write them, and the refusal of those that somebody typed.

A template writes markers into the texts that it words; what others write (prompts, questions, messages, rows) is text. So whatever comes
from others is looked at before it is worded (`refuse_markers`), and a special id of the text tokenizer that no marker of the wording asked
for is refused by the layout. Nothing that is typed acts as a marker.
"""

import re
from collections.abc import Iterable, Mapping

from plait.errors import MarkerError

UNCONDITIONAL, BEGIN_IMAGE, END_IMAGE, END = "<unconditional>", "<boi>", "<eoi>", "<eos>"
"""How markers are written in the text of a document, whatever the text tokenizer calls them (Liquid: specs section 4). An end inside a
document stands after every answer of a released dialogue. Those of images belong to prompts only: a begin marker in a text is no
image, and such a document cannot be read back."""
WRITTEN: Mapping[str, str] = {
    UNCONDITIONAL: "unconditional",
    BEGIN_IMAGE: "begin_image",
    END_IMAGE: "end_image",
    END: "end_document",
}
MARKED = re.compile(r"<\|?\w+\|?>")
"""How a wording writes strings that are one id: <start_of_turn>, <|im_start|>."""


def find_marks(texts: Iterable[str]) -> tuple[str, ...]:
    """The markers that a wording writes, `WRITTEN` apart."""
    return tuple(sorted({mark for text in texts for mark in MARKED.findall(text)} - set(WRITTEN)))


def match_any(marks: Iterable[str]) -> re.Pattern[str]:
    """Finds each of these strings; nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))) or r"(?!)")


def refuse_markers(text: str, marks: re.Pattern[str], origin: str) -> None:
    """Refuse a text that somebody wrote and that holds a marker.

    Args:
        marks: of the wording, those of `WRITTEN` among them.
        origin: what the message calls the text.

    Raises:
        MarkerError: naming the marker.
    """
    found = marks.search(text)
    if found:
        raise MarkerError(
            f"{origin} holds {found[0]!r}, which only the wording of the model may write, expected no marker of the model: {text[:200]!r}. "
            "Next: reword it."
        )
