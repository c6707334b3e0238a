"""Instructions: is a model asked in other words still right, and does it do what is asked in the form that is asked? Exact rules only.

Wording that training never used (checked against `PromptTemplate.texts`), about the same things as the other examinations:
- `drawing`, `captions`, `questions`: paraphrases; `usual_wording` is the same model on the same items in the wording it was trained on;
- `one_colour`, `as_caption`, `one_word`, `sentence`, `three_words`: one and the same question with the form of its answer prescribed. The
  figure asks for form and content; `_form` and `_content` are each alone. A model that answers always alike fails one of the forms;
- `two_answers`: two questions at once, the answers in the order of the questions (`_count`: two words, `_order`: in that order);
- `two_pictures`: two pictures in the order asked (`_count`: exactly two, `_order`: both there, in that order).

A system with a closed vocabulary can be asked in its own words only. Every word of the other groups is one that the default world and
wording know; `one_word`, `sentence` and `three_words` are plain English and have a mean of their own (`english`): where a word is
unknown they are skipped, and the table says how many prompts and which word. What the words mean in a new order nobody taught a small
model: low figures are expected, and are no fault of the rules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from plait.document import Document, TextSpan
from plait.evaluation.bench import Bench, UnaskableError, describe_policies
from plait.evaluation.figures import Figure, Record, Scores, average, skip, summarise
from plait.worlds.emoji.captions import describe, spell
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.obedience import judge_form, judge_order, judge_pictures, paraphrase
from plait.worlds.emoji.examinations.requests import (
    Answer,
    Request,
    answer_blindly,
    ask,
    request_answer,
    request_caption,
    request_picture,
    show,
)
from plait.worlds.emoji.examinations.understanding import ANSWER_TOKENS, CAPTION_TOKENS, take_questions
from plait.worlds.emoji.scenes import Scene, Thing

DRAWING = (
    "Please draw this scene.",
    "Make a picture of what is described.",
    "Create an image for this text.",
    "Turn this description into a picture.",
    "Show what is described as an image.",
)
CAPTIONS = ("The description of this picture is:", "The text of this picture is:", "Question: what is in this picture? Answer:")
FORMS = {
    "one_colour": "Answer as one colour.",
    "as_caption": "Answer as a caption.",
    # plain English
    "one_word": "Answer in one word.",
    "sentence": "Answer in a whole sentence.",
    "three_words": "Answer in at most three words.",
}
ENGLISH = ("one_word", "sentence", "three_words")
MOST_PICTURES = 3
"""one more than is asked for: a model that does not stop is seen to"""


ABOUT = {
    "instructions": (
        "following other wordings",
        "share of prompts in words never trained that are answered rightly, in the form asked",
    ),
    "instructions_english": ("following plain English", "share of right answers in forms that are asked in plain English"),
    "instructions_drawing": ("", "drawing, asked in other words"),
    "instructions_captions": ("", "captions, asked in other words"),
    "instructions_questions": ("", "questions, asked in other words"),
    "instructions_one_colour": ("", "a question whose answer must be one colour"),
    "instructions_as_caption": ("", "a question whose answer must be a caption"),
    "instructions_one_word": ("", "a question whose answer must be one word"),
    "instructions_sentence": ("", "a question whose answer must be a whole sentence"),
    "instructions_three_words": ("", "a question whose answer must be three words at most"),
    "instructions_two_answers": ("", "two questions at once, answered in their order"),
    "instructions_two_pictures": ("", "two pictures, drawn in the order asked"),
}


def judge_instructions(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Ask in other words and in prescribed forms.

    Returns:
        figures `<split>/instructions` and `<split>/instructions_english` (means over groups) and `<split>/instructions_<group>`.
    """
    groups: Mapping[str, Callable[[str], tuple[dict[str, Figure], list[Record]]]] = {
        "drawing": partial(_judge_drawing, bench, blind, split),
        "captions": partial(_judge_captions, bench, blind, split),
        "questions": partial(_judge_questions, bench, split),
        **{form: partial(_judge_form, bench, split, form) for form in FORMS},
        "two_answers": partial(_judge_two_answers, bench, split),
        "two_pictures": partial(_judge_two_pictures, bench, blind, split),
    }
    policy = describe_policies(bench.policies)
    means: dict[str, Figure] = {}
    figures: dict[str, Figure] = {}
    records: list[Record] = []
    for whole, names in (
        (f"{split}/instructions", groups.keys() - set(ENGLISH)),
        (f"{split}/instructions_english", set(ENGLISH)),
    ):
        heads: dict[str, Figure] = {}
        own: list[Record] = []
        for name in (name for name in groups if name in names):
            key = f"{split}/instructions_{name}"
            try:
                found, judged = groups[name](key)
            except UnaskableError as error:
                found, judged = skip(key, error.num_prompts, str(error)), []
            figures |= found
            heads[key] = found[key]
            own += judged
        means[whole], own = average(whole, heads, own, policy)
        records += own
    return {**means, **figures}, records


def _judge_drawing(bench: Bench, blind: BlindAnswers, split: str, key: str) -> tuple[dict[str, Figure], list[Record]]:
    documents = bench.take(bench.world.source("two_objects", split), name=lambda document: document.text)
    scenes = [Scene.from_json(document.meta["scene"]) for document in documents]

    def request(instructions: Sequence[str | None]) -> list[Request]:
        prompts = (
            bench.model.template.draw_prompt(document.text, instructions[index % len(instructions)])
            for index, document in enumerate(documents)
        )
        return [request_picture(*row) for row in zip(prompts, scenes, (d.text for d in documents), strict=True)]

    usual, other = request([None]), request(_held_out(bench, DRAWING))
    return _judge_paraphrases(bench, key, usual, other, answer_blindly(usual, show(blind.majority(2))))


