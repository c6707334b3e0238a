"""Documents of the data in the wording of a chat: what systems share whose tasks are turns of a dialogue.

A system says its `ChatWording` and how it words a pair of caption and picture; questions, edits and every other dialogue are turns of its
chat, stories and plain texts stand as they are. Published systems word pairs each in their own way, and turns alike.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from plait.document import Document, Form, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.sequence.chat import ChatWording, Message, jinja_template, read_chat, split_turns, write_chat
from plait.sequence.markers import WRITTEN, find_marks, match_any, refuse_markers

_SHAPES = (
    "for kind='pair' one text and one image without loss, for 'dialogue' turns from a user (without loss) to a model (with loss), for "
    "'text' texts, some with loss, for 'document' anything, some with loss. Next: give the document its kind where it is made, and mark "
    "with loss=True what the model shall write."
)


class DialogueTemplate:
    """`plait.protocols.Template` and `PromptTemplate` but for the wording of pairs, which a subclass writes.

    Args:
        seed: of the choices; a document's wording depends on (seed, counter) alone.
    """

    wording: ClassVar[ChatWording]
    picture_in_chat: ClassVar[str]
    """what a chat template of transformers writes for a picture"""
    form: ClassVar[Form] = "codes"
    """of the pictures that are given; what is drawn are codes"""

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
        """See `plait.protocols.Template`. Pairs are worded as the system words them, dialogues as turns of its chat, whatever turns they
        have; texts and documents stay as they are.

        Raises:
            RecipeError: the document has no kind, or is not what its kind says, or nothing in it could be learned.
            MarkerError: a text holds a marker.
        """
        if document.is_worded:
            return document
        for index, span in enumerate(document.spans):
            if isinstance(span, TextSpan):
                self.plain(span.text, f"Document {document.id!r}, span {index}:")
        losses, images = [span.loss for span in document.spans], len(document.images)
        match document.kind:
            case "pair" if len(losses) == 2 and images == 1 and not any(losses):
                # a name of its own: numbers that also choose the source (plait.data.mixture) would tie the direction to it
                return self._pair(document, random.Random(f"wording/{self.seed}/{counter}"))
            case "dialogue" if not losses[0] and losses[-1]:
                worded = write_chat(split_turns(document), self.wording, document.id, ends_answers=False, form=self.form)
                return replace(document, spans=worded.spans, is_worded=True)
            case "text" if any(losses) and not images:
                return document
            case "document" if any(losses):
                spans = tuple(self.show(span) if isinstance(span, ImageSpan) else span for span in document.spans)
                return replace(document, spans=spans)
        shape = ", ".join(
            f"{'text' if isinstance(span, TextSpan) else 'image'}{' with loss' * span.loss}" for span in document.spans
        )
        raise RecipeError(f"Document {document.id!r} of the kind {document.kind!r} holds {shape}, expected {_SHAPES}")

    def _pair(self, document: Document, choice: random.Random) -> Document:
        raise NotImplementedError

    def show(self, image: ImageSpan) -> ImageSpan:
        """A picture in the form in which this system is given it; one that carries loss, in that in which it draws."""
        return image if image.form else replace(image, form="codes" if image.loss else self.form)

    def question_prompt(self, image: ImageSpan, question: str) -> Document:
        """A chat turn about a picture; the answer ends with the end of the turn."""
        wording, question = self.wording, self.plain(question, "The question")
        spans = (TextSpan(wording.user), self.show(image), TextSpan(f"\n{question}{wording.end}{wording.assistant}"))
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
        return Document(tuple(self.show(s) if isinstance(s, ImageSpan) else s for s in spans), ends=False)

    def chat(self, messages: Sequence[Message], id: str = "") -> Document:
        """Messages with content blocks -> a dialogue, or a prompt where the last word is the user's (`plait.sequence.chat`)."""
        return write_chat(messages, self.wording, id, form=self.form)

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
