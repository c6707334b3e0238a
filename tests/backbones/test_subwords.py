"""Subwords: every text is written and read back to the letter, specials are one id, and the same texts give the same ids."""

import pytest

from plait.backbones.subwords import SubwordTokenizer, train_subwords
from plait.errors import VocabularyError

TEXTS = ["A red kite, flying over the hill.", "the red hill and the red kite", "Über den Wolken: kites!"] * 3
SPECIALS = ["<start_of_turn>", "<end_of_turn>"]


@pytest.fixture(scope="module")
def subwords() -> SubwordTokenizer:
    return train_subwords(TEXTS, SPECIALS, 320)


@pytest.mark.parametrize(
    "text", [TEXTS[2], " two  spaces\n\tand a tab ", "never seen: zebra 斑马 🦓", "a<end_of_turn>\n<start_of_turn>user\n"]
)
def test_every_text_is_read_back_to_the_letter(subwords, text):
    assert subwords.decode(subwords.encode(text)) == text


def test_specials_are_one_id_and_frequent_words_few(subwords):
    assert subwords.encode("<start_of_turn>") == [3]
    assert (subwords.pad_id, subwords.bos_id, subwords.eos_id) == (0, 1, 2)
    assert len(subwords.encode(" kite")) < len(subwords.encode(" zebra"))
    assert 261 < subwords.size <= 320


def test_training_is_repeatable_and_survives_a_folder(subwords, tmp_path):
    subwords.save(tmp_path)
    read = SubwordTokenizer.load(tmp_path)
    assert read.is_same(subwords)
    assert train_subwords(TEXTS, SPECIALS, 320).is_same(subwords)
    assert not train_subwords(TEXTS[:2] * 2, SPECIALS, 320).is_same(subwords)
    assert read.markers == subwords.markers


def test_a_word_has_one_id_where_texts_begin_with_a_space():
    spaced = train_subwords(TEXTS, SPECIALS, 320, has_leading_space=True)
    assert spaced.encode("kite") == spaced.encode(" kite")
    assert spaced.decode(spaced.encode("red kite")) == " red kite"


def test_what_cannot_be_is_refused(subwords):
    with pytest.raises(VocabularyError, match=r"100 ids: expected at least 261.*Set a larger size"):
        train_subwords(TEXTS, SPECIALS, 100)
    with pytest.raises(VocabularyError, match="Specials must be different"):
        train_subwords(TEXTS, ["<pad>"])
    with pytest.raises(VocabularyError, match=r"Id 320 is not a text id|Id 999"):
        subwords.decode([999])
