"""What a run says of itself is text on every page: no tag, no attribute, no address and no script comes of it."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from lightning_modules.reporting.markdown import render_markdown
from lightning_modules.reporting.page import render_page
from lightning_modules.reporting.spec import (
    Curve,
    Lineage,
    Link,
    Number,
    Picture,
    Plot,
    Report,
    Samples,
    Section,
    Source,
    Table,
    Term,
    Text,
)
from lightning_modules.reporting.workspace import build_workspace
from plait.atomic import write_json
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import CheckpointError, DocumentError
from plait.rendering import render_cards, render_html
from plait.samples import Sample, StoredSample
from tests.malformed.test_images import encoded

WORDS = (
    "<script>alert(1)</script>",
    "</script></style></title><svg onload=alert(1)>",
    "'><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "<iframe src=//evil.example></iframe>\n<style>body{display:none}</style>",
    "[x](javascript:alert(1)) ![y](https://evil.example/y.png) <javascript:alert(1)>",
    "--><script>alert(1)</script>",
    "`<b>``c```d | `<img src=x onerror=alert(1)>",
    "\\<script>alert(1)</script> \\`<b>`",
)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "div", "span", "p", "b", "h1", "h2", "h3", "nav", "a", "section", "img", "data"),
    *("table", "tr", "th", "td", "details", "summary", "code", "pre", "svg", "g", "text", "line", "polyline", "i", "ul", "li", "small"),
}  # fmt: skip
PICTURES = (
    "javascript:alert(1)",
    "https://evil.example/x.png",
    "/etc/hostname",
    "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+",
    "data:text/html;base64,PHNjcmlwdD4=",
    "data:image/png;base64,AAAA' onerror='alert(1)",
)


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(page: str, tags: set[str] = TAGS) -> None:
    for tag, attributes in Tags(page).found:
        assert tag in tags, f"<{tag} {attributes}>"
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}={value}>"
            if name in ("src", "href"):
                assert value.startswith(("#", "data:image/png;base64,", "data:image/webp;base64,")), f"<{tag} {name}={value}>"


def make_sample(word: str) -> StoredSample:
    """Every word of it is hostile."""
    spans = (TextSpan(word), ImageSpan(word), ImageSpan(f"{word}/hole", form="codes"), TextSpan(word))
    picture = {word: Image.new("RGB", (2, 2))}
    sample = Sample(Document(spans, id=word), picture, {word: word, f"{word} ": True}, seed=1, given=1, title=word)
    return StoredSample.from_json(sample.to_json())


def make_report(word: str, folder: Path) -> Report:
    """Every word of it is hostile, and so is a sample that it shows."""
    write_json(folder / "samples.json", [make_sample(word).to_json()])
    (folder / "sheet.png").write_bytes(encoded(Image.new("RGB", (2, 2))))
    number = Number(0.5, (Source(word, word, word),))
    curve = Curve(word, Source(word, word, word), ((0, 1.0), (1, 2.0)))
    blocks: Any = (
        Table((word, word), ((word, number), (Term(word, word), number)), word, True),
        Plot(word, (curve,)),
        Lineage((Link(word, word, {word: word}, word),)),
        Picture(word, word, "sheet.png"),
        Samples(word, word, "samples.json", 1),
    )
    return Report(word, (Section(word, blocks), Section(word, (*blocks, Text("a", word)))), {word: str(folder)})


@pytest.mark.parametrize("word", WORDS)
def test_a_sample_is_text_on_its_page_and_in_a_notebook(word) -> None:
    sample = make_sample(word)
    for page in (
        render_html([sample], word, word),
        render_cards([sample], word),
        sample._repr_html_(),
        Sample(sample.document)._repr_html_(),
    ):
        assert_harmless(page)


@pytest.mark.parametrize("word", WORDS)
def test_a_report_is_text(word, tmp_path) -> None:
    report = make_report(word, tmp_path)
    assert_harmless(render_page(report, tmp_path))
    text = render_markdown(report, tmp_path)
    body, _, numbers = text.rpartition("<!-- plait-numbers ")
    assert numbers.count("-->") == 1  # its own end
    assert_harmless_markdown(body)


@pytest.mark.filterwarnings("ignore")  # wandb-workspaces declares its models in the words of an older pydantic
@pytest.mark.parametrize("word", WORDS)
def test_a_report_of_wandb_is_text(word, tmp_path) -> None:
    pytest.importorskip("wandb_workspaces")
    stored = build_workspace(make_report(word, tmp_path), tmp_path)._to_model().model_dump(by_alias=True)
    texts = [block["content"] for block in stored["spec"]["blocks"] if block["type"] == "markdown-block"]
    assert texts
    for text in texts:
        assert_harmless_markdown(text)


def assert_harmless_markdown(text: str) -> None:
    drawn = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert_harmless(drawn, TAGS | {"thead", "tbody", "strong", "em", "hr"})


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_of_a_sample_is_inside_it(picture) -> None:
    stored = make_sample("a").to_json()
    stored["spans"][1]["picture"] = picture
    with pytest.raises(DocumentError, match="expected a picture inside the record"):
        StoredSample.from_json(stored)


@pytest.mark.parametrize("name", ["sheet.png", "samples.json"])
def test_a_link_out_of_a_run_is_not_shown(name, tmp_path) -> None:
    """A sheet that is a link to any picture of the machine would be embedded in a page that is published."""
    run, secret = tmp_path / "run", tmp_path / f"secret-{name}"
    run.mkdir()
    report = make_report("a", run)
    (run / name).replace(secret)
    (run / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match="is a link out of its run"):
        render_page(report, tmp_path)
