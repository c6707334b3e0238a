"""What somebody asks for, checked before anything is loaded: which kind of request it is, and that it can be one.

It knows documents by their shape and no model. Nothing here imports torch, so that a command refuses at once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.document import Document, ImageSpan
from plait.errors import DocumentError

KINDS = {
    "draw": ("t", "th"),
    "caption": ("i",),
    "question": ("it",),
    "edit": ("ith", "it"),
    "story": (),
    "chat": (),
}
"""kind -> the shapes of its documents: t text, i picture, h a picture to be drawn. A story has any, a chat has messages."""
TOLD = {"i": "caption", "it": "question", "ith": "edit"}
"""shape -> the kind that training makes of it (`plait.systems.dialogues.DialogueTemplate.wrap`)"""


@dataclass(frozen=True)
class Request:
    """One thing to ask, as the command line and JSON files say it.

    Args:
        kind: one of `KINDS`.
        texts: what is asked, several times where there are several (draw, question, edit).
        image: the picture that is asked about.
        document: of a story.
        messages: of a chat.
        folder: where pictures with relative paths are.
    """

    kind: str
    texts: Sequence[str] = ()
    image: str | None = None
    document: Document | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    folder: Path = field(default_factory=Path)


def read_request(
    *,
    prompt: str | Sequence[str] | None = None,
    image: str | None = None,
    question: str | Sequence[str] | None = None,
    edit: str | Sequence[str] | None = None,
    document: str | None = None,
    kind: str | None = None,
) -> Request:
    """What is asked for by these settings of `plait-generate`.

    Args:
        prompt: what to draw.
        image: the file of a picture; alone, its caption is asked for.
        question, edit: about the picture, or what to change in it.
        document: path of a JSON file, `plait.document.Document.to_json` or {"messages": [...]} (`plait.sequence.chat`).
        kind: of the document, where its shape does not tell it.

    Raises:
        DocumentError: nothing or too much is given, a text is empty, or the document cannot be read or its kind not be told.
    """
    given = {"prompt": prompt, "image": image, "question": question, "edit": edit, "document": document}
    names = tuple(name for name, value in given.items() if value is not None)
    if names not in (("prompt",), ("image",), ("image", "question"), ("image", "edit"), ("document",)):
        raise DocumentError(
            f"{_show(given) or 'Nothing is asked'}: expected prompt='a red car', or image=<file> (its caption), or image=<file> "
            "question='what is it?', or image=<file> edit='the car turns blue .', or document=<JSON file>. Next: give one of these."
        )
    if kind is not None and document is None:
        raise DocumentError(
            f"kind={kind!r} says what a document is, and none is given. Next: leave it out, or give document=<file>."
        )
    if document is not None:
        return read_document(Path(document).expanduser(), kind)
    if image is not None and not Path(image).expanduser().is_file():
        raise DocumentError(f"image={image!r} is no file. Expected the path of a picture. Next: check it.")
    texts = {name: check_texts(given[name], name) for name in names if name != "image"}
    kind = {"prompt": "draw", "question": "question", "edit": "edit", "image": "caption"}[names[-1]]
    return Request(kind, next(iter(texts.values()), ()), image)


def read_document(path: Path, kind: str | None = None) -> Request:
    """A JSON file as a request.

    Args:
        kind: None tells it from the shape.

    Raises:
        DocumentError: the file is missing or no document, or its kind cannot be told or does not fit.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DocumentError(
            f"{path} cannot be read as a document: {error}. Expected JSON with a list `spans` or `messages`. Check the path and the JSON."
        ) from error
    if isinstance(raw, Mapping) and "messages" in raw:
        return _read_chat(path, raw, kind)
    try:
        document = Document.from_json(raw)
    except DocumentError as error:
        raise DocumentError(f"{path}: {error}") from error
    shape = "".join("t" if not isinstance(span, ImageSpan) else "h" if span.is_hole else "i" for span in document.spans)
    for span in document.images:
        if span.is_hole and (path.parent / span.image_id).is_file():
            raise DocumentError(f"{path}: {refuse_hole(span.image_id)}")
    kind = choose_kind(shape, kind, str(path))
    texts = [
        check_text(span.text, f"{path}, span {number}") for number, span in enumerate(document.spans) if shape[number] == "t"
    ]
    if kind == "story":
        return Request(kind, document=document, folder=path.parent)
    shown = next((span.image_id for span, letter in zip(document.spans, shape, strict=True) if letter == "i"), None)
    return Request(kind, texts, shown, folder=path.parent)


def refuse_hole(name: str) -> str:
    """What is said where a picture that is there would be drawn over."""
    return (
        f"a picture that is to be drawn is called {name!r}, and there is such a picture. Expected a name of its own for it. Next: leave "
        'out its "form" to show the picture that is there, or rename it to have one drawn.'
    )


def choose_kind(shape: str, kind: str | None, origin: str) -> str:
    """The kind of a document, from what is said of it or from its shape.

    Args:
        shape: a letter per span, see `KINDS`.
        origin: what messages call it.

    Raises:
        DocumentError: the shape could be several kinds, or is none of the kind that is named.
    """
    if kind is None:
        if shape in TOLD:
            return TOLD[shape]
        if shape in KINDS["draw"]:
            raise DocumentError(
                f"{origin}: a text{' and a picture to be drawn' if shape == 'th' else ' alone'} can be a description to draw or the "
                "beginning of a story, and the two are worded differently. Expected one of them by name. Next: kind=draw or kind=story."
            )
        return "story"
    if kind not in KINDS:
        raise DocumentError(f"kind={kind!r}: expected one of {', '.join(KINDS)}. Next: name one of them.")
    if kind == "chat":
        raise DocumentError(
            f'{origin} holds spans, and a chat has messages: expected {{"messages": [...]}}. Next: leave kind out.'
        )
    if kind != "story" and shape not in KINDS[kind]:
        raise DocumentError(
            f"{origin}: kind={kind} and the spans are {_spell(shape)}, expected {' or '.join(map(_spell, KINDS[kind]))}. Next: correct the "
            "document, or name another kind."
        )
    return kind


def check_texts(texts: Any, name: str) -> tuple[str, ...]:
    """One text or several, each checked as `check_text` does."""
    listed = (texts,) if isinstance(texts, str) or not isinstance(texts, Sequence) else tuple(texts)
    if not listed:
        raise DocumentError(f"{name} is an empty list, expected at least one text. Next: write one.")
    return tuple(check_text(text, name) for text in listed)


def check_text(text: Any, name: str) -> str:
    """A text with a word in it (DocumentError otherwise)."""
    if not isinstance(text, str):
        raise DocumentError(f"{name} is {text!r} ({type(text).__name__}), expected a text. Next: write it in quotes.")
    if not text.strip():
        raise DocumentError(f"{name} is {text!r}, expected a text with a word in it. Next: write one.")
    return text


def _read_chat(path: Path, raw: Mapping[str, Any], kind: str | None) -> Request:
    if kind not in (None, "chat"):
        raise DocumentError(f"{path} holds messages, which are a chat and no {kind}. Next: leave kind out.")
    messages = raw["messages"]
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, Mapping) or last.get("role") != "user":
        raise DocumentError(f"{path}: the last message is {last!r}, expected one of the user, to be answered. Next: add it.")
    return Request("chat", messages=messages, folder=path.parent)


def _show(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)


_WORDS = {"t": "text", "i": "picture", "h": "a picture to be drawn"}
_spell: Callable[[str], str] = lambda shape: ", ".join(_WORDS[letter] for letter in shape)  # noqa: E731
