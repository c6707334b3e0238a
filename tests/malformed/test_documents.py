"""Malformed documents: as JSON, laid out and packed, worded by a template, drawn by policies, and as rows of a parquet file."""

from collections.abc import Callable
from inspect import unwrap
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from plait.backbones.text import train_word_level
from plait.data.hub import export_documents, open_rows
from plait.document import Document, ImageSpan, Span, TextSpan
from plait.sampling.policies import SamplingPolicy
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from plait.systems.liquid import LiquidTemplate
from tests.malformed.standard import Attempt, Case, assert_refused, table
from tests.malformed.test_images import PICTURE, encoded

TEXT = train_word_level(["a red car is left of the blue house ."])
VOCABULARY = Vocabulary(TEXT.size, (12,), TEXT.markers)
BUILDER = SequenceBuilder(DocumentLayout(VOCABULARY, TEXT, [code_frame(VOCABULARY.code_segments, [(2, 3)])]))
CODES = np.arange(6).reshape(2, 3)
GOOD = {"type": "text", "text": "a red car"}


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def read(*spans: Any, **facts: Any) -> Callable[[Path], Attempt]:
    """A document of JSON spans, read."""
    return lambda _: lambda: Document.from_json({"id": "doc-7", "spans": list(spans), **facts})


def build(*spans: Span, row_length: int | None = 32) -> Callable[[Path], Attempt]:
    """A document of two, laid out and packed."""
    documents = [Document((TextSpan("a car"),), id="doc-6"), Document(spans, id="doc-7")]
    return lambda _: lambda: BUILDER.build(documents, row_length)


def picture(*grids: Any, form: Any = "codes") -> ImageSpan:
    return ImageSpan("pic", loss=True, form=form, codes=grids or None)


def rows(change: Callable[[dict], Any], then: Callable[[Any], Any] = lambda found: found[0], count: int = 1) -> Any:
    """A parquet file of rows, the last of which is changed; opened and read."""

    def prepare(folder: Path) -> Attempt:
        segment = {"type": "image", "text": "", "image": 0, "image_id": "pic", "loss": False, "begin_loss": False}
        made = [
            {
                "id": f"row-{number}",
                "images": [{"bytes": encoded(PICTURE), "path": None}],
                "segments": [dict(segment)],
                "meta": "{}",
            }
            for number in range(count)
        ]
        change(made[-1])
        kinds = {"id": datasets.Value("string"), "images": datasets.List(datasets.Image(decode=False))}
        kinds = {name: kind for name, kind in kinds.items() if isinstance(made[-1].get(name), str | list)}
        table = datasets.Dataset.from_list(made)
        for name, kind in kinds.items():
            table = table.cast_column(name, kind)
        table.to_parquet(folder / "train.parquet")
        # the annotations that tests check would read a row themselves, ahead of whoever asks for it
        return lambda: then(unwrap(open_rows)(folder, cache_dir=str(folder.parent / "cache")))

    return prepare


def files(damage: Callable[[Path], Any], split: str = "train") -> Any:
    """An exported folder, damaged and opened."""

    def prepare(folder: Path) -> Attempt:
        documents = [Document((TextSpan("a car"), ImageSpan("pic")), id=f"doc-{number}") for number in range(4)]
        export_documents(documents, lambda _: PICTURE, folder, rows_per_file=2)
        damage(folder)
        return lambda: open_rows(folder, split, cache_dir=str(folder.parent / "cache"))

    return prepare


def export(document: Document) -> Any:
    return lambda folder: lambda: export_documents([document], lambda _: PICTURE, folder / "made")


def policy(**settings: Any) -> Any:
    return lambda _: lambda: SamplingPolicy(**settings)


def of_image(**entries: Any) -> dict[str, Any]:
    return {"type": "image", "image_id": "pic", "form": "codes", **entries}


FIRST = "train-00000-of-00002.parquet"
FORM = "Correct the JSON"
EXPORT = "Correct the row, or write it with export_documents"
IN_SPAN_0 = "'doc-7', span 0.*'pic'"


