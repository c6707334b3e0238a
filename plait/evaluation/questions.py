"""Questions that documents ask: what stands before a text that is to be learned, and that text as the answer.

Everything is read from the worded document, so a question is put exactly as training puts it. It knows no data and no wording.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from plait.document import Document, ImageSpan, Span, TextSpan
from plait.sequence.markers import END


@dataclass(frozen=True, eq=False)
class Question:
    """A question and its answer.

    Args:
        spans: what stands before the answer, without loss.
        answer: in plain words.
        ending: what the wording puts behind an answer.
        ends: whether the document ends with it.
        kind: of the document; "dialogue" for one that was worded without a kind.
    """

    spans: tuple[Span, ...]
    answer: str
    ending: str
    ends: bool
    kind: str
    document_id: str

    @property
    def text(self) -> str:
        """What is asked, pictures left out."""
        return " ".join(span.text for span in self.spans if isinstance(span, TextSpan))

    @property
    def images(self) -> list[ImageSpan]:
        """The pictures before the answer."""
        return [span for span in self.spans if isinstance(span, ImageSpan)]

    @property
    def cluster(self) -> str:
        """What it shares with others: its picture, or else its document."""
        return self.images[0].image_id if self.images else self.document_id

    @property
    def prompt(self) -> Document:
        """After it the model writes the answer."""
        return Document(self.spans, id=self.document_id, ends=False)

    @property
    def blindfolded(self) -> "Question":
        """The same question without its pictures."""
        return replace(self, spans=tuple(span for span in self.spans if isinstance(span, TextSpan)))

    def answered(self, answer: str) -> Document:
        """The document with an answer, the only thing in it with loss."""
        return Document((*self.spans, TextSpan(f"{answer}{self.ending}", loss=True)), id=self.document_id, ends=self.ends)


def list_questions(document: Document, template: Any) -> list[Question]:
    """The questions of a worded document: every text of a dialogue that stands alone as an answer; of other documents the last text that
    is learned and follows something."""
    spans, kind = document.spans, document.kind or "dialogue"
    places = [
        index
        for index, span in enumerate(spans)
        if index and isinstance(span, TextSpan) and span.loss and (kind != "dialogue" or _stands_alone(spans, index))
    ]
    found = []
    for index in places if kind == "dialogue" else places[-1:]:
        written = spans[index].text
        answer = template.answer(written.replace(END, ""))
        if answer and written.startswith(answer):
            before = tuple(_rest(span) for span in spans[:index])
            ends = document.ends and index + 1 == len(spans)
            found.append(Question(before, answer, written.removeprefix(answer), ends, kind, document.id))
    return found


def _stands_alone(spans: Sequence[Span], index: int) -> bool:
    return not spans[index - 1].loss and not (index + 1 < len(spans) and spans[index + 1].loss)


def _rest(span: Span) -> Span:
    return replace(span, loss=False, **({"begin_loss": False} if isinstance(span, ImageSpan) else {}))
