"""The subword tokenizer: it writes any text, knows its specials, and depends on the texts alone."""

import pytest

from plait.backbones.subwords import train_subwords
from plait.backbones.text import PretrainedTokenizer
from plait.errors import VocabularyError

TEXTS = [f"a {size} {thing} in the kitchen" for size in ("small", "large", "smaller") for thing in ("kettle", "kitten", "kit")]


@pytest.fixture(scope="module")
def subwords() -> PretrainedTokenizer:
    return train_subwords(TEXTS, 300, ["<start_of_turn>"])


def test_any_text_comes_back(subwords) -> None:
    for text in ("a kettle", "Zyzzyva! 12 µm – naïve, ☃", "two  spaces\nand a line"):
        ids = subwords.encode(text)
        assert subwords.decode(ids).strip() == text
        assert subwords.encode(subwords.decode(ids)) == ids
    assert subwords.encode("kettle") == subwords.encode(" kettle")  # the same word at the beginning and inside
    assert len(subwords.encode("a kettle in the kitchen")) < len(subwords.encode("b zxqjwv pm fgd dkcuyvw"))


def test_specials_and_markers(subwords) -> None:
    assert subwords.encode("<start_of_turn>") == [3]
    assert subwords.markers == {"pad": 0, "begin_document": 1, "end_document": 2}
    assert subwords.size <= 300


def test_the_ids_depend_on_the_texts_alone(subwords) -> None:
    again = train_subwords(reversed(TEXTS), 300, ["<start_of_turn>"])
    assert [again.encode(text) for text in TEXTS] == [subwords.encode(text) for text in TEXTS]


def test_save_and_load(subwords, tmp_path) -> None:
    subwords.save(tmp_path)
    loaded = PretrainedTokenizer.load(tmp_path)
    assert (loaded.size, loaded.markers) == (subwords.size, subwords.markers)
    assert [loaded.encode(text) for text in TEXTS] == [subwords.encode(text) for text in TEXTS]


def test_no_room_and_doubled_specials_are_refused() -> None:
    with pytest.raises(VocabularyError, match="no room beside 256 bytes and 3 specials: expected more than 259"):
        train_subwords(TEXTS, 259)
    with pytest.raises(VocabularyError, match="different non-empty"):
        train_subwords(TEXTS, 400, ["<bos>"])