def _judge_captions(bench: Bench, blind: BlindAnswers, split: str, key: str) -> tuple[dict[str, Figure], list[Record]]:
    scenes = _take_scenes(bench, split)
    template, wordings = bench.model.template, _held_out(bench, CAPTIONS)
    shown = [bench.show(scene.id) for scene in scenes]
    usual = [request_caption(template.caption_prompt(image), scene) for image, scene in zip(shown, scenes, strict=True)]
    other = [
        request_caption(template.caption_prompt(image, wordings[index % len(wordings)]), scene)
        for index, (image, scene) in enumerate(zip(shown, scenes, strict=True))
    ]
    constant = Answer(describe(blind.majority(2)))
    return _judge_paraphrases(bench, key, usual, other, answer_blindly(usual, constant), CAPTION_TOKENS)


def _judge_questions(bench: Bench, split: str, key: str) -> tuple[dict[str, Figure], list[Record]]:
    questions = take_questions(replace(bench, n=max(1, bench.n // 6)), split)  # n in all, of six types

    def request(word: Callable[[str], str]) -> list[Request]:
        return [
            request_answer(_question(bench, item.image_id, word(item.text)), item.answer, item.image_id, item.kind)
            for item in questions
        ]

    usual = request(lambda text: text)
    return _judge_paraphrases(bench, key, usual, request(paraphrase), answer_blindly(usual), ANSWER_TOKENS)


def _judge_paraphrases(
    bench: Bench, key: str, usual: list[Request], other: list[Request], blindly: dict[str, list[Scores]], max_tokens: int = 1
) -> tuple[dict[str, Figure], list[Record]]:
    records = ask(bench, key, other, max_tokens=max_tokens)
    as_usual = [record.scores for record in ask(bench, key, usual, max_tokens=max_tokens)]
    return summarise(key, records, {**blindly, "usual_wording": as_usual}, describe_policies(bench.policies)), records


def _judge_form(bench: Bench, split: str, form: str, key: str) -> tuple[dict[str, Figure], list[Record]]:
    requests = []
    for number, scene in enumerate(_take_scenes(bench, split)):
        thing = scene.things[number % len(scene.things)]
        prompt = _question(bench, scene.id, f"what colour is the {thing.object} ? {FORMS[form]}")
        right = _write_right(form, scene, thing)
        judge = partial(judge_form, form=form, scene=scene, thing=thing)
        requests.append(Request(prompt, judge, Answer(right), right, scene.id))
    records = ask(bench, key, requests, max_tokens=CAPTION_TOKENS)
    return summarise(key, records, answer_blindly(requests), describe_policies(bench.policies)), records


def _judge_two_answers(bench: Bench, split: str, key: str) -> tuple[dict[str, Figure], list[Record]]:
    requests = []
    for number, scene in enumerate(_take_scenes(bench, split, needs_two_colours=True)):
        first, second = scene.things if number % 2 == 0 else scene.things[::-1]
        text = f"what colour is the {first.object} ? what colour is the {second.object} ?"
        colours = [first.colour, second.colour]
        right, prompt = " ".join(colours), _question(bench, scene.id, text)
        requests.append(Request(prompt, partial(judge_order, colours=colours), Answer(right), right, scene.id))
    records = ask(bench, key, requests, max_tokens=ANSWER_TOKENS)
    return summarise(key, records, answer_blindly(requests), describe_policies(bench.policies)), records


def _judge_two_pictures(bench: Bench, blind: BlindAnswers, split: str, key: str) -> tuple[dict[str, Figure], list[Record]]:
    documents = bench.take(bench.world.source("two_objects", split), name=lambda document: document.text)
    requests = []
    for first, second in zip(documents, [*documents[1:], documents[0]], strict=True):
        scenes = [Scene.from_json(document.meta["scene"]) for document in (first, second)]
        prompt = bench.model.template.story_prompt((TextSpan(f"Draw {first.text}. Draw {second.text}."),))
        expected = f"{first.text} | {second.text}"
        requests.append(Request(prompt, partial(judge_pictures, scenes=scenes), show(*scenes), expected, expected))
    budget = 2 * CAPTION_TOKENS + MOST_PICTURES * (bench.model.positions_per_image + 2)
    records = ask(bench, key, requests, max_images=MOST_PICTURES, max_tokens=budget, is_prose=True)
    baselines = answer_blindly(requests, show(blind.majority(2), blind.majority(2)))
    return summarise(key, records, baselines, describe_policies(bench.policies)), records


def _write_right(form: str, scene: Scene, thing: Thing) -> str:
    return {"as_caption": describe(scene), "sentence": f"the {thing.object} is {thing.colour} ."}.get(form, thing.colour)


def _question(bench: Bench, image_id: str, text: str) -> Document:
    return bench.model.template.question_prompt(bench.show(image_id), text)


def _take_scenes(bench: Bench, split: str, needs_two_colours: bool = False) -> list[Scene]:
    documents = bench.world.source("two_objects", split)
    if needs_two_colours:
        documents = (d for d in documents if len({item["colour"] for item in d.meta["scene"]["objects"]}) == 2)
    taken = bench.take(documents, name=lambda document: document.images[0].image_id)
    return [Scene.from_json(document.meta["scene"]) for document in taken]


def _held_out(bench: Bench, wordings: Sequence[str]) -> list[str]:
    """The wordings that training does not use.

    Raises:
        UnaskableError: there is none.
    """
    trained = {spell(text) for text in bench.model.template.texts()}
    free = [wording for wording in wordings if spell(wording) not in trained]
    if not free:
        raise UnaskableError(f"Training uses all of {list(wordings)}: no wording is held out.", bench.n)
    return free
