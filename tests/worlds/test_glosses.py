"""The text figures: right for a model that knows its words, chance for one that does not, and counted where they cannot be had."""

import zlib

import pytest
import torch

from plait.backbones.subwords import train_subwords
from plait.backbones.text import train_word_level
from plait.errors import RecipeError
from plait.evaluation.bench import Bench, UnaskableError
from plait.evaluation.protocol import evaluate
from plait.sequence.builder import SequenceBuilder
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from plait.worlds.emoji import EmojiWorld
from plait.worlds.emoji.examinations.plan import TEXT_PLAN, EmojiExaminations
from plait.worlds.wordnet import WordNet
from plait.worlds.wordnet.glosses import judge_glosses, list_questions
from plait.worlds.wordnet.synsets import iterate_texts
from tests.data.tiny_wordnet import make_synsets
from tests.worlds.stub_models import PICTURES

WORDNET = WordNet(make_synsets())
TOKENIZER = train_subwords(iterate_texts(WORDNET.select("train")), size=400, has_leading_space=True)


class Scorer:
    """A model that charges every byte of a gloss what `price` says."""

    vision_tokenizer, image_size = None, None

    def __init__(self, price, tokenizer=TOKENIZER) -> None:
        self.builder = SequenceBuilder(DocumentLayout(Vocabulary(tokenizer.size, (), tokenizer.markers), tokenizer))
        self.price = price

    def score(self, documents, *, is_plain):
        return torch.tensor(
            [self.price(*(span.text for span in item.spans)) * len(item.spans[1].text.encode()) for item in documents]
        )


def knows(head: str, gloss: str) -> float:
    """The word's own gloss costs half."""
    own = {f"{word} ({item.kind_name}):": item.gloss for item in WORDNET.synsets for word in item.words}
    return 0.5 if own.get(head) == gloss.strip() else 1.0


def guesses(head: str, gloss: str) -> float:
    return 1 + zlib.crc32(f"{head}{gloss}".encode()) / 2**32


def hears(head: str, gloss: str) -> float:
    """Each gloss has a price of its own; the right word takes a little off."""
    return guesses("", gloss) - 0.01 * (knows(head, gloss) < 1)


def examine(price, n=40, **options):
    bench = Bench(Scorer(price, **options), EmojiWorld(), None, PICTURES, {}, n=n)
    return *judge_glosses(
        bench, None, "train", lambda: WORDNET
    ), bench  # the split with most words; a stub has not been trained


def test_a_model_that_knows_its_words_is_right() -> None:
    figures, records, _ = examine(knows)
    assert figures["train/gloss_choice"].value == figures["train/gloss_choice_against_prior"].value == 1.0
    assert figures["train/bits_per_byte"].value == pytest.approx(0.5 / 0.6931, rel=1e-3)
    assert figures["train/gloss_choice"].baselines["chance"] == 0.25
    assert {"trigram", "chance"} == set(figures["train/gloss_choice"].baselines)
    # two tokens of context reach more than nothing on glosses that are so much alike
    assert 0 < figures["train/bits_per_byte"].baselines["trigram"] < 8
    assert [record.expected == record.found for record in records] == [True] * 80


def test_a_model_that_guesses_is_at_chance() -> None:
    figures, *_ = examine(guesses, n=300)
    assert figures["train/gloss_choice"].value == pytest.approx(0.25, abs=0.08)
    assert figures["train/gloss_choice_against_prior"].value == pytest.approx(0.25, abs=0.08)


def test_what_a_gloss_costs_without_its_word_can_be_taken_off() -> None:
    figures, *_ = examine(hears, n=300)
    assert figures["train/gloss_choice"].value < 0.4
    assert figures["train/gloss_choice_against_prior"].value == 1.0


def test_bits_per_byte_is_bits_over_bytes_of_all_glosses() -> None:
    figures, records, _ = examine(guesses)
    questions = list_questions(WORDNET, "train", 40, 0)
    bits = sum(guesses(q.documents[0].spans[0].text, f" {q.glosses[0]}") * q.num_bytes[0] for q in questions) / 0.693147
    assert figures["train/bits_per_byte"].value == pytest.approx(bits / sum(q.num_bytes[0] for q in questions), rel=1e-5)
    assert len([record for record in records if record.key == "train/bits_per_byte"]) == 40


def test_questions_are_fair() -> None:
    questions = list_questions(WORDNET, "held_out", 20, seed=3)
    assert questions == list_questions(WORDNET, "held_out", 20, seed=3)
    assert questions != list_questions(WORDNET, "held_out", 20, seed=4)
    held_out = {item.gloss: item.kind for item in WORDNET.select("held_out")}
    for question in questions:
        assert len(set(question.glosses)) == 4
        assert {held_out[gloss] for gloss in question.glosses} == {question.synset.kind}
        assert question.is_new
        assert [document.spans[0].text for document in question.documents[4:]] == [f" ({question.synset.kind_name}):"] * 4


def test_new_words_have_a_figure_of_their_own() -> None:
    bench = Bench(Scorer(knows), EmojiWorld(), None, PICTURES, {}, n=10)
    figures, _ = judge_glosses(bench, None, "held_out", lambda: WORDNET)
    assert figures["held_out/gloss_choice_new_words"].n == 10


def test_a_closed_vocabulary_is_a_counted_skip() -> None:
    words = train_word_level(["a red car to the left of a blue key (noun): ,"])
    with pytest.raises(UnaskableError, match="words are those of its world alone") as skipped:
        examine(knows, tokenizer=words)
    assert skipped.value.num_prompts == 40


def test_no_wordnet_is_a_counted_skip() -> None:
    def fail():
        raise RecipeError("pip could not fetch it")

    bench = Bench(Scorer(knows), EmojiWorld(), None, PICTURES, {}, n=7)
    with pytest.raises(UnaskableError, match="pip could not fetch it") as skipped:
        judge_glosses(bench, None, "held_out", fail)
    assert skipped.value.num_prompts == 7


def test_a_language_model_takes_the_text_examination_alone(world, oracle) -> None:
    plan = {"val": ("captions", "vqa"), **TEXT_PLAN}
    lines: list[str] = []
    found = evaluate(
        Scorer(knows),
        world,
        oracle,
        PICTURES,
        {},
        n=10,
        plan=plan,
        examinations=EmojiExaminations(world, lambda: WORDNET),
        on_progress=lines.append,
    )
    assert set(found.facts["skipped"]) == {"val/captions", "val/vqa"}
    assert lines[0].startswith("val/captions: not asked of this model (The model neither reads nor draws pictures.)")
    assert not any("nan" in line for line in lines)
    assert found.results["held_out/gloss_choice"]["value"] == 1.0
