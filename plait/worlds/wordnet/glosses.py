"""What a model knows of words: bits per byte on held-out glosses of WordNet, and which of four glosses belongs to a word.

Both are read from the same losses: every gloss is scored after its word (`word (noun): gloss`), nothing but the gloss counts, and
losses are per byte of text, so that models with different tokenizers compare. Words compete with words alone, as in plain text, so
that rows which a system added for pictures change nothing by themselves. The choice is right if the word's own gloss has the lowest
loss per byte; the three others are held-out glosses of words of the same kind. `_against_prior` is the same choice after what the gloss
costs without the word was taken off (Holtzman et al., arXiv 2104.08315); `_new_words` counts words that head no training gloss.
`trigram` is what two tokens of context reach: it was trained on all training glosses, in the model's own tokens.
"""

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from plait.document import Document, TextSpan
from plait.errors import DocumentError, RecipeError, VocabularyError
from plait.evaluation.bench import Bench, UnaskableError, derive_seed
from plait.evaluation.figures import MAIN, Figure, Record, summarise
from plait.evaluation.trigram import Trigrams
from plait.worlds.wordnet.archive import open_wordnet
from plait.worlds.wordnet.sources import write_gloss
from plait.worlds.wordnet.synsets import Synset, WordNet

CHOICES = 4
UNSEEN = Document((TextSpan("zyzzyva (noun): a snouted, wood-boring beetle"),))
"""what a tokenizer with a closed vocabulary cannot read"""
BITS, CHOICE = "bits_per_byte", "gloss_choice"

log = logging.getLogger(__name__)


ABOUT = {
    BITS: ("", "bits that the model needs per byte of unseen dictionary glosses (lower is better)"),
    CHOICE: ("choosing a word's gloss", "share of words whose own gloss, of four, costs the fewest bits"),
}


@dataclass(frozen=True)
class Question:
    """A word, its gloss (first) and three others."""

    synset: Synset
    glosses: tuple[str, ...]
    is_new: bool

    @cached_property
    def documents(self) -> list[Document]:
        """The glosses after the word, then the glosses after the kind alone."""
        words = (self.synset.words[0], "")
        return [write_gloss(self.synset, word, gloss=gloss, is_question=True) for word in words for gloss in self.glosses]

    @property
    def num_bytes(self) -> np.ndarray:
        """Bytes of each gloss, with the space before it."""
        return np.array([len(f" {gloss}".encode()) for gloss in self.glosses])


def judge_glosses(
    bench: Bench, blind: Any, split: str, wordnet: Callable[[], WordNet] = open_wordnet
) -> tuple[dict[str, Figure], list[Record]]:
    """Score the glosses of `n` words of a split.

    Args:
        blind: nothing; the trigrams are fitted here.
        wordnet: opens WordNet.

    Returns:
        `<split>/bits_per_byte` (lower is better) and `<split>/gloss_choice` with `_against_prior` and `_new_words`.

    Raises:
        UnaskableError: the model cannot read them (a closed word vocabulary), or the machine has no WordNet.
    """
    try:
        bench.model.builder.encode(UNSEEN)
    except VocabularyError as error:
        raise UnaskableError("its words are those of its world alone, and a dictionary has others", bench.n) from error
    try:
        words = wordnet()
    except RecipeError as error:
        raise UnaskableError(str(error), bench.n) from error
    questions = list_questions(words, split, bench.n, bench.seed)
    log.info("scoring %d words, and fitting the trigram baseline", len(questions))
    nats = bench.score([document for question in questions for document in question.documents], is_plain=True)
    trigram = fit_trigrams(bench, words)
    guessed = [_score_trigram(bench, trigram, document) for question in questions for document in question.documents]
    mine, theirs = (np.asarray(losses).reshape(len(questions), 2, CHOICES) for losses in (nats, guessed))
    mean_bytes = float(np.mean([question.num_bytes[0] for question in questions]))
    # bytes are the same for every model: the mean of these is bits over bytes of all glosses together
    bits, trigram_bits = ([{MAIN: float(row[0, 0]) / math.log(2) / mean_bytes} for row in table] for table in (mine, theirs))
    choices, trigram_choices = (
        [_choose(question, *row) for question, row in zip(questions, table, strict=True)] for table in (mine, theirs)
    )
    chance = [dict.fromkeys(scores, 1 / CHOICES) for scores in choices]
    found = [
        question.glosses[int((row[0] / question.num_bytes).argmin())] for question, row in zip(questions, mine, strict=True)
    ]
    figures: dict[str, Figure] = {}
    records: list[Record] = []
    for name, scored, baselines in (
        (BITS, bits, {"trigram": trigram_bits}),
        (CHOICE, choices, {"chance": chance, "trigram": trigram_choices}),
    ):
        key = f"{split}/{name}"
        made = [
            Record(key, question.documents[0], (), scores, question.synset.gloss, text, question.synset.id)
            for question, scores, text in zip(questions, scored, found, strict=True)
        ]
        figures |= summarise(key, made, baselines, is_share=name != BITS)
        records += made
    return figures, records


def list_questions(wordnet: WordNet, split: str, n: int, seed: int) -> list[Question]:
    """The first `n` words of a split, each with three glosses of other words of its kind; a pure function of the arguments."""
    synsets = wordnet.select(split)
    by_kind: dict[str, list[Synset]] = {}
    for synset in synsets:
        by_kind.setdefault(synset.kind_name, []).append(synset)
    questions = []
    for index, synset in enumerate(synsets[:n]):
        others = [other.gloss for other in by_kind[synset.kind_name] if other.gloss != synset.gloss]
        if len(others) < CHOICES - 1:
            raise DocumentError(
                f"WordNet has {len(others)} other {synset.kind_name} glosses in {split}, expected at least {CHOICES - 1} to choose from."
            )
        wrong = random.Random(derive_seed(seed, f"glosses/{split}", index)).sample(others, CHOICES - 1)
        questions.append(Question(synset, (synset.gloss, *wrong), wordnet.is_new(synset)))
    return questions


def fit_trigrams(bench: Bench, wordnet: WordNet) -> Trigrams:
    """Trigrams over the tokens of the training glosses, each once, after its first word."""
    builder = bench.model.builder
    documents = (write_gloss(synset, synset.words[0]) for synset in wordnet.select("train"))
    return Trigrams((builder.encode(document).ids for document in documents), builder.vocabulary.size)


def _choose(question: Question, after_word: np.ndarray, alone: np.ndarray) -> dict[str, float]:
    """Whether the own gloss is the cheapest; a draw is wrong."""
    per_byte, gained = after_word / question.num_bytes, (after_word - alone) / question.num_bytes
    scores = {name: float(values[0] < values[1:].min()) for name, values in ((MAIN, per_byte), ("against_prior", gained))}
    return scores | ({"new_words": scores[MAIN]} if question.is_new else {})


def _score_trigram(bench: Bench, trigram: Trigrams, document: Document) -> float:
    tokens = bench.model.builder.encode(document)
    return float(trigram.score(tokens.ids)[tokens.loss[1:]].sum())
