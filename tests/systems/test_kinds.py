"""Documents of every kind, and dialogues of every shape, in the wording of every system that draws; what has none is refused."""

import numpy as np
import pytest

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.systems.dialogues import DialogueTemplate
from plait.systems.liquid import LiquidTemplate
from plait.systems.synergen_vl import SynergenTemplate

TEMPLATES = [LiquidTemplate(), SynergenTemplate()]
each = pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: type(template).__name__)


def asked(text: str) -> TextSpan:
    return TextSpan(text)


def said(text: str) -> TextSpan:
    return TextSpan(text, loss=True)


def shown(name: str) -> ImageSpan:
    return ImageSpan(name, codes=(np.zeros((2, 2), int),))


def drawn(name: str) -> ImageSpan:
    return ImageSpan(name, loss=True, codes=(np.zeros((2, 2), int),))


DIALOGUES = {
    "a question about a picture": (shown("a"), asked("what is it ?"), said("a car")),
    "the picture after the question": (asked("what is it ?"), shown("a"), said("a car")),
    "words alone": (asked("what is red ?"), said("a car")),
    "two pictures": (shown("a"), shown("b"), asked("what is new ?"), said("a car")),
    "a picture as the answer": (asked("draw a car"), drawn("a")),
    "an edit": (shown("a"), asked("make it red"), drawn("b")),
    "two edits": (shown("a"), asked("make it red"), drawn("b"), asked("and blue"), drawn("c")),
    "words and a picture as the answer": (asked("draw a car"), said("here it is :"), drawn("a")),
    "a picture and words as the answer": (asked("draw a car"), drawn("a"), said("a red one")),
    "an answer, then a new picture": (
        shown("a"),
        asked("what ?"),
        said("a car"),
        shown("b"),
        asked("and this ?"),
        said("a key"),
    ),
    "an answer, then an edit": (shown("a"), asked("what ?"), said("a car"), asked("make it red"), drawn("b")),
}


@each
@pytest.mark.parametrize("spans", DIALOGUES.values(), ids=DIALOGUES)
def test_a_dialogue_of_any_shape_is_worded(template: DialogueTemplate, spans: tuple) -> None:
    """Turn by turn what was said, and loss on the answers and their ends alone."""
    worded = template.wrap(Document(spans, id="d", kind="dialogue"), 0)
    turns = [(message["role"], [_spell(block) for block in message["content"]]) for message in template.messages(worded)]
    wanted: list = []
    for span in spans:
        role = "assistant" if span.loss else "user"
        if not wanted or wanted[-1][0] != role:
            wanted.append((role, []))
        wanted[-1][1].append(span.text if isinstance(span, TextSpan) else span.image_id)
    assert turns == wanted
    learned = "".join(span.text for span in worded.spans if isinstance(span, TextSpan) and span.loss)
    assert learned.count(template.wording.end.strip()) == sum(role == "assistant" for role, _ in wanted)
    assert all(span.text in learned for span in spans if isinstance(span, TextSpan) and span.loss)
    assert not any(span.text in learned for span in spans if isinstance(span, TextSpan) and not span.loss)
    assert [(span.image_id, span.loss, span.begin_loss, span.form) for span in worded.images] == [
        (span.image_id, span.loss, span.loss, "codes") for span in spans if isinstance(span, ImageSpan)
    ]
    assert template.wrap(worded, 1) is worded


def _spell(block: dict) -> str:
    return block["text"] if block["type"] == "text" else block["image"].image_id


@each
@pytest.mark.parametrize(
    ("kind", "spans"),
    [
        (None, DIALOGUES["a question about a picture"]),
        (None, (said("a car"),)),
        ("pair", DIALOGUES["an edit"]),
        ("pair", (asked("a car"), drawn("a"))),
        ("pair", (asked("a car"), asked("a key"))),
        ("dialogue", (asked("what ?"), said("a car"), asked("and ?"))),
        ("dialogue", (said("a car"), asked("what ?"), said("a car"))),
        ("dialogue", (asked("a car"),)),
        ("text", (said("a car"), shown("a"))),
        ("text", (asked("a car"),)),
        ("document", (asked("a car"), shown("a"))),
    ],
)
def test_what_has_no_wording_is_refused(template: DialogueTemplate, kind, spans) -> None:
    with pytest.raises(
        RecipeError, match=rf"'d' of the kind {kind!r} holds .*, expected for kind='pair'.* Next: give the document"
    ):
        template.wrap(Document(spans, id="d", kind=kind), 0)


@each
def test_a_pair_is_one_whatever_stands_first(template: DialogueTemplate) -> None:
    spans = (asked("a car"), shown("a"))
    pairs = [[template.wrap(Document(order, kind="pair"), n).spans for n in range(8)] for order in (spans, spans[::-1])]
    assert pairs[0] == pairs[1]
