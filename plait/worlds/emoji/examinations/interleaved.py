"""Interleaved stories, asked in two ways.

- `stories`: the model gets a first sentence and writes the rest, sentences and pictures, until it ends. `_grammar` is the
  share of stories of the right form. `_agreement` compares each picture with the scene that the model's *own* sentences
  have reached, in its own column; a picture after a sentence that makes no sense cannot agree, nor can one that is missing.
- `stories_told`: the sentences of the data are given and the model fills in the pictures, each of which must equal the true
  scene. This one cannot be made easier by telling easy stories.

Per story the share of its pictures is taken first, so the story is the item. `copy_input` draws the first scene again and
again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from PIL import Image

from plait.document import Document, ImageSpan, TextSpan
from plait.evaluation.bench import Bench, Completion, describe_policies
from plait.evaluation.figures import MAIN, Figure, Record, Scores, summarise
from plait.worlds.emoji.agreement import Finding
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.story_grammar import StoryReading, read_story
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import describe_finding, describe_scene, imagine, score_scene

MAX_PICTURES = 6
"""one more than the longest story of the data: a model that does not stop is cut, not helped"""
TEXT_TOKENS = 160


ABOUT = {
    "stories": (
        "telling stories",
        "share of stories, told from a first sentence, of the right form whose pictures all agree with them",
    ),
    "stories_grammar": ("", "share of these stories of the right form: sentence, picture, sentence, picture, ..."),
    "stories_agreement": ("illustrating its own stories", "share of a story's pictures that show what its own sentences say"),
    "stories_sense": (
        "",
        "share of a story's sentences that can be said of the scene before (nothing goes away that is not there)",
    ),
    "stories_answers": ("", "share of closing questions answered rightly, where a story ends with one"),
    "stories_told": ("illustrating given stories", "share of pictures that show the scene, where the sentences are given"),
    "stories_told_perfect": ("", "share of given stories of which every picture is right"),
}


def judge_stories(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Let the model tell stories from first sentences of a split.

    Returns:
        figures `<split>/stories` (of the right form, and all pictures agree), `_grammar`, `_agreement`, `_sense` (share of
        sentences that can be said of the scene), `_answers` (closing question answered rightly, of the stories that close
        with one).
    """
    key = f"{split}/stories"
    documents = bench.take(bench.world.source("stories", split), name=lambda document: document.spans[0].text)
    prompts = [bench.model.template.story_prompt(document.spans[:1]) for document in documents]
    budget = TEXT_TOKENS + MAX_PICTURES * (bench.model.positions_per_image + 2)
    completions = bench.complete(key, prompts, max_images=MAX_PICTURES, max_tokens=budget, is_prose=True)
    readings = [read_story(_story_spans(bench, completion)) for completion in completions]
    pictures = bench.illustrate(completions)
    seen = _see_columns(bench, completions, pictures, readings)
    records = []
    for completion, shown, reading, columns in zip(completions, pictures, readings, seen, strict=True):
        record = _record(key, completion, shown, _score_story(reading, columns), reading.states, columns)
        # what is expected follows from the model's own sentences: what it was asked is the first one
        records.append(replace(record, asked=completion.prompt.spans[0].text))
    told = guess_states(blind, [[state for state in reading.states if state] for reading in readings])
    baselines = {name: [{"agreement": sum(own) / max(1, len(own))} for own in right] for name, right in told.items()}
    return summarise(key, records, baselines, describe_policies(bench.policies)), records


