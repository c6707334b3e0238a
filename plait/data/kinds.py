"""Rows as other people keep them -> texts and pictures in reading order, with what a model shall learn to write. Four kinds:

    caption      image, caption (one text, or a list of them: a document each)
    vqa          image, question, answer (two texts or two lists); or image, turns: [{"question": ..., "answer": ...}, ...]
    chat         messages: [{"role": "user" | "assistant", "content": text, or blocks}]. A block is {"type": "text", "text": ...} or
                 {"type": "image"}, which takes the next picture of the column images, or brings its own: "image": file
    interleaved  images and texts: two lists of one length; at each place one of the two holds something, the other None

Which columns these are is said by settings: a role (image, caption, ...) and the names that its column may have. Nothing is read from a
disk here and nothing repaired: texts are kept to the letter, and a row that does not fit is a `BadRow` with its reason.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.document import Kind, TextSpan
from plait.errors import DocumentError, RecipeError

NEEDS = {
    "caption": (("image", "caption"),),
    "vqa": (("image", "question", "answer"), ("image", "turns")),
    "chat": (("messages",),),
    "interleaved": (("images", "texts"),),
}
"""kind -> the roles that it needs, in each of its forms"""
DOCUMENT_KINDS: Mapping[str, Kind] = {"caption": "pair", "vqa": "dialogue", "chat": "dialogue", "interleaved": "document"}
"""kind of a row -> kind of its documents"""
MAY_HAVE = {"chat": ("images", "image")}
"""kind -> the roles that may be there besides; every kind may have `id`"""
ROLES = ("user", "assistant")
PAIRS = (("question", "answer"), ("user", "assistant"))
LONGEST = 1_000_000
"""characters of a text: far more than a document of any model"""
DEEPEST = 20
"""levels of lists and objects in a cell"""


class BadRow(DocumentError):
    """A row that cannot become a document.

    Args:
        reason: a few words under which such rows are counted.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A picture of a row, not opened yet: a path, bytes, or what `datasets` makes of them."""

    cell: Any
    loss: bool = False


Piece = TextSpan | Picture


def choose_columns(
    found: Sequence[str], kind: str | None, names: Mapping[str, str | Sequence[str]]
) -> tuple[str, dict[str, str]]:
    """The kind of a table, and role -> its column.

    Args:
        found: the columns of the table.
        kind: None tells it from the columns.
        names: role -> the name of its column, or those that are usual for it.

    Raises:
        RecipeError: no kind fits the columns, or several do, or two columns could have one role.
    """
    usual = {role: (own,) if isinstance(own, str) else tuple(own) for role, own in names.items()}
    there = {role: [name for name in own if name in found] for role, own in usual.items()}
    if kind is not None and kind not in NEEDS:
        raise RecipeError(f"data.kind is {kind!r}, expected one of {', '.join(NEEDS)}. Next: set data.kind=<one of them>.")
    kinds = NEEDS if kind is None else {kind: NEEDS[kind]}
    fitting = [(name, roles) for name, forms in kinds.items() for roles in forms if all(there.get(role) for role in roles)]
    if not fitting:
        wanted = "; ".join(f"{name}: {' and '.join(roles)}" for name, forms in kinds.items() for roles in forms)
        roles = dict.fromkeys(role for forms in kinds.values() for form in forms for role in form)
        spelt = ", ".join(f"{role} is called {' or '.join(usual.get(role, ()))}" for role in roles)
        raise RecipeError(
            f"The columns {list(found)} fit no kind of document. Expected, for {wanted}, where {spelt}. "
            "Next: name a column as data.columns.<role>=<column>."
        )
    if len(fitting) > 1:
        forms = " or ".join(f"{name} ({', '.join(there[role][0] for role in roles)})" for name, roles in fitting)
        raise RecipeError(
            f"The columns {list(found)} can be read as {forms}, expected one reading. Next: set data.kind, or leave out a role with "
            "data.columns.<role>=[]."
        )
    ((kind, roles),) = fitting
    columns = {}
    for role in (*roles, *MAY_HAVE.get(kind, ()), "id"):
        own = there.get(role, [])
        if len(own) > 1:
            raise RecipeError(
                f"The columns {own} could both be the {role}, expected one of them. Next: set data.columns.{role}={own[0]}."
            )
        if own:
            columns[role] = own[0]
    return kind, columns


def read_row(row: Any, kind: str, columns: Mapping[str, str]) -> list[list[Piece]]:
    """The documents of a row (more than one where a picture has several captions), each as its pieces in reading order.

    Raises:
        BadRow: a column is missing, a value is of another type, empty, or does not fit the others.
    """
    if not isinstance(row, Mapping):
        raise BadRow("no object", f"it is a {type(row).__name__}, expected an object with columns. Correct the row.")
    optional = (*MAY_HAVE.get(kind, ()), "id")
    missing = [column for role, column in columns.items() if column not in row and role not in optional]
    if missing:
        raise BadRow("missing column", f"it lacks {missing}, it has {list(row)}. Add what is missing.")
    for column in columns.values():
        _check_strings(row.get(column), column)
    return READERS[kind](row, columns)


def _check_strings(value: Any, name: str, depth: int = 0) -> None:
    """Refuse text that is none, wherever it stands in a cell: it could not be written down, or would be read as something else.

    Raises:
        BadRow: half of a surrogate pair, a control character, or a text or nesting out of all proportion.
    """
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise BadRow("text too long", f"{name} has {len(value):,} characters, expected at most {LONGEST:,}. Split the row.")
        odd = next((one for one in value if one not in "\t\n\r" and unicodedata.category(one) in ("Cc", "Cs")), None)
        if odd is not None:
            kind = "half of a surrogate pair" if unicodedata.category(odd) == "Cs" else "a control character"
            raise BadRow("no plain text", f"{name} holds {kind} ({odd!r}), expected text. Take it out, or write the row again.")
    elif depth > DEEPEST:
        raise BadRow(
            "too deep", f"{name} is nested more than {DEEPEST} levels deep, expected a row of its kind. Correct the row."
        )
    elif isinstance(value, Mapping):
        for key, own in value.items():
            _check_strings(key, f"a key of {name}", depth + 1)
            _check_strings(own, f"{name}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, own in enumerate(value):
            _check_strings(own, f"{name}[{index}]", depth + 1)


def _read_caption(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[Piece]]:
    picture, name = _picture(row, columns["image"]), columns["caption"]
    captions = row[name] if isinstance(row[name], list) else [row[name]]
    if not captions:
        raise BadRow("empty text", f"{name} is an empty list, expected at least one text. Write one.")
    return [[TextSpan(_text(caption, name)), picture] for caption in captions]


def _read_questions(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[Piece]]:
    pieces: list[Piece] = [_picture(row, columns["image"])]
    for question, answer, name in _turns(row, columns):
        pieces += [TextSpan(_text(question, name)), TextSpan(_text(answer, name), loss=True)]
    return [pieces]


def _turns(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[tuple[Any, Any, str]]:
    if "turns" in columns:
        name = columns["turns"]
        turns = _list(row[name], name)
        for index, turn in enumerate(turns):
            pair = next((pair for pair in PAIRS if isinstance(turn, Mapping) and all(key in turn for key in pair)), None)
            if pair is None:
                spelt = " or ".join(f"the keys {one!r} and {other!r}" for one, other in PAIRS)
                raise BadRow(
                    "malformed turn", f"{name}[{index}] is {_show(turn)}, expected an object with {spelt}. Rename them."
                )
            turns[index] = (turn[pair[0]], turn[pair[1]], f"{name}[{index}]")
        return turns
    asked, said = columns["question"], columns["answer"]
    questions, answers = row[asked], row[said]
    if not isinstance(questions, list) and not isinstance(answers, list):
        return [(questions, answers, f"{asked} or {said}")]
    questions, answers = _list(questions, asked), _list(answers, said)
    if len(questions) != len(answers):
        raise BadRow(
            "unequal lists",
            f"{len(questions)} questions in {asked}, {len(answers)} answers in {said}, expected as many of each. Correct the row.",
        )
    return [(one, other, f"{asked} or {said}") for one, other in zip(questions, answers, strict=True)]


def _read_chat(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[Piece]]:
    name = columns["messages"]
    waiting = _listed_pictures(row, columns)
    given, taken, pieces = len(waiting), 0, []
    messages = _list(row[name], name)
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role != ROLES[index % 2]:
            raise BadRow(
                "unexpected role",
                f"{name}[{index}] has the role {role!r}, expected {ROLES[index % 2]!r}: user and assistant take turns, the user first. "
                "Put what a system prompt would say into the user's first message.",
            )
        where, is_answer = f"{name}[{index}].content", index % 2 == 1
        content = message.get("content")
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else _list(content, where):
            kind = block.get("type") if isinstance(block, Mapping) else None
            if kind == "text":
                pieces.append(TextSpan(_text(block.get("text"), where), is_answer))
            elif kind in ("image", "image_url"):
                cell = _own_picture(block)
                taken += cell is None
                if cell is None and waiting:
                    cell = waiting.pop(0)
                pieces.append(Picture(cell, is_answer))
            else:
                raise BadRow(
                    "unknown block", f"{where} holds {_show(block)}, expected blocks of type 'text' or 'image'. Rename it."
                )
    if taken != given:
        where = columns.get("images") or columns.get("image") or "images"
        raise BadRow(
            "pictures and blocks differ",
            f"{taken} blocks {{'type': 'image'}} in {name} take a picture, and {where} holds {given}, expected as many of each. Add what "
            "is missing; a placeholder inside a text (<image>) is a block of its own here.",
        )
    if len(messages) % 2:
        raise BadRow("no answer", f"{name} ends with the user, expected the assistant, from whom is learned. Add the answer.")
    return [pieces]


def _listed_pictures(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[Any]:
    for role in ("images", "image"):
        cells = row.get(columns[role]) if role in columns else None
        if cells is not None:
            return list(cells) if isinstance(cells, list) else [cells]
    return []


def _own_picture(block: Mapping[str, Any]) -> Any:
    url = block.get("image_url")
    found = (block.get("image"), url.get("url") if isinstance(url, Mapping) else url, block.get("path"))
    return next((cell for cell in found if cell is not None), None)


def _read_interleaved(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[Piece]]:
    shown, said = columns["images"], columns["texts"]
    images, texts = _list(row[shown], shown), _list(row[said], said)
    if len(images) != len(texts):
        raise BadRow(
            "unequal lists",
            f"{len(images)} places in {shown}, {len(texts)} in {said}, expected one length: a place is a picture or a text, and None in "
            "the other list. Correct the row.",
        )
    pieces: list[Piece] = []
    for index, (image, text) in enumerate(zip(images, texts, strict=True)):
        if (image is None) == (text is None):
            found = "nothing" if image is None else "a picture and a text"
            raise BadRow(
                "no order", f"place {index} of {shown} and {said} holds {found}, expected one of the two. Correct the row."
            )
        pieces.append(TextSpan(_text(text, f"{said}[{index}]"), loss=True) if image is None else Picture(image, loss=True))
    if not any(isinstance(piece, TextSpan) for piece in pieces):
        raise BadRow("no text", f"{said} holds no text beside {len(pieces)} pictures, expected at least one. Write one.")
    return [pieces]


READERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], list[list[Piece]]]] = {
    "caption": _read_caption,
    "vqa": _read_questions,
    "chat": _read_chat,
    "interleaved": _read_interleaved,
}


def _picture(row: Mapping[str, Any], name: str) -> Picture:
    cell = row[name]
    if isinstance(cell, list):
        if len(cell) != 1:
            raise BadRow("not one picture", f"{name} holds {len(cell)} pictures, expected 1. data.kind=chat takes several.")
        (cell,) = cell
    return Picture(cell)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow("no text", f"{name} holds {_show(value)}, expected a text. Correct the row.")
    if not value.strip():
        raise BadRow("empty text", f"{name} holds {value!r}, expected a text with a word in it. Write it, or remove the row.")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadRow("no list", f"{name} holds {_show(value)}, expected a list that is not empty. Correct the row.")
    return list(value)


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{str(value)[:60]!r} ({type(value).__name__})"
