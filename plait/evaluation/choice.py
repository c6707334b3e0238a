"""Which of several answers a model takes by its own likelihood: no sampling, no judge, any data that answers something.

Beside a document's own answer stand up to three others of the same split, those that were given to the same question first. Each is put in
the answer's place, and the model chooses the one with the highest log-likelihood, summed (the figure) or per token (`_mean`). `majority` is
the one that training gave most often; `no_picture` is the same model, its pictures taken away: what stands above it was seen.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plait.document import Document
from plait.errors import LayoutError, VocabularyError
from plait.evaluation.bench import Bench, UnaskableError, derive_seed
from plait.evaluation.figures import MAIN, Figure, Record, Scores, summarise
from plait.evaluation.questions import Question

CHOICES = 4
ABOUT = {
    "choice": ("choosing among answers", "share of documents whose own answer, of up to four, is the likeliest to the model")
}
SCORES = {"mean": "the likeliest per token"}


def judge_choice(bench: Bench, documents: Any, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Choose among answers, for up to `n` documents of a split.

    Args:
        documents: `plait.evaluation.documents.Documents`.

    Returns:
        `<split>/choice`, with `_mean`; nothing where no question has two different answers.

    Raises:
        UnaskableError: a document does not fit the model.
    """
    key, questions = f"{split}/choice", documents.list_questions(split, bench.n)
    offered = [_offer(question, questions, derive_seed(bench.seed, key, index)) for index, question in enumerate(questions)]
    asked = [(question, offer) for question, offer in zip(questions, offered, strict=True) if len(offer) > 1]
    if not asked:
        return {}, []
    try:
        chosen = _choose(bench, asked)
        blindfolded = None
        if all(question.images for question, _ in asked):
            blindfolded = _choose(bench, [(question.blindfolded, offer) for question, offer in asked])
    except (LayoutError, VocabularyError) as error:
        raise UnaskableError(str(error), len(asked)) from error
    baselines: dict[str, list[Scores]] = {
        "chance": [dict.fromkeys((MAIN, "mean"), 1 / len(offer)) for _, offer in asked],
        "majority": [dict.fromkeys((MAIN, "mean"), _guess(documents.answers, *row)) for row in asked],
    }
    if blindfolded is not None:
        baselines["no_picture"] = [{name: float(place == 0) for name, place in row.items()} for row in blindfolded]
    records = []
    for (question, offer), row in zip(asked, chosen, strict=True):
        shown = tuple(bench.world.picture(span.image_id) for span in question.images)
        scores = {name: float(place == 0) for name, place in row.items()}
        facts = (question.answer, offer[row[MAIN]], question.cluster)
        records.append(Record(key, question.answered(offer[row[MAIN]]), shown, scores, *facts, prompt=question.prompt))
    return summarise(key, records, baselines, "the likeliest"), records


def _offer(question: Question, others: Sequence[Question], seed: int) -> list[str]:
    """The right answer first, then wrong ones."""
    dice = random.Random(seed)
    same, rest = [], []
    for other in others:
        (same if other.text == question.text else rest).append(other.answer)
    wrong = [sorted(set(answers) - {question.answer}) for answers in (same, rest)]
    shuffled = [answer for answers in wrong for answer in dice.sample(answers, len(answers))]
    return [question.answer, *dict.fromkeys(shuffled)][:CHOICES]


def _choose(bench: Bench, asked: Sequence[tuple[Question, Sequence[str]]]) -> list[Mapping[str, int]]:
    """Per question the place of the likeliest answer, by the sum and by the mean."""
    answered = [question.answered(answer) for question, offer in asked for answer in offer]
    nats = np.array(bench.score(answered))
    tokens = np.array([_count_targets(bench, document) for document in answered])
    chosen, start = [], 0
    for _, offer in asked:
        own = slice(start, start + len(offer))
        chosen.append({MAIN: int(nats[own].argmin()), "mean": int((nats[own] / tokens[own]).argmin())})
        start = own.stop
    return chosen


def _count_targets(bench: Bench, document: Document) -> int:
    return int(bench.model.builder.encode(document).loss[1:].sum())


def _guess(known: Mapping[str, Counter[str]], question: Question, offer: Sequence[str]) -> float:
    """How often the answer is right that training gave most often; equally frequent ones are drawn among."""
    counted = known.get(question.text) or known[""]
    most = max(counted[answer] for answer in offer)
    best = [answer for answer in offer if counted[answer] == most]
    return float(question.answer in best) / len(best)
