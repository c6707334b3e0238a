"""Documents of the data in the wording of a chat: what systems share whose tasks are turns of a dialogue.

A system says its `ChatWording` and how it words a pair of caption and picture; questions, edits, stories and plain texts follow from
their shape. Published systems word pairs each in their own way, and turns alike.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.sequence.chat import ChatWording, Message, jinja_template, read_chat, write_chat
from plait.sequence.markers import WRITTEN, find_marks, match_any, refuse_markers


class DialogueTemplate:
    """`plait.protocols.Template` and `PromptTemplate` but for the wording of pairs, which a subclass writes.

    Args:
        seed: of the choices; a document's wording depends on (seed, counter) alone.
    """

    wording: ClassVar[ChatWording]
    picture_in_chat: ClassVar[str]
    """what a chat template of transformers writes for a picture"""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """See `plait.protocols.Template`."""
        return find_marks((*self.texts(), self.wording.user, self.wording.assistant, self.wording.end))

    @cached_property
    def _markers(self) -> re.Pattern[str]:
        return match_any({*WRITTEN, *self.marks})

    def plain(self, text: str, origin: str = "The text") -> str:
        """A text that is not the template's own, as it is.

        Raises:
            MarkerError: it holds a marker.
        """
        refuse_markers(text, self._markers, origin)
        return text

    def wrap(self, document: Document, counter: int) -> Document:
        """See `plait.protocols.Template`. The shape of a document says what it is, so user data needs no labels: a caption and an
        image without loss are a pair; an image with questions and answers becomes chat turns, and so does an image with an instruction
        and a picture as the answer; whatever else carries loss (stories, plain text) stays as it is.

        Raises:
            RecipeError: nothing in the document carries loss, and it is no pair.
            MarkerError: a text holds a marker.
        """
        if document.is_worded:
            return document
        for index, span in enumerate(document.spans):
            if isinstance(span, TextSpan):
                self.plain(span.text, f"Document {document.id!r}, span {index}:")
        shape = "".join("t" if isinstance(span, TextSpan) else "i" for span in document.spans)
        losses = [span.loss for span in document.spans]
        if shape == "ti" and not any(losses):
            # a name of its own: numbers that also choose the source (plait.data.mixture) would tie the direction to it
            return self._pair(document, random.Random(f"wording/{self.seed}/{counter}"))
        if not any(losses):
            raise RecipeError(
                f"Document {document.id!r} ({len(losses)} spans) carries no loss anywhere and is no pair of caption and image: "
                "nothing could be learned from it. Mark the spans that the model shall write."
            )
        if shape == "iti" and losses == [False, False, True]:
            return self._turn(document)
        if shape[0] == "i" and "i" not in shape[1:] and losses[1:] == [False, True] * (len(losses) // 2):
            return self._questions(document)
        spans = tuple(as_codes(span) if isinstance(span, ImageSpan) else span for span in document.spans)
        return replace(document, spans=spans)

    def _pair(self, document: Document, choice: random.Random) -> Document:
        raise NotImplementedError

    def _questions(self, document: Document) -> Document:
        image, *turns = document.spans
        wording, spans = self.wording, [TextSpan(self.wording.user), as_codes(image)]
        for index in range(0, len(turns), 2):
            question, answer = turns[index : index + 2]
            opening = "\n" if index == 0 else wording.user
            spans += [
                TextSpan(f"{opening}{question.text}{wording.end}{wording.assistant}"),
                TextSpan(f"{answer.text}{wording.end}", loss=True),
            ]
        return replace(document, spans=tuple(spans))

    def _turn(self, document: Document) -> Document:
        before, instruction, after = document.spans
        wording = self.wording
        question = TextSpan(f"\n{instruction.text}{wording.end}{wording.assistant}")
        answer = (as_codes(after, loss=True, begin_loss=True), TextSpan(wording.end, loss=True))
        return replace(document, spans=(TextSpan(wording.user), as_codes(before), question, *answer))

    def question_prompt(self, image: ImageSpan, question: str) -> Document:
        """A chat turn about a picture; the answer ends with the end of the turn."""
        wording, question = self.wording, self.plain(question, "The question")
        spans = (TextSpan(wording.user), as_codes(image), TextSpan(f"\n{question}{wording.end}{wording.assistant}"))
        return Document(spans, ends=False)

    def edit_prompt(self, image: ImageSpan, instruction: str) -> Document:
        """A chat turn that asks for a changed picture; ends in a hole."""
        prompt = self.question_prompt(image, instruction)
        return replace(prompt, spans=(*prompt.spans, ImageSpan("drawn", form="codes")))

    def story_prompt(self, spans: Sequence[TextSpan | ImageSpan]) -> Document:
        """The beginning of a story; holes where pictures are to be drawn."""
        for span in spans:
            if isinstance(span, TextSpan):
                self.plain(span.text, "The story")
        return Document(tuple(as_codes(s) if isinstance(s, ImageSpan) else s for s in spans), ends=False)

    def chat(self, messages: Sequence[Message], id: str = "") -> Document:
        """Messages with content blocks -> a dialogue, or a prompt where the last word is the user's (`plait.sequence.chat`)."""
        return write_chat(messages, self.wording, id)

    def messages(self, document: Document) -> list[dict[str, Any]]:
        """The messages of a dialogue, generated or not: the inverse of `chat`."""
        return read_chat(document, self.wording)

    def chat_template(self) -> str:
        """The wording of `chat` for `apply_chat_template` of transformers."""
        return jinja_template(self.wording, self.picture_in_chat)

    def answer(self, text: str) -> str:
        """Generated text without the wording of the template."""
        return text.replace(self.wording.end.strip(), "").strip()


def as_codes(span: ImageSpan, *, loss: bool | None = None, begin_loss: bool | None = None) -> ImageSpan:
    """The image in the form of its codes."""
    return replace(
        span,
        form="codes",
        loss=span.loss if loss is None else loss,
        begin_loss=span.begin_loss if begin_loss is None else begin_loss,
    )
