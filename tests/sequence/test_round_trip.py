"""read(build(d)) == d, and what the layout refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, LayoutError, VocabularyError
from plait.sequence.audit import audit, to_html, to_terminal
from plait.sequence.packing import group_by_length, pack
from plait.sequence.vocabulary import Vocabulary
from tests.sequence.random_documents import random_document, tiny_builder


@pytest.mark.parametrize(
    ("grid_shapes", "sizes"), [(((2, 3),), (11,)), (((1, 2), (2, 2)), (5, 7))], ids=["one level", "two levels"]
)
def test_read_inverts_build_on_ten_thousand_documents(grid_shapes, sizes) -> None:
    builder = tiny_builder(grid_shapes, sizes)
    rng = np.random.default_rng(0)
    for window in range(20):
        documents = [random_document(rng, builder, window * 500 + i) for i in range(500)]
        batch = builder.build(documents, row_length=128)
        read = {document.id: document for document in builder.read(batch)}
        assert len(read) == 500
        for document in documents:
            assert read[document.id] == document.merged()


def test_json_round_trip() -> None:
    builder = tiny_builder()
    rng = np.random.default_rng(1)
    for number in range(200):
        document = random_document(rng, builder, number)
        assert Document.from_json(document.to_json()) == document


def test_targets_are_shifted_inside_documents_only() -> None:
    builder = tiny_builder()
    documents = [Document((TextSpan("a red car", loss=True),), id=str(i)) for i in range(2)]
    batch = builder.build(documents, row_length=16)
    assert batch.ids[0, :5].tolist()[1:4] == batch.targets[0, :3].tolist()
    # the last token of the first document predicts nothing: the next document is none of its business
    assert batch.targets[0, 4] == -1
    assert batch.documents[1].start == 5
    assert batch.counts == {"text": 8.0, "image": 0.0}


def test_end_marker_counts_as_text_and_codes_as_image() -> None:
    builder = tiny_builder()
    image = ImageSpan("x", loss=True, form="codes", codes=(np.zeros((2, 3), dtype=int),))
    batch = builder.build([Document((TextSpan("a car"), image))])
    assert batch.counts == {"text": 2.0, "image": 6.0}  # end_image and end_document; six codes
    assert builder.count_targets([builder.encode(Document((TextSpan("a car"), image)))]) == batch.counts


def test_audit_shows_the_loss_of_the_batch() -> None:
    builder = tiny_builder()
    rng = np.random.default_rng(2)
    batch = builder.build([random_document(rng, builder, i) for i in range(20)], row_length=64)
    shown = audit(batch, builder)
    assert sum(token.term is not None for tokens in shown for token in tokens) == int((batch.targets >= 0).sum())
    assert "<begin_image>" in to_terminal(shown)
    assert "&lt;begin_image&gt;" in to_html(shown)


def test_vocabulary_is_bijective() -> None:
    vocabulary = Vocabulary(13, (5, 7), {"pad": 0, "begin_document": 1, "end_document": 2})
    ids = torch.arange(vocabulary.size)
    segments, local = vocabulary.locate(ids)
    back = torch.cat(
        [vocabulary.globalise(segment, local[segments == index]) for index, segment in enumerate(vocabulary.segments)]
    )
    assert torch.equal(back, ids)
    assert len(set(vocabulary.specials.values())) == 6
    with pytest.raises(VocabularyError, match="outside this vocabulary"):
        vocabulary.locate(torch.tensor([vocabulary.size]))
    with pytest.raises(VocabularyError, match="Unknown markers"):
        Vocabulary(3, (), {"bos": 0})


def test_packing_loses_nothing_and_groups_by_length() -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 50, 300).tolist()
    rows = pack(lengths, 64)
    assert sorted(i for row in rows for i in row) == list(range(300))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
    assert sum(lengths) / (64 * len(rows)) > 0.95
    with pytest.raises(LayoutError, match="more than the row length 64"):
        pack([65], 64)
    groups = group_by_length([0, 10, 20], [4, 2, 4])
    assert [group.shape for group in groups] == [(1, 2), (2, 4)]
    assert groups[1].tolist() == [[0, 1, 2, 3], [20, 21, 22, 23]]


@pytest.mark.parametrize(
    ("document", "error", "words"),
    [
        (Document((TextSpan("a zebra"),)), VocabularyError, "zebra"),
        (Document((ImageSpan("i"),)), LayoutError, "has form None, expected 'codes'"),
        (Document((ImageSpan("i", form="codes"), TextSpan("a"))), LayoutError, "is not the last span"),
        (Document((ImageSpan("i", form="codes", codes=(np.zeros((3, 2), int),)),)), LayoutError, r"\(\(3, 2\),\), expected"),
        (Document((ImageSpan("i", form="codes", codes=(np.full((2, 3), 11),)),)), VocabularyError, "another tokenizer"),
    ],
)
def test_layout_refuses(document, error, words) -> None:
    with pytest.raises(error, match=words):
        tiny_builder().build([document])


def test_a_damaged_row_is_not_read() -> None:
    builder = tiny_builder()
    image = ImageSpan("x", loss=True, form="codes", codes=(np.zeros((2, 3), dtype=int),))
    batch = builder.build([Document((TextSpan("a car"), image))])
    ids = batch.ids.clone()
    ids[0, 5] = builder.vocabulary.specials["end_image"]
    with pytest.raises(LayoutError, match=r"not all codes|not followed"):
        builder.read(replace(batch, ids=ids))
    with pytest.raises(DocumentError, match="no spans"):
        Document(())
