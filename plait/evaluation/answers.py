"""Exact answers of dialogues: written greedily, right if they are the answer's text.

Both sides are normalised as in SQuAD's evaluation (Rajpurkar et al., arXiv 1606.05250): lower case, no punctuation, no articles, white
space made one (Unicode NFKC first, ours); `_verbatim` counts what is right to the letter. Questions whose answer has more than `MOST_WORDS`
words have no one right answer and are left out; the figure says how many. `majority` answers as training most often did, `question_only` as
training did to that question, `no_picture` is the same model without its pictures.
"""

import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Any

from plait.evaluation.bench import Bench, describe_policies
from plait.evaluation.figures import MAIN, Figure, Record, Scores, summarise
from plait.evaluation.questions import Question

MOST_WORDS = 8
SPARE_TOKENS = 4
"""that an answer may be longer than the longest right one"""
ABOUT = {"answers": ("answering questions", "share of answers that are the right words, written greedily")}
SCORES = {"verbatim": "right to the letter"}


def judge_answers(bench: Bench, documents: Any, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Ask what the dialogues of up to `n` documents of a split ask.

    Args:
        documents: `plait.evaluation.documents.Documents`.

    Returns:
        `<split>/answers`, with `_verbatim`; nothing where every answer is a long one.

    Raises:
        UnaskableError: a prompt does not fit the model.
    """
    key, found = f"{split}/answers", documents.list_questions(split, bench.n, kinds=("dialogue",))
    questions = [question for question in found if len(normalise(question.answer).split()) <= MOST_WORDS]
    if not questions:
        return {}, []
    completions, given = _ask(bench, key, questions)
    known = documents.answers
    majority = known[""].most_common(1)[0][0] if known[""] else ""
    baselines = {
        "majority": [_compare(majority, question) for question in questions],
        "question_only": [
            _compare(known[question.text].most_common(1)[0][0] if question.text in known else majority, question)
            for question in questions
        ],
    }
    if all(question.images for question in questions):
        blindfolded = _ask(bench, key, [question.blindfolded for question in questions])[1]
        baselines["no_picture"] = [_compare(*row) for row in zip(blindfolded, questions, strict=True)]
    records = []
    for question, completion, answer, shown in zip(questions, completions, given, bench.illustrate(completions), strict=True):
        facts = (question.answer, answer, question.cluster, completion.seed)
        scores = _compare(answer, question)
        records.append(Record(key, completion.document, shown, scores, *facts, asked=question.text, prompt=completion.prompt))
    facts = {"longer answers left out": len(found) - len(questions)}
    return summarise(key, records, baselines, describe_policies(bench.policies), facts), records


def normalise(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(letter for letter in text if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _compare(answer: str, question: Question) -> Scores:
    is_right = normalise(answer) == normalise(question.answer)
    return {MAIN: float(is_right), "verbatim": float(answer == question.answer)}


def _ask(bench: Bench, key: str, questions: Sequence[Question]) -> tuple[list[Any], list[str]]:
    """Completions, and what they answer: up to the end of the turn."""
    layout, template = bench.model.builder.layout, bench.model.template
    longest = max(len(layout.encode_text(f"{question.answer}{question.ending}")) for question in questions)
    completions = bench.complete(key, [question.prompt for question in questions], max_tokens=longest + SPARE_TOKENS)
    ends = [question.ending.strip() for question in questions]
    texts = [one.text.split(end)[0] if end else one.text for one, end in zip(completions, ends, strict=True)]
    return completions, [template.answer(text) for text in texts]
