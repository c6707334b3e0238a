"""Pages that need no other file, sheets that show what is there."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.rendering import (
    ACCENT,
    RIGHT,
    WRONG,
    Cell,
    contact_sheet,
    draw_sample,
    render_cards,
    render_html,
    stack_samples,
    write_samples,
)
from plait.runs import Run
from plait.samples import Sample, inline_picture
from plait.systems.liquid import LiquidTemplate

RED = Image.new("RGB", (64, 64), "red")
STORY = Document(
    (TextSpan("a <b>cat</b> & a 'dog'"), ImageSpan("x'y"), ImageSpan("hole", form="codes"), ImageSpan("lost")),
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
    assert page.count("<span class='tag'>given</span>") == 2
    assert page.count("<span class='tag'>made by the model</span>") == 2 * 3  # the three pictures after the text


def test_pictures_are_stored_as_they_are() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8))
    data = inline_picture(noise).removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(noise))
    page = render_html([Sample(Document((ImageSpan("n"),)), lambda span: noise)])
    assert "width: 120px" in page


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


def make_story() -> Sample:
    """Told: sentences were given, the pictures between them were made."""
    spans = [span for n in range(3) for span in (TextSpan(f"sentence {n}"), ImageSpan(f"{n}", form="codes"))]
    pictures = {"0": RED, "1": Image.new("RGB", (64, 64), "lime"), "2": Image.new("RGB", (64, 64), "blue")}
    return Sample(Document(tuple(spans)), pictures, {"right": True}, 2**62 + 1, Document(tuple(spans)), "a story")


def test_a_sentence_stands_with_its_own_picture_in_cards_of_any_width() -> None:
    scenes = render_html([make_story()]).split("<div class='scene'>")[1:]
    assert len(scenes) == 3
    for number, scene in enumerate(scenes):
        assert re.findall(r"sentence \d|alt='\d'", scene) == [f"sentence {number}", f"alt='{number}'"]
        assert re.findall(r"class='tag'>([^<]*)", scene) == ["given", "made by the model"]


def test_an_edit_is_shown_as_turns_without_the_strings_of_the_wording() -> None:
    template = LiquidTemplate()
    prompt = template.edit_prompt(ImageSpan("before", codes=(np.zeros((2, 2), dtype=np.int64),)), "make it <blue>")
    done = Document((*prompt.spans[:-1], ImageSpan("after", form="codes"), TextSpan("<end_of_turn><eos>")))
    sample = Sample(done, {"before": RED, "after": RED}, given=prompt, wording=template.wording)
    page = render_html([sample])
    assert not re.search("start_of_turn|end_of_turn|eos", page)
    assert "make it &lt;blue&gt;" in page
    assert re.findall(r"class='who'>([^<]*)", page) == ["user", "model"]
    user, model = page.split("<div class='turn'>")[1:]
    assert ("given" in user, "made by" in user) == (True, False)
    assert ("given" in model, "made by" in model) == (False, True)
    assert (sample.stored.asked, sample.stored.answer) == ("make it <blue>", "")


def test_a_sheet_marks_what_was_made_and_holds_every_picture() -> None:
    accent = tuple(int(ACCENT[i : i + 2], 16) for i in (1, 3, 5))
    whole = np.asarray(draw_sample(make_story(), picture_size=50, is_right=True))
    assert all((whole == color).all(axis=-1).sum() == 50 * 50 for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    assert (whole == accent).all(axis=-1).sum() > 3 * 4 * 50
    given = make_story()
    plain = np.asarray(draw_sample(Sample(given.document, given.pictures), picture_size=50))
    assert (plain == accent).all(axis=-1).sum() == 0
    narrow = draw_sample(make_story(), picture_size=50, width=200)
    assert narrow.width <= 200
    assert narrow.height > whole.shape[0]
    sheet = stack_samples([narrow, narrow], title="two", width=500)
    assert (np.asarray(sheet) == (255, 0, 0)).all(axis=-1).sum() == 2 * 50 * 50


@pytest.mark.parametrize("text", ["", "one", "word " * 80, "unbreakable" * 12, "two\nlines"])
def test_no_text_runs_out_of_a_drawn_sample(text: str) -> None:
    drawn = np.asarray(draw_sample(Sample(Document((TextSpan(text), ImageSpan("r"))), {"r": RED})))
    assert (drawn[:, -8:-1] == 255).sum() == drawn[1:-1, -8:-1].size + 0 or (drawn[2:-2, -7:-2] == 255).all()


def test_cards_of_a_stored_run_are_those_of_its_samples(tmp_path) -> None:
    """A piece of a page leaves the page around it alone, and what was read from JSON looks like what was written."""
    (tmp_path / "job.json").write_text("{}")
    samples = [make_story(), Sample(STORY, {"x'y": RED}, title="other")]
    page = write_samples(samples, tmp_path / "samples" / "step-1.html", "page", "note")
    stored = Run(tmp_path).samples
    assert render_html(stored, "page", "note") == page == (tmp_path / "samples" / "step-1.html").read_text()
    assert render_cards(stored, "a < b") == render_cards(samples, "a < b")
    assert "a &lt; b" in render_cards(stored, "a < b")
    assert "body {" not in render_cards(stored)
    assert Run(tmp_path).latest_samples == stored
