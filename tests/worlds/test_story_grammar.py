"""Stories that are right, wrong in form, or right in form and senseless."""

import pytest

from plait.document import ImageSpan, TextSpan
from plait.worlds.emoji import Scene, Thing
from plait.worlds.emoji.examinations.story_grammar import list_questions, read_story
from plait.worlds.emoji.stories import is_sentence

CAR = Scene((Thing("red", "car", "centre"),))
P = ImageSpan("p", form="codes")


def story(*items):
    return [TextSpan(item) if isinstance(item, str) else item for item in items]


def test_every_story_of_the_data_is_read_as_it_was_written(world):
    for split in world.splits:
        source = world.source("stories", split)
        for index in range(90):
            document = source[index]
            reading = read_story(document.spans)
            assert reading.is_wellformed, document.text
            assert [state.to_json() for state in reading.states] == document.meta["states"]
            assert reading.answer == document.meta["answer"]
            assert reading.is_answer_right, document.text
            assert len(reading.pictures) == len(document.images)


def test_a_story_may_end_without_a_question():
    reading = read_story(story("here is a red car .", P, "the car turns blue .", P))
    assert reading.is_wellformed
    assert reading.question == ""
    assert not reading.is_answer_right
    assert reading.states == (CAR, Scene((Thing("blue", "car", "centre"),)))


@pytest.mark.parametrize(
    "spans",
    [
        story("here is a red car ."),
        story(P, "here is a red car ."),
        story("here is a red car .", P, P),
        story("here is a red car .", P, "the car turns blue ."),
        story("here is a red car . the car turns blue .", P),
        story("here is a red car .", "the car turns blue .", P),
        story("here is red car .", P),
        story("here is a red car .", P, "the moon turns blue .", P),
        story("here is a red car .", P, "question : why ? answer : red"),
        story("here is a red car .", P, "question : what colour is the car ?"),
        story("here is a red car .", P, "question : what colour is the car ? answer : red", P),
        story("here is a red car .", P, "the car turns blue . question : what colour is the car ? answer : red"),
    ],
)
def test_what_is_not_sentence_picture_sentence_picture_is_malformed(spans):
    assert not read_story(spans).is_wellformed


def test_form_and_sense_are_apart():
    reading = read_story(story("here is a red car .", P, "the key turns blue .", P, "the car turns blue .", P))
    assert reading.is_wellformed
    # a story that has lost its scene does not find it again
    assert reading.states == (CAR, None, None)
    begun_twice = read_story(story("here is a red car .", P, "the key turns blue .", P, "here is a red car .", P))
    assert begun_twice.states == (CAR, None, None)


def test_a_missing_picture_keeps_later_pictures_in_their_own_columns():
    other = ImageSpan("q", form="codes")
    reading = read_story(story("here is a red car .", P, "the car turns blue . the car turns red .", other))
    assert reading.pictures == (P, other)
    lost = read_story(story("here is a red car .", P, "they change places ."))
    assert lost.pictures == (P, None)


def test_wrong_answers_are_wrong():
    right = read_story(story("here is a red car .", P, "question : what colour is the car ? answer : red"))
    wrong = read_story(story("here is a red car .", P, "question : what colour is the car ? answer : blue"))
    assert right.is_wellformed
    assert right.is_answer_right
    assert wrong.is_wellformed
    assert not wrong.is_answer_right


def test_sentences_and_questions_of_the_grammar():
    assert is_sentence("a yellow house appears above the balloon .")
    assert is_sentence("they change places .")
    assert is_sentence("the guitar goes away .")
    assert not is_sentence("an yellow house appears above the balloon .")
    assert not is_sentence("a yellow house appears above .")
    assert not is_sentence("the guitar goes away . they change places .")
    assert is_sentence(
        "a yellow house appears above the house ."
    )  # made by the rules, though no scene allows it: that is sense
    assert {"what is in the picture ?", "what is at the top ?", "where is the key ?"} <= list_questions()


def test_spelling_of_a_tokenizer_is_read_as_that_of_the_world():
    """Word tokenizers join punctuation to words: "goes away." is the sentence "goes away ."."""
    picture = ImageSpan("p", form="codes", codes=())
    told = (
        TextSpan("here is a red car."),
        picture,
        TextSpan("the car turns blue."),
        picture,
        TextSpan("question: what is in the picture? answer: a blue car"),
    )
    reading = read_story(told)
    assert reading.is_wellformed
    assert reading.is_answer_right
