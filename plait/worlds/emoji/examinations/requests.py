"""Requests: a prompt and the exact rule by which its answer is judged, so that one question can be put in several ways.

An examination that varies how it asks (with examples before the prompt, in other words) builds requests and compares them on the same
items; what is right does not depend on how it was asked. Nothing here knows a task.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from plait.document import Document, ImageSpan, Span, TextSpan
from plait.evaluation.bench import Bench
from plait.evaluation.figures import MAIN, Record, Scores
from plait.worlds.emoji.agreement import Finding
from plait.worlds.emoji.captions import describe, parse
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import describe_finding, imagine, score_scene


@dataclass(frozen=True)
class Answer:
    """What a model made of a prompt: its text without the wording of the template, and what is seen in its pictures, in order."""

    text: str = ""
    seen: tuple[Finding, ...] = ()


Judge = Callable[[Answer], Scores]


@dataclass(frozen=True)
class Request:
    """One prompt.

    Args:
        judge: an answer's scores.
        right: an answer that is right.
        expected: the same in words, for people.
        cluster: what the item shares with others.
        kind: requests of one kind have the same possible answers.
    """

    prompt: Document
    judge: Judge
    right: Answer
    expected: str
    cluster: str
    kind: str = ""


def ask(
    bench: Bench, key: str, requests: Sequence[Request], *, max_images: int = 0, max_tokens: int = 1, is_prose: bool = False
) -> list[Record]:
    """Ask and judge; see `Bench.complete` for the budget.

    Raises:
        UnaskableError: the model does not know a word of a prompt, or a prompt is too long for it.
    """
    prompts = [request.prompt for request in requests]
    completions = bench.complete(key, prompts, max_images=max_images, max_tokens=max_tokens, is_prose=is_prose)
    pictures = bench.illustrate(completions)
    drawn = [
        picture
        for completion, shown in zip(completions, pictures, strict=True)
        for picture in shown[len(shown) - len(completion.drawn) :]  # what is drawn stands behind what is given
    ]
    rest = iter(bench.judge.see(drawn))
    records = []
    for request, completion, shown in zip(requests, completions, pictures, strict=True):
        answer = Answer(bench.model.template.answer(completion.text), tuple(next(rest) for _ in completion.drawn))
        found = " | ".join(filter(None, [answer.text, *map(describe_finding, answer.seen)])) or "nothing"
        scores = request.judge(answer)
        facts = (request.expected, found, request.cluster, completion.seed)
        records.append(Record(key, completion.document, shown, scores, *facts, prompt=completion.prompt))
    return records


def request_picture(prompt: Document, scene: Scene, caption: str) -> Request:
    """A prompt that ends in a hole, which shall show a scene."""
    return Request(prompt, partial(judge_picture, scene=scene), show(scene), caption, caption)


def request_caption(prompt: Document, scene: Scene) -> Request:
    """A prompt after which the caption of a scene shall stand."""
    caption = describe(scene)
    return Request(prompt, partial(judge_caption, scene=scene), Answer(caption), caption, scene.id)


def request_answer(prompt: Document, answer: str, cluster: str, kind: str) -> Request:
    """A prompt after which exactly this answer shall stand."""
    return Request(prompt, partial(judge_answer, expected=answer), Answer(answer), answer, cluster, kind)


def judge_picture(answer: Answer, scene: Scene) -> Scores:
    """The first picture is the scene."""
    return {MAIN: score_scene(answer.seen[0] if answer.seen else None, scene)[MAIN]}


def judge_caption(answer: Answer, scene: Scene) -> Scores:
    """The grammar of captions reads the scene."""
    read = parse(answer.text)
    return {MAIN: score_scene(imagine(read.things if read else ()), scene)[MAIN]}


def judge_answer(answer: Answer, expected: str) -> Scores:
    """The text is the expected one."""
    return {MAIN: float(answer.text == expected)}


def show(*scenes: Scene) -> Answer:
    """An answer that is pictures of these scenes."""
    return Answer(seen=tuple(imagine(scene.things) for scene in scenes))


def answer_blindly(requests: Sequence[Request], constant: Answer | None = None) -> dict[str, list[Scores]]:
    """What answers reach that do not look: `majority`, always the same answer, and `shuffled`, the right answer to the item before.

    Args:
        constant: the answer of `majority`; None takes the one that is right most often, per kind.
    """
    kinds: dict[str, Counter[Answer]] = {}
    for request in requests:
        kinds.setdefault(request.kind, Counter())[request.right] += 1
    most = {kind: counted.most_common(1)[0][0] for kind, counted in kinds.items()}
    return {
        "majority": [request.judge(constant or most[request.kind]) for request in requests],
        "shuffled": [
            request.judge(other.right) for request, other in zip(requests, (*requests[-1:], *requests[:-1]), strict=True)
        ],
    }


def fill(prompt: Document, answer: ImageSpan | str) -> tuple[Span, ...]:
    """The spans of a prompt with its answer: the hole filled, or the text written after it."""
    if isinstance(answer, str):
        return (*prompt.spans, TextSpan(answer))
    return tuple(answer if isinstance(span, ImageSpan) and span.is_hole else span for span in prompt.spans)
