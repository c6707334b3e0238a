"""Chat messages with content blocks <-> documents, in the wording of a system.

    [{"role": "user", "content": [{"type": "image", "image": <image id or span>}, {"type": "text", "text": "What is it?"}]},
     {"role": "assistant", "content": "A cat."}]

The content may be a plain string. What the assistant says carries loss, its end marker too; a dialogue that ends with the user
becomes a prompt, opened where the assistant goes on. White space around a block is not kept (as in Gemma's own template), and a text
that is not the first block of its message starts on a new line (Liquid: specs section 4, format f; several blocks of text are ours).
Knows the strings of a wording and no ids; which markers a picture gets is said by the layout.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from plait.document import Document, Form, ImageSpan, Span, TextSpan
from plait.errors import DocumentError, MarkerError
from plait.sequence.markers import END, WRITTEN, find_marks, match_any

Message = Mapping[str, Any]
ROLES = ("user", "assistant")
PIECES = re.compile(r"<\|?\w+\|?>|[^\s<]+")


@dataclass(frozen=True)
class ChatWording:
    """The strings between which a system puts what is said.

    Args:
        user: opens a turn of the user.
        assistant: opens a turn of the model.
        end: closes a turn of either; after the assistant's, the document ends or `<eos>` is written.
    """

    user: str
    assistant: str
    end: str

    @property
    def marks(self) -> re.Pattern:
        """Finds these strings in text, also where a word tokenizer has changed the white space in them."""
        loose = [r"\s*".join(map(re.escape, PIECES.findall(text))) for text in (self.user, self.assistant, self.end)]
        return re.compile("|".join(f"({pattern})" for pattern in (*loose, re.escape(END))))


def write_chat(
    messages: Sequence[Message], wording: ChatWording, id: str = "", *, ends_answers: bool = True, form: Form = "codes"
) -> Document:
    """Messages -> a worded document: a complete dialogue to learn from, or a prompt where the last word is the user's.

    Args:
        form: of the pictures of the user; those of an answer are codes.
        ends_answers: whether `<eos>` stands after every answer and not only after the last, as in dialogues of released models.

    Raises:
        DocumentError: roles do not alternate from the user on, a message is empty, a block is of an unknown type, or a text holds
            strings that only the wording may write.
    """
    writer, markers = _Writer(), match_any({*WRITTEN, *find_marks((wording.user, wording.assistant, wording.end))})
    for index, message in enumerate(messages):
        role = ROLES[index % 2]
        if message.get("role") != role:
            raise DocumentError(
                f"Message {index} of {len(messages)} has the role {message.get('role')!r}, expected {role!r}: user and assistant take "
                "turns, the user first. Put what a system prompt would say into the user's first message."
            )
        is_answer = role == "assistant"
        writer.text(wording.assistant if is_answer else wording.user, False)
        for order, block in enumerate(_blocks(message, index)):
            if isinstance(block, ImageSpan):
                writer.spans.append(replace(block, form="codes" if is_answer else form, loss=is_answer, begin_loss=is_answer))
            elif found := wording.marks.search(block) or markers.search(block):
                raise MarkerError(
                    f"Message {index} says {found[0]!r}, which only the wording of the chat may write: {block!r}. Next: reword it."
                )
            else:
                writer.text(block if order == 0 else f"\n{block}", is_answer)
        writer.text(wording.end, is_answer)
        if is_answer and ends_answers and index + 1 < len(messages):
            writer.text(END, True)
    if not messages:
        raise DocumentError("A chat without messages: expected at least one message of the user.")
    is_complete = len(messages) % 2 == 0
    if not is_complete:
        writer.text(wording.assistant, False)
    return Document(tuple(writer.spans), id=id, ends=is_complete, is_worded=True)


def split_turns(document: Document) -> list[dict[str, Any]]:
    """The messages of a raw dialogue, whose spans say by their loss who speaks: without it the user, with it the assistant."""
    turns = groupby(document.spans, key=lambda span: span.loss)
    return [{"role": ROLES[is_answer], "content": [_block(span) for span in spans]} for is_answer, spans in turns]


def read_chat(document: Document, wording: ChatWording) -> list[dict[str, Any]]:
    """A worded document, generated or not -> messages whose content is a list of blocks; images are spans with their codes. A turn
    of the assistant that has been opened and not begun is left out.

    Raises:
        DocumentError: something stands outside of all turns.
    """
    messages: list[dict[str, Any]] = []
    for _, role, piece in read_turns(document, wording):
        if piece is None:
            messages.append({"role": role, "content": []})
        elif role is None:
            raise DocumentError(f"Document {document.id!r} is no chat: {str(piece)[:60]!r} stands outside of all turns.")
        elif isinstance(piece, ImageSpan):
            messages[-1]["content"].append({"type": "image", "image": replace(piece, loss=False, begin_loss=False)})
        else:
            messages[-1]["content"].append({"type": "text", "text": piece.strip()})
    if messages and messages[-1] == {"role": "assistant", "content": []}:
        messages.pop()
    return messages


def read_turns(document: Document, wording: ChatWording) -> Iterator[tuple[int, str | None, str | ImageSpan | None]]:
    """What is said in a worded document, without the strings of the wording: (number of the span, whose turn it is, what is said). A turn
    that opens says None; outside of all turns it is nobody's turn (None)."""
    role: str | None = None
    for index, span in enumerate(document.spans):
        pieces = wording.marks.split(span.text) if isinstance(span, TextSpan) else [span]
        # split gives text, then the four groups of a mark (three of them None), and so on
        for place, piece in enumerate(pieces):
            kind = place % 5
            if piece is None or (isinstance(piece, str) and not piece.strip()):
                continue
            if kind in (1, 2):
                role = ROLES[kind - 1]
                yield index, role, None
            elif kind in (3, 4):
                role = None
            else:
                yield index, role, piece


