"""Reading pictures: captions and questions.

A caption is right if the closed grammar of the world reads exactly the scene from it; wording does not matter, articles do.
An answer is right if it is the answer's text. Questions are reported by type, because a type is won or lost as a whole and
a mean over types hides it; for each, `majority` is the best constant answer on the very items, and `question_only` answers
each question as training most often did, without looking; `slot_lookup` looks and computes nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from plait.document import Document
from plait.evaluation.bench import Bench, describe_policies
from plait.evaluation.figures import MAIN, Figure, Record, Scores, average, summarise
from plait.worlds.emoji.board_texts import BOARD_TYPES
from plait.worlds.emoji.captions import describe, parse
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.lookup import SlotLookup
from plait.worlds.emoji.questions import TYPES
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import imagine, score_scene

CAPTION_TOKENS = 40
ANSWER_TOKENS = 12


ABOUT = {
    "captions": (
        "captioning two things",
        "share of pictures whose caption names both things, their colours and places without a fault",
    ),
    "captions_one_object": (
        "captioning one thing",
        "share of pictures of one thing whose caption names it, its colour and its place",
    ),
    "vqa": ("answering questions", "share of right answers about pictures, each type of question weighing the same"),
    "dense_vqa": ("answering about full boards", "share of right answers about boards of many things"),
    "vqa_colour": ("", "what colour is the car ?"),
    "vqa_count": ("", "how many red objects are there ?"),
    "vqa_exists": ("", "is there a red car ?"),
    "vqa_same_colour": ("", "are the objects the same colour ?"),
    "vqa_what": ("", "what is on the left ?"),
    "vqa_where": ("", "where is the car ?"),
}


def judge_captions(bench: Bench, blind: BlindAnswers, split: str, task: str) -> tuple[dict[str, Figure], list[Record]]:
    """Caption the pictures of a split.

    Args:
        task: "two_objects", reported as `<split>/captions`, or "one_object", reported as `<split>/captions_one_object`.

    Returns:
        figures with `_objects`, `_colours`, `_cells`, `_places`, `_relation` and `_ungrammatical` (no caption of the grammar at all).
    """
    key = f"{split}/captions" if task == "two_objects" else f"{split}/captions_{task}"
    documents = bench.take(bench.world.source(task, split), name=lambda document: document.images[0].image_id)
    scenes = [Scene.from_json(document.meta["scene"]) for document in documents]
    prompts = [bench.model.template.caption_prompt(bench.show(scene.id)) for scene in scenes]
    completions = bench.complete(key, prompts, max_tokens=CAPTION_TOKENS)
    records = []
    for scene, completion, shown in zip(scenes, completions, bench.illustrate(completions), strict=True):
        caption = bench.model.template.answer(completion.text)
        read = parse(caption)
        scores = score_scene(imagine(read.things if read else ()), scene)
        scores["ungrammatical"] = scores.pop("unrecognisable")
        facts = (describe(scene), caption, scene.id, completion.seed)
        records.append(Record(key, completion.document, shown, scores, *facts, prompt=completion.prompt))
    nearest = blind.nearest_by_picture(scenes, bench.world.pixels)
    baselines = blind.score(scenes, nearest=nearest) | blind.look_up_read(scenes)
    return summarise(key, records, baselines, describe_policies(bench.policies)), records


@dataclass(frozen=True)
class Question:
    """One question about one picture."""

    kind: str
    image_id: str
    text: str
    answer: str


def list_questions(document: Document) -> list[Question]:
    """The questions of a vqa document."""
    image, *turns = document.spans
    pairs = zip(document.meta["types"], turns[::2], turns[1::2], strict=True)
    return [Question(kind, image.image_id, question.text, answer.text) for kind, question, answer in pairs]


def judge_questions(
    bench: Bench, split: str, task: str = "vqa", num_training: int = 1500, lookup: SlotLookup | None = None
) -> tuple[dict[str, Figure], list[Record]]:
    """Ask `n` different questions of every type.

    Args:
        task: "vqa", about scenes, or "dense_vqa", about boards.
        num_training: documents of the training split from which `question_only` learns.
        lookup: the table of seen blocks, which answers from the scene that it reads; None leaves it out (it reads no boards).

    Returns:
        figures `<split>/<task>` (mean over types) and `<split>/<task>_<type>`.
    """
    questions = take_questions(bench, split, task)
    prompts = [bench.model.template.question_prompt(bench.show(item.image_id), item.text) for item in questions]
    completions = bench.complete(f"{split}/{task}", prompts, max_tokens=ANSWER_TOKENS)
    records = []
    for item, completion, shown in zip(questions, completions, bench.illustrate(completions), strict=True):
        answer = bench.model.template.answer(completion.text)
        scores = {MAIN: float(answer == item.answer)}
        key = f"{split}/{task}_{item.kind}"
        facts = (item.answer, answer, item.image_id, completion.seed)
        records.append(Record(key, completion.document, shown, scores, *facts, prompt=completion.prompt))
    training = bench.world.source(task, "train")
    counted = _count_answers(training[index] for index in range(min(num_training, len(training))))
    figures: dict[str, Figure] = {}
    policy = describe_policies(bench.policies)
    kinds = list(dict.fromkeys(item.kind for item in questions))
    for kind in kinds:
        members = [index for index, item in enumerate(questions) if item.kind == kind]
        asked = [questions[index] for index in members]
        blind = _answer_blindly(asked, counted)
        if lookup is not None:
            blind["slot_lookup"] = [{MAIN: float(lookup.answer(item.image_id, item.text) == item.answer)} for item in asked]
        figures |= summarise(f"{split}/{task}_{kind}", [records[index] for index in members], blind, policy)
    mean, records = average(f"{split}/{task}", figures, records, policy)
    return {f"{split}/{task}": mean, **figures}, records


LARGEST_SHARE = 0.6
"""Most that one answer may take of the questions of a type: a constant answer shall not look like understanding."""


TASK_TYPES = {"vqa": TYPES, "dense_vqa": BOARD_TYPES}


def take_questions(bench: Bench, split: str, task: str = "vqa") -> list[Question]:
    """The first `n` different questions of every type, sorted by type; at most half of them with the same answer, and where the
    split holds too few different questions with another answer, as many fewer as keeps `LARGEST_SHARE`."""
    chosen: dict[str, dict[Question, None]] = {}
    counts: dict[str, Counter] = {}
    for document in bench.world.source(task, split):
        if len(chosen) == len(TASK_TYPES[task]) and all(len(of_kind) == bench.n for of_kind in chosen.values()):
            break
        for question in list_questions(document):
            of_kind, answers = chosen.setdefault(question.kind, {}), counts.setdefault(question.kind, Counter())
            is_new = question not in of_kind and len(of_kind) < bench.n
            if is_new and answers[question.answer] < (bench.n + 1) // 2:
                of_kind[question] = None
                answers[question.answer] += 1
    return [question for kind in sorted(chosen) for question in _trim(list(chosen[kind]))]


def _trim(questions: list[Question]) -> list[Question]:
    """Leave out the last questions with the most frequent answer until it has `LARGEST_SHARE` at most."""
    answer, count = Counter(question.answer for question in questions).most_common(1)[0]
    others = len(questions) - count
    allowed = int(others * LARGEST_SHARE / (1 - LARGEST_SHARE)) if others else count
    kept, seen = [], 0
    for question in questions:
        seen += question.answer == answer
        if question.answer != answer or seen <= allowed:
            kept.append(question)
    return kept


Counted = dict[str, Counter]
"""question text, and question type, -> how often training gave each answer"""


def _count_answers(documents) -> Counted:
    counted: Counted = {}
    for document in documents:
        for question in list_questions(document):
            for name in (question.text, question.kind):
                counted.setdefault(name, Counter())[question.answer] += 1
    return counted


def _answer_blindly(questions: Sequence[Question], counted: Counted) -> dict[str, list[Scores]]:
    answers = Counter(question.answer for question in questions)
    majority = answers.most_common(1)[0][0]

    def guess(question: Question) -> str | None:
        known = counted.get(question.text) or counted.get(question.kind)
        return known.most_common(1)[0][0] if known else None

    return {
        "chance": [{MAIN: 1 / len(answers)} for _ in questions],
        "majority": [{MAIN: float(question.answer == majority)} for question in questions],
        "shuffled": [
            {MAIN: float(question.answer == other.answer)}
            for question, other in zip(questions, (*questions[-1:], *questions[:-1]), strict=True)
        ],
        "question_only": [{MAIN: float(question.answer == guess(question))} for question in questions],
    }
