"""What a picture is in the sequences of the five systems, as data: three of them have no builder yet."""

from dataclasses import replace

import numpy as np
import pytest

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import LayoutError, VocabularyError
from plait.sampling.grammar import Grammar, RowState
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import Frame, Marker, code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from plait.tokenizers.folding import fold_places
from tests.sequence.random_documents import WORDS, TinyText

TEXT = TinyText()
GIVEN = ("begin_given", "end_given")


def make_builder(system: str) -> SequenceBuilder:
    """Documents of a system with pictures of a few positions."""
    vocabulary = Vocabulary(
        TEXT.size, () if system == "mm_interleaved" else (11,), TEXT.markers, GIVEN if system == "armor" else ()
    )
    codes = vocabulary.code_segments
    frames = {
        "liquid": lambda: [code_frame(codes, ((2, 3),))],
        "synergen_vl": lambda: [code_frame(codes, ((4, 4),), (fold_places((4, 4), (2, 4)),))],
        "illume": lambda: [Frame(lengths=(4,), max_tiles=10), code_frame(codes, ((2, 3),))],
        "armor": lambda: [
            Frame(lengths=(4,), before=(Marker(GIVEN[0]),), after=(Marker(GIVEN[1]),)),
            code_frame(codes, ((2, 3),), after=(Marker("end_image", head="image", is_forced=True),)),
        ],
        "mm_interleaved": lambda: [Frame(lengths=(6,), after=(), max_tiles=1, target="picture")],
    }
    return SequenceBuilder(DocumentLayout(vocabulary, TEXT, frames[system]()))


SYSTEMS = ("liquid", "synergen_vl", "illume", "armor", "mm_interleaved")


def draw_image(rng: np.random.Generator, frame: Frame, name: str) -> ImageSpan:
    """A picture of this form with any tiles and loss flags that the form can have."""
    loss = bool(rng.integers(2)) and (frame.form == "codes" or frame.target == "picture")
    tiles = 1 if loss else int(rng.integers(1, min(frame.max_tiles or 3, 3) + 1))
    begin = loss and bool(rng.integers(2))
    if frame.form == "features":
        pixels = rng.integers(256, size=(tiles, 2, 2, 3), dtype=np.uint8)
        return ImageSpan(name, loss, begin, "features", pixels=pixels if tiles > 1 else pixels[0])
    grids = tuple(rng.integers(11, size=(tiles, *shape)) for shape in frame.grid_shapes)
    return ImageSpan(name, loss, begin, "codes", tuple(grid if tiles > 1 else grid[0] for grid in grids))


def draw_document(rng: np.random.Generator, layout: DocumentLayout, number: int) -> Document:
    """One to six spans; one document in eight ends in a hole."""
    spans: list = []
    for index in range(rng.integers(1, 7)):
        if rng.random() < 0.5:
            spans.append(TextSpan(" ".join(rng.choice(WORDS, rng.integers(1, 6))), bool(rng.integers(2))))
        else:
            frame = list(layout.frames.values())[rng.integers(len(layout.frames))]
            spans.append(draw_image(rng, frame, f"image-{number}-{index}"))
    if rng.random() < 0.125:
        hole = bool(rng.integers(2))
        count = sum(isinstance(span, ImageSpan) for span in spans)
        spans.append(ImageSpan(f"document-{number}/drawn-{count}", hole, hole, layout.drawn_frame.form))
    ends = not (isinstance(spans[-1], ImageSpan) and spans[-1].is_hole) and bool(rng.integers(2))
    return Document(tuple(spans), id=f"document-{number}", ends=ends)


@pytest.mark.parametrize("system", SYSTEMS)
def test_read_inverts_build_on_ten_thousand_documents(system) -> None:
    builder, rng = make_builder(system), np.random.default_rng(0)
    for window in range(20):
        documents = [draw_document(rng, builder.layout, window * 500 + i) for i in range(500)]
        read = {document.id: document for document in builder.read(builder.build(documents, row_length=192))}
        assert len(read) == 500
        assert all(read[document.id] == document.merged() for document in documents)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_frame_says_what_a_picture_takes(system) -> None:
    builder, rng = make_builder(system), np.random.default_rng(1)
    for frame in builder.layout.frames.values():
        for _ in range(20):
            span = draw_image(rng, frame, "x")
            tokens = builder.encode(Document((span,), ends=False))
            assert len(tokens) == 1 + frame.length(frame.count_tiles(span))
            assert (tokens.cells >= 0).sum() == frame.positions * frame.count_tiles(span)


@pytest.mark.parametrize(
    ("system", "counts"),
    [
        # begin marker, codes, end marker and the end of the document
        ("liquid", {"text": 3.0, "image": 6.0}),
        ("synergen_vl", {"text": 3.0, "image": 16.0}),
        ("illume", {"text": 3.0, "image": 6.0}),
        ("armor", {"text": 2.0, "image": 7.0}),  # the visual head leaves the picture
        ("mm_interleaved", {"text": 2.0, "image": 0.0}),  # the picture itself is the target, at its marker
    ],
)
def test_each_target_belongs_to_a_head(system, counts) -> None:
    builder, rng = make_builder(system), np.random.default_rng(2)
    image = draw_image(rng, replace(builder.layout.drawn_frame, max_tiles=1), "x")
    document = Document((TextSpan("a car"), replace(image, loss=True, begin_loss=True)))
    batch = builder.build([document])
    assert batch.counts == counts
    assert builder.count_targets([builder.encode(document)]) == counts


def test_the_budget_of_a_picture_is_that_of_its_frame() -> None:
    builder = make_builder("liquid")
    frame = builder.layout.drawn_frame
    grammar = Grammar(builder.vocabulary, frame, TEXT.size)
    begin = builder.vocabulary.specials["begin_image"]
    legal = [
        bool(grammar.masks[grammar.legal_text(RowState(left, images_left=1))][begin])
        for left in (frame.length(), frame.length() + 1)
    ]
    assert legal == [False, True], "the document must still be able to end"


@pytest.mark.parametrize(
    ("span", "error", "words"),
    [
        (ImageSpan("i", form="features", pixels=np.zeros((2, 2), np.uint8)), LayoutError, r"shape \(2, 2\).*expected \(height"),
        (ImageSpan("i", form="features", pixels=np.zeros((2, 2, 3))), LayoutError, "float64.*of uint8"),
        (
            ImageSpan("i", form="features", pixels=np.zeros((11, 2, 2, 3), np.uint8)),
            LayoutError,
            "11 tiles, expected at most 10",
        ),
        (
            ImageSpan("i", True, form="features", pixels=np.zeros((2, 2, 3), np.uint8)),
            LayoutError,
            "carries loss.*has no probab",
        ),
    ],
)
def test_features_that_no_frame_takes_are_refused(span, error, words) -> None:
    with pytest.raises(error, match=words):
        make_builder("illume").build([Document((span, TextSpan("a")))])


def test_frames_that_do_not_fit_are_refused() -> None:
    vocabulary = Vocabulary(TEXT.size, (11,), TEXT.markers)
    frame = code_frame(vocabulary.code_segments, ((2, 3),))
    with pytest.raises(LayoutError, match="one per form"):
        DocumentLayout(vocabulary, TEXT, [frame, frame])
    with pytest.raises(VocabularyError, match="begin_given"):
        DocumentLayout(vocabulary, TEXT, [Frame(lengths=(4,), before=(Marker("begin_given"),))])
    with pytest.raises(LayoutError, match="expected one per level"):
        code_frame(vocabulary.code_segments, ())
