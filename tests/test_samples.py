"""The record of a sample: it survives JSON, says who made what, and refuses what is no record."""

import json

import numpy as np
import pytest
from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError
from plait.samples import Sample, StoredSample, read_samples
from plait.systems.liquid import LiquidTemplate
from plait.systems.synergen_vl import SynergenTemplate

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8))
DOCUMENT = Document((TextSpan("a red car"), ImageSpan("i", form="codes", codes=(np.zeros((2, 2), dtype=np.int64),))), id="d")


def test_a_record_survives_json_with_its_pictures_and_a_large_seed() -> None:
    seed = 2**63 - 1
    stored = Sample(DOCUMENT, {"i": NOISE}, {"n": np.float32(0.5), "right": True}, seed, 1, "t").stored
    record = json.loads(json.dumps(stored.to_json()))
    assert record["seed"] == str(seed)
    again = StoredSample.from_json(record)
    assert again == stored
    assert [span.by for span in again.spans] == ["given", "made by the model"]
    assert np.array_equal(np.asarray(again.spans[1].open()), np.asarray(NOISE))
    assert again.spans[0].open() is None
    assert again.document.images[0].codes is not None


def test_holes_of_a_prompt_and_what_stands_behind_it_were_made() -> None:
    hole = ImageSpan("drawn", form="codes")
    prompt = Document((TextSpan("one"), hole, TextSpan("two"), hole))
    whole = Document((*prompt.spans, TextSpan("and more")))
    assert Sample(whole, given=prompt).made == (False, True, False, True, True)
    assert Sample(whole, given=2).made == (False, False, True, True, True)
    assert Sample(whole).made is None


@pytest.mark.parametrize("template", [LiquidTemplate(), SynergenTemplate()])
def test_chat_becomes_turns(template) -> None:
    shown = ImageSpan("i", codes=(np.zeros((2, 2), dtype=np.int64),))
    messages = [{"role": "user", "content": [{"type": "image", "image": shown}, {"type": "text", "text": "What is it?"}]}]
    messages += [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Really?"}]
    prompt = template.chat(messages)
    whole = Document((*prompt.spans, TextSpan(f"Yes.{template.wording.end}<eos>")))
    stored = Sample(whole, given=prompt, wording=template.wording).stored
    assert [(span.role, span.by, span.text) for span in stored.spans] == [
        ("user", "given", "i"),
        ("user", "given", "What is it?"),
        ("model", "given", "A cat."),
        ("user", "given", "Really?"),
        ("model", "made by the model", "Yes."),
    ]
    assert len({span.turn for span in stored.spans}) == 4


def test_a_record_from_before_spans_were_stored_shows_its_document() -> None:
    record = {"document": DOCUMENT.to_json(), "scores": {}, "seed": 7, "title": "old"}
    (stored,) = read_samples([record])
    assert [(span.text, span.picture) for span in stored.spans] == [("a red car", None), ("i", None)]
    assert stored.seed == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": {"a": ["<script>"]}}, "scores"),
        ({"seed": "1e5"}, "seed = '1e5'"),
        ({"seed": 1.5}, "seed = 1.5"),
        ({"title": ["x"]}, "title"),
        ({"spans": "text"}, "spans = 'text'"),
        ({"spans": [{"kind": "script"}]}, "kind text or image"),
        ({"spans": [{"kind": "text", "text": 1}]}, "as a string"),
        ({"spans": [{"kind": "text", "text": "a", "by": "<b>"}]}, "by of a span"),
        ({"spans": [{"kind": "image", "image_id": "i", "picture": "https://elsewhere"}]}, "a picture inside the record"),
        ({"spans": [{"kind": "image", "image_id": "i", "picture": "data:image/png;base64,AA' onload='x"}]}, "a picture inside"),
        ({"spans": [{"kind": "image", "image_id": "i", "picture": "data:image/svg+xml;base64,AAAA"}]}, "a picture inside"),
        ({"document": {"spans": []}}, "has no spans"),
    ],
)
def test_what_is_no_record_is_refused_by_name(change: dict, words: str) -> None:
    record = Sample(DOCUMENT, {"i": NOISE}).to_json() | change
    with pytest.raises(DocumentError, match=words):
        StoredSample.from_json(record)
    with pytest.raises(DocumentError, match="list of records"):
        read_samples(record)
