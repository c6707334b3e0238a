"""Context: does a model do better after it has seen the task done? None, two and four solved documents stand before the prompt.

All of it is one document: the spans of solved training documents in the wording of their prompts, without loss and without an end
between them (an end would say that nothing more comes; what was trained as one document never held one inside), then the prompt. The
examples are other training documents of the same task for every item, the same ones for every system; two are the first two of four.

- `copy_context` answers as the last example does, so a model that repeats what it saw lands there;
- `gain` is the score with four examples less that with none, item by item: 0 for a model that ignores its context, below 0 for one
  that is confused by it.
Systems that were trained on single documents have never met such a sequence: their gain is a finding, not a defect.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from plait.document import Document, Span, TextSpan
from plait.evaluation.bench import Bench, UnaskableError, describe_policies
from plait.evaluation.figures import MAIN, Figure, Record, average, skip, summarise
from plait.worlds.emoji.captions import describe, parse
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.lookup import SlotLookup
from plait.worlds.emoji.examinations.requests import (
    Answer,
    Request,
    answer_blindly,
    ask,
    fill,
    request_answer,
    request_caption,
    request_picture,
    show,
)
from plait.worlds.emoji.examinations.understanding import (
    ANSWER_TOKENS,
    CAPTION_TOKENS,
    Question,
    list_questions,
    take_questions,
)
from plait.worlds.emoji.scenes import Scene

NUM_EXAMPLES = (0, 2, 4)


GAIN = "context_gain"
"""a difference of shares, item by item"""
ABOUT = {
    **{
        f"context_{k}": (
            f"after {k or 'no'} examples",
            f"share of right answers (drawing, captions, questions) after {k} solved examples",
        )
        for k in NUM_EXAMPLES
    },
    GAIN: (
        "",
        "what four solved examples before the prompt add to the share: 0 ignores them, below 0 is confused by them",
    ),
}


@dataclass(frozen=True)
class Example:
    """A solved training document: its spans, and its answer as a judge reads it."""

    spans: tuple[Span, ...]
    answer: Answer


@dataclass(frozen=True)
class Task:
    """A task that can be shown before it is asked.

    Args:
        source: of its documents.
        request: (bench, document) -> the prompt of a test document.
        example: (bench, training document) -> the same, solved.
        look_up: (table of seen blocks, document) -> the table's answer.
        max_tokens: of an answer.
    """

    source: str
    request: Callable[[Bench, Document], Request]
    example: Callable[[Bench, Document], Example]
    look_up: Callable[[SlotLookup, Document], Answer]
    max_tokens: int = 1


def judge_context(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Draw, caption and answer after none, two and four solved documents.

    Returns:
        figures `<split>/context_<k>` (mean over tasks) and `<split>/context_<k>_<task>` beside `copy_context`, and
        `<split>/context_gain_<task>`, of which `<split>/context_gain` is the mean. What does not fit the model is skipped.
    """
    policy = describe_policies(bench.policies)
    means: dict[str, Figure] = {}
    single: dict[str, Figure] = {}
    kept: list[Record] = []
    judged: dict[tuple[int, str], list[Record]] = {}
    for k in NUM_EXAMPLES:
        own: dict[str, Figure] = {}
        records: list[Record] = []
        for name in TASKS:
            key = f"{split}/context_{k}_{name}"
            figures, found = _judge_task(bench, blind, split, name, k, key)
            own |= figures
            records += found
            judged[k, name] = found
        means[f"{split}/context_{k}"], records = average(f"{split}/context_{k}", own, records, policy)
        single |= own
        kept += records
    gains = {
        f"{split}/context_gain_{name}": _gain(f"{split}/context_gain_{name}", judged[0, name], judged[max(NUM_EXAMPLES), name])
        for name in TASKS
    }
    figures = {key: next(iter(summarise(key, found, policy=policy).values())) for key, found in gains.items() if found}
    if figures:
        records = [record for found in gains.values() for record in found]
        means[f"{split}/context_gain"], records = average(f"{split}/context_gain", figures, records, policy)
        kept += records
    return {**means, **single, **figures}, kept


