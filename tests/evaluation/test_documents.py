"""Data that knows no more than its documents: what is asked follows their kinds, and no model is better than what it sees."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from plait.data.filling import Pictures
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.evaluation.answers import judge_answers, normalise
from plait.evaluation.bench import Bench
from plait.evaluation.choice import judge_choice
from plait.evaluation.continuation import cut_prompt
from plait.evaluation.documents import DocumentExaminations, Documents, open_examinations
from plait.evaluation.questions import list_questions
from plait.sampling.policies import SamplingPolicy
from plait.systems.liquid import LiquidTemplate

COLOURS = ("red", "green", "blue", "grey")
POLICIES = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(temperature=0.5)}


def ask_colour(index: int) -> Document:
    """A picture named by its number, of which every fifth is red besides its turn."""
    colour = COLOURS[index % 4] if index % 5 else "red"
    spans = (ImageSpan(str(index)), TextSpan("Which colour?"), TextSpan(f"A {colour} one.", loss=True))
    return Document(spans, id=f"row-{index}", kind="dialogue")


class Rows:
    """Forty rows to train on and forty held out."""

    splits, tasks, is_closed, examinations = ("train", "val"), ("documents",), False, None
    make = staticmethod(ask_colour)

    def source(self, task, split):
        if task not in self.tasks:
            raise RecipeError(task)
        return [self.make(index) for index in (range(40) if split == "train" else range(100, 140))]

    def picture(self, image_id):
        return Image.new("RGB", (8, 8))

    def pixels(self, image_ids):
        return np.zeros((len(image_ids), 8, 8, 3), np.uint8)

    def image_ids(self, split, subset=None):
        return [span.image_id for document in self.source("documents", split) for span in document.images]

    def vocabulary_texts(self, glyphs=True):
        return []

    def fingerprint(self):
        return "rows"


class Model:
    """Answers from the picture, or always alike; what it would say costs nothing, anything else 5 nats a word."""

    def __init__(self, sees: bool) -> None:
        self.sees, self.template, self.vision_tokenizer = sees, LiquidTemplate(), None
        layout = SimpleNamespace(encode_text=str.split)
        self.builder = SimpleNamespace(layout=layout, encode=lambda document: SimpleNamespace(loss=np.ones(4, bool)))

    def answer(self, document: Document) -> str:
        seen = self.sees and document.images
        return ask_colour(int(document.images[0].image_id)).spans[-1].text if seen else "A red one."

    def score(self, documents, *, is_plain=False):
        said = [(self.template.answer(document.spans[-1].text), self.answer(document)) for document in documents]
        return torch.tensor([0.0 if found == wanted else 5.0 * len(found.split()) for found, wanted in said])

    def generate(self, documents, policies, seeds, **budget):
        return [
            replace(document, spans=(*document.spans, TextSpan(f"{self.answer(document)}<end_of_turn>\n")), ends=True)
            for document in documents
        ]


def bench(model: Model, world: Rows) -> tuple[Bench, Documents]:
    made = Bench(model, world, None, Pictures(lambda name: (np.zeros((1, 1), np.int64),)), POLICIES, n=40)
    return made, open_examinations(world).prepare(made)


def test_what_is_asked_follows_the_kinds_of_the_documents() -> None:
    world = Rows()
    assert open_examinations(world).plan == {"val": ("loss", "choice", "answers", "samples")}
    for kind, names in {
        "pair": ("loss", "choice", "samples"),
        "document": ("loss", "choice", "samples"),
        "text": ("loss", "samples"),
    }.items():
        world.make = lambda index, kind=kind: replace(ask_colour(index), kind=kind)
        assert DocumentExaminations(world).plan == {"val": names}


@pytest.mark.parametrize("judge", [judge_choice, judge_answers])
def test_who_sees_is_right_and_who_does_not_is_no_better_than_blind(judge) -> None:
    (seeing, records), (blind, _) = (judge(*bench(Model(sees), Rows()), "val") for sees in (True, False))
    key = next(iter(seeing))
    assert (seeing[key].value, seeing[key].n) == (1.0, 40)
    assert records[0].expected == "A red one."
    no_picture = seeing[key].baselines["no_picture"]
    assert blind[key].value == no_picture == pytest.approx(16 / 40)  # ten in turn are red, and every fifth besides
    assert seeing[key].baselines["majority"] == pytest.approx(16 / 40)
    assert records[0].cluster == "100"


def test_questions_are_put_as_training_puts_them() -> None:
    template = LiquidTemplate()
    turns = (*ask_colour(1).spans, TextSpan("And is it large?"), TextSpan("No, small.", loss=True))
    worded = template.wrap(Document(turns, id="row", kind="dialogue"), 0)
    first, second = list_questions(worded, template)
    assert (first.answer, first.ends, second.answer, second.ends) == ("A green one.", False, "No, small.", True)
    assert second.answered(second.answer).spans[-1] == worded.spans[-1]
    assert first.prompt.spans == worded.spans[:3]
    assert not first.blindfolded.images
    # what is drawn in the same breath makes it no answer by itself
    drawn = (TextSpan("Draw it."), TextSpan("Here:", loss=True), ImageSpan("2", loss=True))
    assert list_questions(template.wrap(Document(drawn, kind="dialogue"), 0), template) == []
    story = Document((TextSpan("One.", loss=True), ImageSpan("1", loss=True), TextSpan("Two.", loss=True)), kind="document")
    (last,) = list_questions(template.wrap(story, 0), template)
    assert (last.answer, last.text, last.cluster) == ("Two.", "One.", "1")


def test_a_pair_is_asked_in_both_directions_with_its_whole_caption() -> None:
    world = Rows()
    world.make = lambda index: Document((TextSpan(f"caption {index}"), ImageSpan(str(index))), id=str(index), kind="pair")
    template = LiquidTemplate(caption_dropout=0.5, text_to_image_ratio=0.9)
    documents = Documents(world, template, Pictures(lambda name: (np.zeros((1, 1), np.int64),)))
    for ways in documents.take("val", 10):
        assert {any(span.loss for span in document.images) for document in ways} == {True, False}
        assert all("caption" in document.text for document in ways)
    drawn, written = sorted(documents.take("val", 1)[0], key=lambda document: not document.images[0].loss)
    assert cut_prompt(drawn).images[0].is_hole
    assert not cut_prompt(written).images[0].is_hole


def test_answers_are_normalised_as_the_protocol_says() -> None:
    assert normalise("  The RED kite,\n an apple! ") == "red kite apple"
    assert normalise("Ångström") == normalise("\u0041\u030angstr\u006f\u0308m")
    assert normalise("theatre") == "theatre"
