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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from plait.document import Document, TextSpan
from plait.errors import DocumentError, RecipeError, VocabularyError
from plait.evaluation.bench import Bench, UnaskableError, derive_seed
from plait.evaluation.figures import MAIN, Figure, Record, summarise
from plait.evaluation.statistics import bootstrap_ratio
from plait.evaluation.trigram import Trigrams
from plait.worlds.wordnet.sources import write_gloss
from plait.worlds.wordnet.synsets import Synset, WordNet

CHOICES = 4
UNSEEN = Document((TextSpan("zyzzyva (noun): a snouted, wood-boring beetle"),))
"""what a tokenizer with a closed vocabulary cannot read"""
BITS, CHOICE = "bits_per_byte", "gloss_choice"

log = logging.getLogger(__name__)


ABOUT = {
    BITS: ("", "bits that the model needs per byte of unseen dictionary glosses (lower is better)"),
    f"{BITS}_kept": ("", "the base's bits over the model's: 1 keeps all of the base's knowledge of text"),
    CHOICE: ("choosing a word's gloss", "share of words whose own gloss, of four, costs the fewest bits"),
    f"{CHOICE}_kept": ("", "the model's share over that of the base it started from: 1 keeps all"),
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


def judge_glosses(bench: Bench, blind: Any, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Score the glosses of `n` words of a split.

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
        wordnet = bench.wordnet()
    except RecipeError as error:
        raise UnaskableError(str(error), bench.n) from error
    questions = list_questions(wordnet, split, bench.n, bench.seed)
    log.info("scoring %d words, and fitting the trigram baseline", len(questions))
    nats = score_documents(bench, [document for question in questions for document in question.documents])
    trigram = fit_trigrams(bench, wordnet)
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


def score_documents(bench: Bench, documents: Sequence[Document], batch_size: int = 64) -> list[float]:
    """Nats of what carries loss in each document; documents of like length are scored together."""
    order = sorted(range(len(documents)), key=lambda index: len(documents[index].text))
    losses = [0.0] * len(documents)
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        scores = bench.model.score([documents[index] for index in members], is_plain=True)
        for index, value in zip(members, scores.tolist(), strict=True):
            losses[index] = value
    return losses


def fit_trigrams(bench: Bench, wordnet: WordNet) -> Trigrams:
    """Trigrams over the tokens of the training glosses, each once, after its first word."""
    builder = bench.model.builder
    documents = (write_gloss(synset, synset.words[0]) for synset in wordnet.select("train"))
    return Trigrams((builder.encode(document).ids for document in documents), builder.vocabulary.size)


Items = Mapping[str, Sequence[Mapping[str, Any]]]
"""figure name -> judged items, each with its scores, what was expected, and its cluster"""


def keep_shares(items: Items, base: Items) -> dict[str, Figure]:
    """What of the base's text ability is left, as ratios of the same figures on the same items; 1 keeps all of it, more gains.

    Args:
        items, base: of the model and of its base.

    Returns:
        `<split>/gloss_choice_kept` (model over base) and `<split>/bits_per_byte_kept` (base over model).

    Raises:
        DocumentError: the base was examined on other items.
    """
    figures = {}
    for key in items:
        name = key.rpartition("/")[2]
        if name not in (BITS, CHOICE):
            continue
        asked, there = ([(item["expected"], item["cluster"]) for item in found.get(key, ())] for found in (items, base))
        if asked != there:
            raise DocumentError(
                f"{key}: the base was examined on {len(there)} other items than the model ({len(asked)}). Expected the same prompts: "
                "evaluate both with the same n and seed."
            )
        mine, theirs = ([item["scores"][MAIN] for item in found[key]] for found in (items, base))
        ratio = bootstrap_ratio(theirs, mine) if name == BITS else bootstrap_ratio(mine, theirs)
        figures[f"{key}_kept"] = Figure(ratio.value, ratio.low, ratio.high, ratio.n)
    return figures


def _choose(question: Question, after_word: np.ndarray, alone: np.ndarray) -> dict[str, float]:
    """Whether the own gloss is the cheapest; a draw is wrong."""
    per_byte, gained = after_word / question.num_bytes, (after_word - alone) / question.num_bytes
    scores = {name: float(values[0] < values[1:].min()) for name, values in ((MAIN, per_byte), ("against_prior", gained))}
    return scores | ({"new_words": scores[MAIN]} if question.is_new else {})


def _score_trigram(bench: Bench, trigram: Trigrams, document: Document) -> float:
    tokens = bench.model.builder.encode(document)
    return float(trigram.score(tokens.ids)[tokens.loss[1:]].sum())