def jinja_template(wording: ChatWording, image: str) -> str:
    """The same wording as a chat template of transformers: `apply_chat_template` writes `write_chat`'s document as one string, and refuses
    messages with markers, which the string could not tell from its own.

    Args:
        image: what is written for a picture; its codes never pass through a text tokenizer.
    """
    user, assistant, end, picture = (_quote(text) for text in (wording.user, wording.assistant, wording.end, image))
    turns = "User and assistant take turns, the user first."
    marks = sorted({*WRITTEN, *find_marks((wording.user, wording.assistant, wording.end, image))})
    return (
        "{% macro plain(text) %}{% for mark in ["
        + ", ".join(map(_quote, marks))
        + ", bos_token, eos_token] if mark %}{% if mark in text %}"
        "{{ raise_exception('A message holds ' + mark + ', which only the wording of the chat may write. Reword it.') }}"
        "{% endif %}{% endfor %}{{ text | trim }}{% endmacro %}"
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}{{ raise_exception("
        + _quote(turns)
        + ") }}{% endif %}"
        "{% set is_answer = message['role'] == 'assistant' %}"
        "{{ " + assistant + " if is_answer else " + user + " }}"
        "{% if message['content'] is string %}{{ plain(message['content']) }}"
        "{% else %}{% for block in message['content'] %}"
        "{% if block['type'] == 'image' %}{{ " + picture + " }}"
        "{% else %}{{ '' if loop.first else '\\n' }}{{ plain(block['text']) }}{% endif %}"
        "{% endfor %}{% endif %}{{ " + end + " }}{% if is_answer %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ " + assistant + " }}{% endif %}"
    )


class _Writer:
    """Spans in which neighbouring texts of equal loss are one, joined by nothing: white space counts."""

    def __init__(self) -> None:
        self.spans: list[TextSpan | ImageSpan] = []

    def text(self, text: str, loss: bool) -> None:
        last = self.spans[-1] if self.spans else None
        if isinstance(last, TextSpan) and last.loss == loss:
            self.spans[-1] = TextSpan(last.text + text, loss)
        else:
            self.spans.append(TextSpan(text, loss))


def _block(span: Span) -> dict[str, Any]:
    return {"type": "text", "text": span.text} if isinstance(span, TextSpan) else {"type": "image", "image": span}


def _blocks(message: Message, index: int) -> list[str | ImageSpan]:
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, Sequence) or not blocks:
        raise DocumentError(f"Message {index} has the content {content!r}, expected a string or a list of blocks.")
    return [_read_block(block, index) for block in blocks]


def _read_block(block: Any, index: int) -> str | ImageSpan:
    match block:
        case {"type": "text", "text": str(text)} if text.strip():
            return text.strip()
        case {"type": "image", "image": ImageSpan() as span}:
            return span
        case {"type": "image", "image": str(image_id)}:
            return ImageSpan(image_id)
    raise DocumentError(
        f"Message {index} holds the block {block!r}. Expected {{'type': 'text', 'text': ...}}, not empty, or "
        "{'type': 'image', 'image': an image id or an ImageSpan}."
    )


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