@table(
    Case(
        "json-no-object",
        lambda _: lambda: unwrap(Document.from_json.__func__)(Document, [1]),
        "'?'",
        "it is a list, no JSON object.*Expected",
        FORM,
    ),
    Case("json-no-spans", lambda _: lambda: Document.from_json({"id": "doc-7"}), "'doc-7'", "lacks 'spans'.*Expected", FORM),
    Case("json-empty-spans", read(), "'doc-7'", "no spans: expected at least one", "Add one"),
    Case("json-spans-a-word", read(spans="abc"), "'doc-7'", "spans = 'abc', which is a str", FORM),
    Case("json-no-type", read({"text": "a"}), "'doc-7'.*span 0", "type None, neither 'text' nor 'image'.*Expected", FORM),
    Case(
        "json-two-errors", read(GOOD, {"type": "txt"}, {"type": "image"}), "span 1 .*span 2", "'txt'.* lacks 'image_id'", FORM
    ),
    Case("json-misspelt-loss", read({**GOOD, "los": True}), "'doc-7'.*span 0", "unknown key 'los'.*Expected", FORM),
    Case("json-misspelt-ends", read(GOOD, end=False), "'doc-7'", "unknown key 'end'", FORM),
    Case("json-loss-a-word", read({**GOOD, "loss": "no"}), "'doc-7'.*span 0", "loss = 'no', which is a str", FORM),
    Case("json-text-a-number", read({"type": "text", "text": 5}), "'doc-7'.*span 0", "text = 5, which is a int", FORM),
    Case("json-unknown-form", read(of_image(form="pixels")), "'doc-7'.*span 0", r"'pixels', none of \('codes'", FORM),
    Case("json-ragged-codes", read(of_image(codes=[[[1, 2], [3]]])), "'doc-7'.*span 0", "no grids of whole numbers", FORM),
    Case("json-broken-codes", read(of_image(codes=[[[1.5, 2], [3, 4]]])), "'doc-7'.*span 0", "no grids of whole numbers", FORM),
    Case(
        "unknown-word",
        build(TextSpan("a red carr")),
        "'doc-7', span 0.*'carr'",
        "nearest are 'car'",
        "Reword the text or train",
    ),
    Case(
        "empty-text",
        build(TextSpan("a"), TextSpan(" ")),
        "'doc-7', span 1",
        "' ' has 0 tokens, expected at least 1",
        "Write some",
    ),
    Case("image-without-form", build(picture(form=None)), IN_SPAN_0, "form None, expected 'codes'", "wrap the document first"),
    Case("image-as-features", build(picture(form="features")), IN_SPAN_0, "'features', expected 'codes'", "Use a template"),
    Case(
        "hole-then-text",
        build(picture(), TextSpan("a")),
        IN_SPAN_0,
        "no codes and is not the last.*expected",
        "Encode it first",
    ),
    Case("other-grid", build(picture(CODES.T)), IN_SPAN_0, r"\(\(3, 2\),\), expected \(\(2, 3\),\)", "encode it again"),
    Case("too-many-levels", build(picture(CODES, CODES)), IN_SPAN_0, r"\(2, 3\)\), expected \(\(2, 3\),\)", "encode it again"),
    Case(
        "code-outside",
        build(picture(CODES + 7)),
        IN_SPAN_0,
        "run from 7 to 12, outside the 12 codes",
        "Encode it with this one",
    ),
    Case("code-negative", build(picture(CODES - 1)), IN_SPAN_0, "run from -1 to 4, outside the 12 codes", "another tokenizer"),
    Case("code-broken", build(picture(CODES + 0.5)), IN_SPAN_0, "type float64, expected whole numbers", "Encode it again"),
    Case("too-long", build(TextSpan("a car " * 20)), "'doc-7'", "42 tokens, more than the row length 32", "raise row_length"),
    Case(
        "no-document", lambda _: lambda: BUILDER.build([]), "batch", "0 documents .*expected at least 1", "Check what selects"
    ),
    Case(
        "nothing-to-learn",
        lambda _: lambda: LiquidTemplate().wrap(Document((TextSpan("a"), TextSpan("car")), id="doc-7", kind="pair"), 0),
        "'doc-7'",
        "kind 'pair' holds text, text, expected for kind='pair' one text and one image",
        "give the document its kind",
    ),
    Case("policy-cold", policy(temperature=-1.0), "temperature=-1", "expected .*temperature >= 0", "change what lies outside"),
    Case("policy-top-p", policy(top_p=0.0), r"top_p=0\.0", "expected .*0 < top_p <= 1", "change what lies outside"),
    Case("policy-guidance", policy(guidance=-2.0), r"guidance=-2\.0", "expected .*0 <= guidance", "change what lies outside"),
    Case("row-meta-no-json", rows(lambda row: row.update(meta="{no")), "'row-0'", "JSONDecodeError.*expected", EXPORT),
    Case("row-meta-a-list", rows(lambda row: row.update(meta="[1]")), "'row-0'", r"meta is \[1\].*expected", EXPORT),
    Case(
        "row-unknown-type",
        rows(lambda row: row["segments"][0].update(type="video")),
        "'row-0'",
        "'video': expected 't",
        "Correct",
    ),
    Case(
        "row-without-text", rows(lambda row: row["segments"][0].update(type="text", text=None)), "'row-0'", "text None", EXPORT
    ),
    Case(
        "row-empty", rows(lambda row: row.update(segments=[]), lambda found: found[1], 2), "'row-1'", "no spans: exp", "Add one"
    ),
    Case(
        "row-no-column", rows(lambda row: row.pop("segments")), "columns", r"\['segments'\] are missing: expected", "Rename its"
    ),
    Case(
        "row-images-a-number",
        rows(lambda row: row.update(images=3)),
        "column images",
        r"int64.*expected a list",
        "export_documents",
    ),
    Case(
        "row-picture-number",
        rows(lambda row: row["segments"][0].update(image=4), lambda found: found.picture("pic")),
        "'row-0'.*'pic'",
        "has 1 pictures, a segment names number 4, expected a number below 1",
        "Correct the segment",
    ),
    Case(
        "row-picture-no-image",
        rows(lambda row: row["images"][0].update(bytes=b"a cat"), lambda found: found.picture("pic")),
        "Image pic",
        "5 bytes that begin with b'a cat'.*Expected one of PNG",
        "convert",
    ),
    Case(
        "row-picture-empty",
        rows(lambda row: row["images"][0].update(bytes=None), lambda found: found.picture("pic"), count=2),
        "'row-1'.*'pic'",
        "has 0 bytes, expected its bytes",
        "Write them with export_documents",
    ),
    Case(
        "rows-share-a-name",
        rows(
            lambda row: row["images"][0].update(bytes=encoded(PICTURE.rotate(180))), lambda found: found.picture("pic"), count=2
        ),
        "'row-0' and 'row-1'.*'pic'",
        "different pictures .*expected one picture per name",
        "Rename one",
    ),
    Case("no-such-picture", rows(dict, lambda found: found.picture("cat")), "'cat'", "None of 1 rows", "Check the id"),
    Case(
        "file-cut", files(lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes()[:-9])), FIRST, "expected b'PAR1'", "again"
    ),
    Case("file-is-text", files(lambda f: (f / FIRST).write_text("id,text")), FIRST, "7 bytes that begin with b'id,t'", "again"),
    Case("file-missing", files(lambda f: (f / FIRST).unlink()), "given", "holds 1 files .*expected 2", "export the missing"),
    Case(
        "split-missing", files(lambda _: None, "val"), "'val'", r"found \['train-.*expected val\.parquet", "Name another split"
    ),
    Case(
        "export-codes", export(Document((picture(CODES),), id="doc-7")), "'doc-7'.*'pic'", "already encoded", "export the raw"
    ),
)
def test_a_malformed_document_is_refused(case: Case, tmp_path: Path) -> None:
    assert_refused(case, tmp_path / "given")


def test_the_rows_of_these_tests_are_sound(tmp_path: Path) -> None:
    """Unchanged, they are read: what is refused above is refused for what was changed."""
    attempt = rows(lambda row: None, lambda found: (found[0], found.picture("pic").size))(tmp_path)
    assert attempt() == (Document((ImageSpan("pic"),), id="row-0"), PICTURE.size)
