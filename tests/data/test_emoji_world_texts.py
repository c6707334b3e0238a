"""Texts of the world: captions and stories can be read back exactly, questions have the right answers."""

import pytest

from plait.document import TextSpan
from plait.worlds.emoji import EmojiWorld, Scene
from plait.worlds.emoji.captions import add_article, describe, parse
from plait.worlds.emoji.questions import PLACE_NAMES, PLACE_PHRASES
from plait.worlds.emoji.stories import follow


def test_every_caption_is_read_back(world):
    # Every seventh: all objects, colours, slots and relations occur, in all combinations but a few.
    for scene in list(world.assignment)[::7]:
        assert parse(describe(scene)) == parse(describe(scene, 1)) == scene


def test_captions_name_one_scene_each(world):
    scenes = [scene for scene in world.assignment if scene.objects <= {"car", "house", "umbrella"}]
    captions = {describe(scene, variant) for scene in scenes for variant in (0, 1)}
    assert len(captions) == 3 * 25 + 2 * 3 * 100


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red car",
        "an red car",
        "a red car a",
        "a blue red car",
        "a red car on the blue house",
        "a red car above a blue car",
        "a red car on the left of a blue house",
        "a red car to the left of a blue house on the right",
        "a red dog",
    ],
)
def test_what_is_no_caption_is_not_read(text):
    assert parse(text) is None


def test_captions_are_read_with_loose_spaces_and_a_full_stop():
    assert parse(" a red  car above a blue house . ") == Scene.from_id("scene/red-car@top+blue-house@bottom")


@pytest.mark.parametrize(
    ("phrase", "article"),
    [
        ("umbrella", "an"),
        ("red umbrella", "a"),
        ("unicorn", "a"),
        ("hourglass done", "an"),
        ("eagle", "an"),
        ("1st place medal", "a"),
    ],
)
def test_articles(phrase, article):
    assert add_article(phrase) == f"{article} {phrase}"


@pytest.mark.parametrize("split", EmojiWorld.splits)
def test_stories_follow_their_sentences(world, split):
    for document in world.source("stories", split, 120):
        *spans, question, answer = document.spans
        state = None
        assert 3 <= len(document.images) <= 5
        for sentence, image, fact in zip(spans[::2], spans[1::2], document.meta["states"], strict=True):
            state = follow(state, sentence.text)
            assert state == Scene.from_id(image.image_id) == Scene.from_json(fact)
            assert sentence.loss
            assert image.loss
            assert image.begin_loss
        assert question.text.startswith("question : ")
        assert question.loss
        assert answer.loss
        asked = question.text.removeprefix("question : ")
        found = answer.text.removeprefix("answer : ")
        assert found == document.meta["answer"]
        assert parse(found) == state if document.meta["question"] == "describe" else is_right(state, asked, found)


@pytest.mark.parametrize(
    "sentence",
    [
        "the house turns green .",
        "the car turns red .",
        "they change places .",
        "the car goes away .",
        "a blue car appears above the car .",
        "a blue house appears above the tree .",
        "an blue house appears above the car .",
        "here is a blue house .",
        "the car turns green",
    ],
)
def test_sentences_that_cannot_be_said_of_the_scene_lead_nowhere(sentence):
    assert follow(Scene.from_id("scene/red-car@centre"), sentence) is None


@pytest.mark.parametrize("split", EmojiWorld.splits)
def test_edits_follow_their_instruction(world, split):
    for document in world.source("edits", split, 120):
        before, instruction, after = document.spans
        assert follow(Scene.from_id(before.image_id), instruction.text) == Scene.from_id(after.image_id)
        assert [Scene.from_json(state).id for state in document.meta["states"]] == [before.image_id, after.image_id]
        assert (before.loss, instruction.loss, after.loss) == (False, False, True)


def is_right(scene: Scene, question: str, answer: str) -> bool:
    """Whether an answer is true, read from the words of the question alone."""
    words = question.removesuffix(" ?").split()
    if words[:2] == ["what", "colour"]:
        return scene.find(words[-1]).colour == answer
    if words[:2] == ["what", "is"]:
        slot = next(slot for slot, phrase in PLACE_PHRASES.items() if question == f"what is {phrase} ?")
        return scene.find(slot).object == answer
    if words[0] == "where":
        return PLACE_NAMES[scene.find(words[-1]).slot] == answer
    if words[:2] == ["how", "many"]:
        return ("zero", "one", "two")[sum(thing.colour == words[2] for thing in scene.things)] == answer
    if words[:2] == ["is", "there"]:
        return ("yes" if (words[-2], words[-1]) in scene.cells else "no") == answer
    assert question == "are the objects the same colour ?"
    assert len(scene.things) == 2
    return ("yes" if len({thing.colour for thing in scene.things}) == 1 else "no") == answer


@pytest.mark.parametrize("split", EmojiWorld.splits)
def test_answers_are_true(world, split):
    for document in world.source("vqa", split, 200):
        image, *texts = document.spans
        scene = Scene.from_id(image.image_id)
        # training asks what and where of each thing
        num_questions = 5 if len(scene.things) == 1 else 8 if split == "train" else 6
        assert len(texts) == 2 * len(document.meta["types"]) == 2 * num_questions
        assert len({question.text for question in texts[::2]}) == num_questions
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            assert is_right(scene, question.text, answer.text), (question, answer)
            assert (question.loss, answer.loss) == (False, True)
            assert len(answer.text.split()) == 1


def test_hard_negatives_share_a_colour_or_an_object_with_the_scene(world):
    crossed = 0
    questions = []
    for document in world.source("vqa", "test_pair", 400):
        scene = Scene.from_id(document.images[0].image_id)
        texts = [span.text for span in document.spans if isinstance(span, TextSpan)]
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            if question.startswith("is there") and answer == "no":
                colour, name = question.split()[-3:-1]
                is_near = colour in {thing.colour for thing in scene.things}, name in scene.objects
                assert any(is_near), question
                crossed += all(is_near)
                questions.append(question)
    assert 0.15 < crossed / len(questions) < 0.6


def test_documents_without_pictures_are_open_ended_text(world):
    for document in world.source("text", "train", 100):
        assert not document.images
        assert not document.ends
        assert document.text.endswith(" .")
