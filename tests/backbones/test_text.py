"""Text tokenizers: exact ids, the fixed point of decoding, and errors that help."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plait.backbones.text import PretrainedTokenizer, WordTokenizer, train_word_level
from plait.errors import CheckpointError, VocabularyError

TEXTS = ["a red heart, left of a blue star.", "Is it (really) a well-known star? Yes!", "the artist's 2 cups"]


@pytest.fixture
def words() -> WordTokenizer:
    return train_word_level(TEXTS, ["<start_of_turn>", "<end_of_turn>", "\n"])


def test_ids_do_not_depend_on_the_order_of_texts(words: WordTokenizer) -> None:
    again = train_word_level(reversed(TEXTS), ["<start_of_turn>", "<end_of_turn>", "\n"])
    assert again.encode(TEXTS[0]) == words.encode(TEXTS[0])
    assert (words.pad_id, words.bos_id, words.eos_id) == (0, 1, 2)
    assert sorted(set().union(*(words.encode(text) for text in TEXTS))) == list(range(6, words.size))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a  red heart ,left of a blue star .", "a red heart, left of a blue star."),
        ("Is it ( really ) a well - known star ?", "Is it (really) a well-known star?"),
        ("the artist's 2 cups", "the artist's 2 cups"),
        ("<start_of_turn>a star\n<end_of_turn>", "<start_of_turn> a star\n<end_of_turn>"),
        ("", ""),
    ],
)
def test_normal_form(words: WordTokenizer, text: str, normal: str) -> None:
    assert words.decode(words.encode(text)) == normal


def test_decoded_text_encodes_to_the_same_ids(words: WordTokenizer) -> None:
    rng = random.Random(0)
    for _ in range(500):
        ids = [rng.randrange(words.size) for _ in range(rng.randrange(12))]
        assert words.encode(words.decode(ids)) == ids


def test_specials_are_atomic_inside_text(words: WordTokenizer) -> None:
    assert words.encode("star<end_of_turn>star") == [words.encode("star")[0], 4, words.encode("star")[0]]


def test_unknown_word_is_named_with_neighbours(words: WordTokenizer) -> None:
    with pytest.raises(VocabularyError, match=r"Unknown word 'hart' in 'a red hart\.'.*'heart'"):
        words.encode("a red hart.")
    with pytest.raises(VocabularyError, match="no word is near"):
        words.encode("<start_of_turn> zzzzqqqq")


def test_capitals_are_no_other_words_and_the_known_spelling_is_proposed(words: WordTokenizer) -> None:
    with pytest.raises(VocabularyError) as refusal:
        words.encode("A Red Heart")
    assert "Unknown words 'A', 'Red', 'Heart' in 'A Red Heart'" in str(refusal.value)
    assert "'a' for 'A'; 'red' for 'Red'; 'heart' for 'Heart'. Reword the text, for example 'a red heart'" in str(refusal.value)
    with pytest.raises(VocabularyError, match=r"'Is' for 'IS'; 'cups' for 'cop'\. Reword the text or train"):
        words.encode("IS cop")


def test_foreign_ids_are_refused(words: WordTokenizer) -> None:
    with pytest.raises(VocabularyError, match=f"Id {words.size} is not a text id"):
        words.decode([words.size])
    with pytest.raises(VocabularyError, match="Id -1"):
        words.decode([-1])


def test_save_and_load(words: WordTokenizer, tmp_path) -> None:
    words.save(tmp_path)
    loaded = WordTokenizer.load(tmp_path)
    text = "<start_of_turn> a well-known star\n"
    assert loaded.size == words.size
    assert loaded.encode(text) == words.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    with pytest.raises(CheckpointError, match="No word tokenizer"):
        WordTokenizer.load(tmp_path / "elsewhere")


def test_bad_specials_and_texts_are_refused() -> None:
    with pytest.raises(VocabularyError, match="different non-empty"):
        train_word_level(TEXTS, ["<pad>"])
    with pytest.raises(VocabularyError, match="hold no word"):
        train_word_level(["  "])


@pytest.fixture
def released(tmp_path):
    """A byte-level tokenizer in the file layout of the Hub."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()

    def write(name: str, **tokens: str):
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(str(tmp_path / name))
        return tmp_path / name

    return write


def test_pretrained_tokenizer(released) -> None:
    tokenizer = PretrainedTokenizer(released("whole", bos_token="<s>", eos_token="</s>"))
    text = "Two  spaces, a snowman ☃ and an end."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.size) == (0, 1, 1, 258)
    assert tokenizer.encode("</s>") == [1]
    assert tokenizer.decode([0, 1]) == "<s></s>"
    with pytest.raises(VocabularyError, match="Id 258 is not a text id"):
        tokenizer.decode([258])


def test_pretrained_tokenizer_without_bos(released) -> None:
    folder = released("headless", eos_token="</s>")
    with pytest.raises(VocabularyError, match="needs a bos token but has none"):
        PretrainedTokenizer(folder)
    with pytest.raises(VocabularyError, match="does not contain"):
        PretrainedTokenizer(folder, bos="<|im_start|>")
    assert PretrainedTokenizer(folder, bos="</s>").bos_id == 1


def test_markers_that_the_tokenizer_already_has(released, tmp_path) -> None:
    folder = released("marked", bos_token="<s>", eos_token="</s>", additional_special_tokens=["<boi>", "<eoi>"])
    names = {"begin_image": "<boi>", "end_image": "<eoi>"}
    tokenizer = PretrainedTokenizer(folder, markers=names)
    assert (tokenizer.markers["begin_image"], tokenizer.markers["end_image"]) == (258, 259)
    assert tokenizer.encode("<boi>") == [258]
    assert "begin_image" not in PretrainedTokenizer(folder).markers
    with pytest.raises(VocabularyError, match="needs a unconditional token but has '<none>', which it does not contain"):
        PretrainedTokenizer(folder, markers={"unconditional": "<none>"})


def test_a_saved_tokenizer_remembers_what_it_was_told(released, tmp_path) -> None:
    folder = released("headless", eos_token="</s>", additional_special_tokens=["<boi>"])
    tokenizer = PretrainedTokenizer(folder, bos="<s>", markers={"begin_image": "<boi>"})
    tokenizer.save(tmp_path / "saved", chat_template="{{ messages[0]['content'] }}")
    loaded = PretrainedTokenizer.load(tmp_path / "saved")
    assert (loaded.size, loaded.bos_id, loaded.eos_id, loaded.pad_id) == (tokenizer.size, 0, 1, tokenizer.pad_id)
    assert loaded.markers == tokenizer.markers
    assert loaded.encode("a <boi> star") == tokenizer.encode("a <boi> star")
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    tokenizer.save(tmp_path / "plain")
    assert not (tmp_path / "plain" / "chat_template.jinja").exists()
    with pytest.raises(CheckpointError, match=r"No saved tokenizer in .*expected plait\.json"):
        PretrainedTokenizer.load(folder)
    (tmp_path / "plain" / "tokenizer.json").write_text("no")
    with pytest.raises(CheckpointError, match="cannot be read"):
        PretrainedTokenizer.load(tmp_path / "plain")