def judge_told_stories(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Let the model draw the pictures of a split's stories.

    Returns:
        figures `<split>/stories_told` (share of pictures that equal the true scene) and `_perfect`.
    """
    key = f"{split}/stories_told"
    documents = bench.take(bench.world.source("stories", split), name=_sentences)
    states = [[Scene.from_json(state) for state in document.meta["states"]] for document in documents]
    records = illustrate_stories(bench, key, [_sentences(document) for document in documents], states, _score_told)
    blindly = {name: [{MAIN: sum(own) / len(own)} for own in right] for name, right in guess_states(blind, states).items()}
    return summarise(key, records, blindly, describe_policies(bench.policies)), records


def illustrate_stories(
    bench: Bench,
    key: str,
    sentences: Sequence[Sequence[str]],
    states: Sequence[Sequence[Scene]],
    score: Callable[[Sequence[float]], Scores],
) -> list[Record]:
    """Let the model draw a picture after every sentence of each story.

    Args:
        states: the scene after each sentence.
        score: whether each picture of a story is right (0 or 1) -> the scores of the story.
    """
    prompts = []
    for story in sentences:
        spans: list[TextSpan | ImageSpan] = []
        for index, sentence in enumerate(story):
            spans += [TextSpan(sentence), ImageSpan(f"drawn/{index}", form="codes")]
        prompts.append(bench.model.template.story_prompt(spans))
    completions = bench.complete(key, prompts)
    pictures = bench.illustrate(completions)
    seen = _regroup(bench.judge.see([picture for shown in pictures for picture in shown]), [len(own) for own in states])
    records = []
    for completion, shown, own, columns in zip(completions, pictures, states, seen, strict=True):
        right = [score_scene(finding, scene)[MAIN] for finding, scene in zip(columns, own, strict=True)]
        records.append(_record(key, completion, shown, score(right), own, columns))
    return records


def guess_states(blind: BlindAnswers, stories: Sequence[Sequence[Scene]]) -> dict[str, list[list[float]]]:
    """Baseline name -> per story, per scene, whether blind systems get it right. A story may have no scene (nothing that a model told
    makes sense): it has no guesses, and lends none."""
    told = [states for states in stories if states]
    flat = [scene for states in stories for scene in states]
    judged: Mapping[str, Sequence[Scores]] = blind.score(flat, names=("chance", "majority"))
    judged = {**judged, "copy_input": [score_scene(imagine(states[0].things), scene) for states in stories for scene in states]}
    judged["shuffled"] = [
        score_scene(imagine(other[min(place, len(other) - 1)].things), scene)
        for states, other in zip(told, (*told[-1:], *told[:-1]), strict=True)
        for place, scene in enumerate(states)
    ]
    judged |= blind.look_up_drawn(flat, [partial(score_scene, expected=scene) for scene in flat])
    lengths = [len(states) for states in stories]
    return {name: _regroup([item[MAIN] for item in scores], lengths) for name, scores in judged.items()}


def _score_told(right: Sequence[float]) -> Scores:
    return {MAIN: sum(right) / len(right), "perfect": float(all(right))}


def _sentences(document: Document) -> tuple[str, ...]:
    return tuple(span.text for span in document.spans[: 2 * len(document.images) : 2])


def _story_spans(bench: Bench, completion: Completion) -> list[TextSpan | ImageSpan]:
    spans = [
        TextSpan(bench.model.template.answer(span.text)) if isinstance(span, TextSpan) else span
        for span in completion.document.spans
    ]
    return [span for span in spans if isinstance(span, ImageSpan) or span.text]


def _see_columns(
    bench: Bench,
    completions: Sequence[Completion],
    pictures: Sequence[Sequence[Image.Image]],
    readings: Sequence[StoryReading],
) -> list[list[Finding | None]]:
    """Per story, per sentence: what is seen in its picture; None without a picture."""
    spans = [span for completion in completions for span in completion.document.images]
    seen = bench.judge.see([picture for shown in pictures for picture in shown])
    found = {id(span): finding for span, finding in zip(spans, seen, strict=True)}
    return [[None if span is None else found[id(span)] for span in reading.pictures] for reading in readings]


def _score_story(reading: StoryReading, columns: Sequence[Finding | None]) -> dict[str, float]:
    right = [
        0.0 if state is None else score_scene(finding, state)[MAIN]
        for state, finding in zip(reading.states, columns, strict=True)
    ]
    scores = {
        "grammar": float(reading.is_wellformed),
        "agreement": sum(right) / len(right),
        MAIN: float(reading.is_wellformed and all(right)),
        "sense": sum(state is not None for state in reading.states) / len(reading.states),
    }
    if reading.question:
        scores["answers"] = float(reading.is_answer_right)
    return scores


def _record(key, completion, shown, scores, states, columns) -> Record:
    expected, found = " | ".join(map(describe_scene, states)), " | ".join(map(describe_finding, columns))
    facts = (expected, found, str(completion.seed), completion.seed)
    return Record(key, completion.document, shown, scores, *facts, prompt=completion.prompt)


def _regroup(items: Sequence, lengths: Sequence[int]) -> list[list]:
    rest = iter(items)
    return [[next(rest) for _ in range(length)] for length in lengths]
