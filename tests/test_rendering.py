"""Pages that need no other file, sheets that show what is there."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.rendering import (
    RIGHT,
    WRONG,
    Cell,
    Sample,
    contact_sheet,
    inline_picture,
    read_cards,
    render_cards,
    render_html,
    render_sheet,
)

RED = Image.new("RGB", (64, 64), "red")
STORY = Document(
    (TextSpan("a <b>cat</b> & a 'dog'"), ImageSpan("x'y"), ImageSpan("hole", form="codes"), ImageSpan("lost", form="features")),
    id="<id>",
    meta={"task": "story"},
)


def make_page() -> str:
    sample = Sample(
        STORY, {"x'y": RED}, {"right": True, "wrong": False, "loss": 0.12345, "word": "<i>"}, 7, given=1, title="<t>"
    )
    return render_html([sample, sample], title="a < b", note="n & m")


def test_a_page_is_self_contained_and_escaped() -> None:
    page = make_page()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    assert not re.search(r"<(b|i|t|id)>", page)
    for text in ("a &lt;b&gt;cat&lt;/b&gt; &amp; a &#x27;dog&#x27;", "a &lt; b", "n &amp; m", "alt='x&#x27;y'", "&lt;id&gt;"):
        assert text in page
    assert "seed 7" in page
    assert "to be drawn" in page
    assert "no picture lost" in page
    assert "✓ <span class='key'>right" in page
    assert "✗ <span class='key'>wrong" in page
    assert "0.123" in page
    assert page.count("<span class='text'>") == 2  # given; the pictures after it were made
    assert page.count("<figure class='made'>") == 2


def test_pictures_are_stored_as_they_are() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8))
    data = inline_picture(noise).removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(noise))
    page = render_html([Sample(Document((ImageSpan("n"),)), lambda span: noise)])
    assert "width='96' height='128'" in page


def test_a_record_is_json() -> None:
    record = json.loads(json.dumps(Sample(STORY, scores={"n": np.float32(0.5)}, seed=1).to_json()))
    assert record["scores"] == {"n": 0.5}
    assert Document.from_json(record["document"]) == STORY
    assert "<style>" in Sample(STORY)._repr_html_()


def test_contact_sheet_marks_and_places() -> None:
    cells = [Cell(RED, "right", True), Cell(RED, "wrong", False), Cell(RED, "a caption that needs several lines to be read")]
    sheet = np.asarray(contact_sheet(cells, columns=2, picture_size=80, title="t"))
    right, wrong = (tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in (RIGHT, WRONG))
    found = {mark: np.argwhere((sheet == mark).all(axis=-1)) for mark in (right, wrong)}
    assert found[right][:, 1].max() < found[wrong][:, 1].min()
    red = (sheet == (255, 0, 0)).all(axis=-1)
    assert red.sum() > 3 * 80 * 80 * 0.9
    one_line = contact_sheet([Cell(RED, "short")], picture_size=80)
    assert contact_sheet(cells[2:], picture_size=80).height > one_line.height
    assert contact_sheet([]).width > 0


@pytest.mark.parametrize("text", ["", "one", "word " * 80, "unbreakable" * 12, "two\nlines"])
def test_sheet_holds_every_span(text: str) -> None:
    """No text runs out at the right, no picture is cut."""
    document = Document((TextSpan(text), *[ImageSpan("r")] * 6, TextSpan("end")))
    sheet = np.asarray(render_sheet(document, {"r": RED}, width=400, picture_size=100))
    assert sheet.shape[1] == 400
    red = (sheet == (255, 0, 0)).all(axis=-1)
    assert red.sum() == 6 * 100 * 100
    assert (sheet[:, -6:] == sheet[0, 0]).all()
    assert (sheet[-6:] == sheet[0, 0]).all()


def test_sheet_shows_what_is_missing() -> None:
    full, empty = (np.asarray(render_sheet(STORY, pictures)) for pictures in ({"x'y": RED}, {}))
    assert full.shape == empty.shape
    assert (full != empty).any()


def test_cards_of_a_page_are_those_of_its_samples() -> None:
    """A piece of a page leaves the page around it alone."""
    samples = [Sample(STORY, {"x'y": RED}, title=f"number {number}") for number in range(3)]
    piece = render_cards(samples[:2], title="a < b", picture_size=128)
    taken = read_cards(render_html(samples, title="page"), 2, title="a < b")
    assert [part.split("</div>")[0] for part in piece.split("<div class='card'>")] == [
        part.split("</div>")[0] for part in taken.split("<div class='card'>")
    ]
    assert (taken.count("number"), taken.count("<div"), taken.count("</div>")) == (
        2,
        piece.count("<div"),
        piece.count("</div>"),
    )
    assert "a &lt; b" in taken
    assert "body {" not in piece + taken
    assert read_cards(render_html(samples), 9).count("number") == 3