def _judge_task(
    bench: Bench, blind: BlindAnswers, split: str, name: str, num_examples: int, key: str
) -> tuple[dict[str, Figure], list[Record]]:
    task = TASKS[name]
    documents = _take(bench, name, split)
    requests = [task.request(bench, document) for document in documents]
    training = bench.world.source(task.source, "train")
    shown: list[list[Example]] = []
    for number in range(len(requests)):
        chosen = Random(f"{bench.seed}/{split}/{name}/{number}").sample(range(len(training)), max(NUM_EXAMPLES))
        shown.append([task.example(bench, training[index]) for index in chosen[:num_examples]])
    prompts = [
        replace(request, prompt=replace(request.prompt, spans=(*(s for e in own for s in e.spans), *request.prompt.spans)))
        for request, own in zip(requests, shown, strict=True)
    ]
    try:
        records = ask(bench, key, prompts, max_tokens=task.max_tokens)
    except UnaskableError as error:
        return skip(key, error.num_prompts, str(error)), []
    constants = {"drawing": show(blind.majority(2)), "captions": Answer(describe(blind.majority(2)))}
    baselines = answer_blindly(requests, constants.get(name))
    if blind.lookup is not None:
        baselines["slot_lookup"] = [
            request.judge(task.look_up(blind.lookup, document)) for request, document in zip(requests, documents, strict=True)
        ]
    if num_examples:
        baselines["copy_context"] = [r.judge(own[-1].answer) for r, own in zip(requests, shown, strict=True)]
    return summarise(key, records, baselines, describe_policies(bench.policies)), records


def _gain(key: str, without: Sequence[Record], with_examples: Sequence[Record]) -> list[Record]:
    """Per item the score with examples less the score without; none where one of the two was skipped."""
    if not without or not with_examples:
        return []
    return [
        replace(after, key=key, scores={MAIN: after.scores[MAIN] - before.scores[MAIN]})
        for before, after in zip(without, with_examples, strict=True)
    ]


def _take(bench: Bench, name: str, split: str) -> list[Document]:
    if name == "questions":
        few = replace(bench, n=max(1, bench.n // 6))  # n questions in all, of six types
        return [Document((bench.show(item.image_id),), meta={"question": item}) for item in take_questions(few, split)]
    documents = bench.world.source(TASKS[name].source, split)
    return bench.take(documents, name=lambda document: document.text if name == "drawing" else document.images[0].image_id)


def _scene(document: Document) -> Scene:
    return Scene.from_json(document.meta["scene"])


def _ask_drawing(bench: Bench, document: Document) -> Request:
    return request_picture(bench.model.template.draw_prompt(document.text), _scene(document), document.text)


def _show_drawing(bench: Bench, document: Document) -> Example:
    scene = _scene(document)
    spans = fill(bench.model.template.draw_prompt(document.text), bench.show(scene.id))
    return Example(spans, show(scene))


def _ask_caption(bench: Bench, document: Document) -> Request:
    scene = _scene(document)
    return request_caption(bench.model.template.caption_prompt(bench.show(scene.id)), scene)


def _show_caption(bench: Bench, document: Document) -> Example:
    prompt = bench.model.template.caption_prompt(bench.show(_scene(document).id))
    return Example(fill(prompt, document.text), Answer(document.text))


def _ask_question(bench: Bench, document: Document) -> Request:
    item: Question = document.meta["question"]
    prompt = bench.model.template.question_prompt(document.images[0], item.text)
    return request_answer(prompt, item.answer, item.image_id, item.kind)


def _show_question(bench: Bench, document: Document) -> Example:
    item = list_questions(document)[0]
    shown = bench.show(item.image_id)
    # wrapped as in training, where an answer ends with its turn
    solved = Document((shown, TextSpan(item.text), TextSpan(item.answer, loss=True)), kind="dialogue")
    wrapped = bench.model.template.wrap(solved, 0)
    return Example(tuple(replace(span, loss=False) for span in wrapped.spans), Answer(item.answer))


def _look_up_question(table: SlotLookup, document: Document) -> Answer:
    item: Question = document.meta["question"]
    return Answer(table.answer(item.image_id, item.text) or "")


TASKS = {
    "drawing": Task(
        "two_objects", _ask_drawing, _show_drawing, lambda table, d: Answer(seen=tuple(table.draw([parse(d.text)])))
    ),
    "captions": Task(
        "two_objects", _ask_caption, _show_caption, lambda table, d: Answer(describe(table.read(_scene(d).id))), CAPTION_TOKENS
    ),
    "questions": Task("vqa", _ask_question, _show_question, _look_up_question, ANSWER_TOKENS),
}
