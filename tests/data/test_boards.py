"""Dense pictures: exact captions and answers, splits by content, one size per batch; a world without them is as it was."""

import re
from collections import Counter
from itertools import combinations

import pytest

from lightning_modules.composing.wiring import open_pictures
from plait.document import TextSpan
from plait.errors import DocumentError, RecipeError
from plait.tokenizers.patch_fsq import PatchFSQ
from plait.worlds.emoji import EmojiWorld
from plait.worlds.emoji.board_texts import COUNTS, PLURALS, describe_board, parse_board
from plait.worlds.emoji.boards import PLACES, Board, assign_board
from plait.worlds.emoji.scenes import COLOURS, OBJECTS
from plait.worlds.emoji.splits import HELD_OUT_CELLS, HELD_OUT_PAIRS, assign_number

SINGULAR = {plural: name for name, plural in PLURALS.items()} | {name: name for name in OBJECTS}
NAME = re.compile(rf"\b({'|'.join(sorted(SINGULAR, key=len, reverse=True))})\b")
CELL = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(sorted(SINGULAR, key=len, reverse=True))})\b")


@pytest.fixture(scope="module")
def dense() -> EmojiWorld:
    return EmojiWorld(dense_size=128)


def read(document) -> Board:
    board = Board.from_id(document.images[0].image_id)
    assert Board.from_json(document.meta["board"]) == board
    return board


@pytest.mark.parametrize("split", EmojiWorld.splits)
def test_captions_say_everything_and_are_parsed_back(dense, split):
    sizes = Counter()
    for document in dense.source("dense", split, 104):
        board = read(document)
        assert parse_board(document.text) == board
        assert assign_board(board) == split
        sizes[len(board.coloured), len(board.numbers)] += 1
    assert {count for count, _ in sizes} == set(range(4, 17))
    assert {count for _, count in sizes} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "text",
    [
        "row 1 : an red car in column 2 .",
        "row 1 : a red car in column 2 , a red car in column 2 .",
        "row 2 : a red car in column 2 . row 1 : a red car in column 2 .",
        "row 1 : a red car in column 6 .",
        "row 1 : the number 4 in column 1 .",
        "row 1 : a red car .",
        "a red car",
    ],
)
def test_what_is_no_caption_is_not_parsed(text):
    assert parse_board(text) is None


def test_answers_are_what_stands_on_the_board(dense):
    """Recomputed here from the places, without the code that wrote them."""
    asked = Counter()
    for document in dense.source("dense_vqa", "train", 150):
        board = read(document)
        at = dict(board.contents)
        texts = [span.text for span in document.spans if isinstance(span, TextSpan)]
        for kind, question, answer in zip(document.meta["types"], texts[::2], texts[1::2], strict=True):
            asked[kind] += 1
            if kind == "count":
                words = question.removeprefix("how many ").removesuffix(" are there ?").split()
                if words == ["numbers"]:
                    found = len(board.numbers)
                else:
                    name = None if words[-1] == "objects" else SINGULAR[words[-1]]
                    colour = words[0] if len(words) == 2 else None
                    found = sum(colour in (None, own[0]) and name in (None, own[1]) for own in board.coloured)
                assert answer == COUNTS[found], (question, board)
            elif kind == "where":
                row, column = re.fullmatch(r"row (\d) column (\d)", answer).groups()
                content = at[int(row), int(column)]
                said = f"number {' '.join(content)}" if isinstance(content, str) else " ".join(content)
                assert question == f"where is the {said} ?"
                assert sum(own == content for own in at.values()) == 1
            else:
                place = tuple(map(int, re.search(r"row (\d) column (\d)", question).groups()))
                content = at.get(place)
                if kind == "read":
                    assert answer == " ".join(content)
                elif content is None:
                    assert answer == "nothing"
                else:
                    assert answer.endswith(" ".join(content))
                    assert answer.startswith("the number" if isinstance(content, str) else "a ")
    assert set(asked) == {"count", "what", "read", "where"}


@pytest.mark.parametrize("task", ["dense", "dense_vqa"])
def test_training_never_shows_or_mentions_what_is_held_out(dense, task):
    for document in dense.source(task, "train", 500):
        board = read(document)
        mentioned = {SINGULAR[name] for name in NAME.findall(document.text)} | board.objects
        assert not any(frozenset(pair) in HELD_OUT_PAIRS for pair in combinations(mentioned, 2)), document
        cells = {(colour, SINGULAR[name]) for colour, name in CELL.findall(document.text)} | set(board.coloured)
        assert not cells & HELD_OUT_CELLS, document
        assert all(assign_number(digits) == "train" for digits in board.numbers)


def test_the_vocabulary_has_every_word_and_no_held_out_content(dense):
    texts = list(dense.vocabulary_texts(glyphs=False))
    words = {word for text in texts for word in text.split()}
    assert len(words) < 130
    for split in dense.splits:
        for task in ("dense", "dense_vqa"):
            for document in dense.source(task, split, 60):
                assert set(document.text.split()) <= words, document
    assert not any((colour, SINGULAR[name]) in HELD_OUT_CELLS for text in texts for colour, name in CELL.findall(text))


@pytest.mark.parametrize(
    ("split", "new"),
    [
        ("train", (((1, 1), ("red", "car")), ((5, 5), "12"))),
        ("test_pair", (((1, 1), ("red", "car")), ((1, 2), ("red", "tree")), ((5, 5), "12"))),
        ("test_combo", (((1, 1), ("green", "car")), ((5, 5), "12"))),
        (None, (((1, 1), ("green", "car")), ((1, 2), ("red", "tree")), ((5, 5), "12"))),
    ],
)
def test_a_board_belongs_to_the_split_of_what_is_new_in_it(split, new):
    assert assign_number("12") == "train"
    assert assign_board(Board(new)) == split


def test_pictures_have_the_size_that_was_asked_for_and_the_same_grid():
    for size in (128, 256):
        world = EmojiWorld(dense_size=size)
        name = world.source("dense", "train")[3].images[0].image_id
        assert world.picture(name).size == (size, size)
        assert world.pixels([name, name]).shape == (2, size, size, 3)
        assert world.picture("scene/red-car@left").size == (64, 64)


def test_two_sizes_do_not_meet_in_a_batch(dense):
    name = dense.source("dense", "val")[0].images[0].image_id
    with pytest.raises(RecipeError, match=r"64 and 128 pixels.*expected one size.*world\.image_size"):
        dense.pixels([name, "scene/red-car@left"])


@pytest.mark.parametrize("size", [64, 100, 640])
def test_other_sizes_are_refused(size):
    with pytest.raises(RecipeError, match=rf"Dense pictures of {size} pixels.*multiple of 128 up to 512"):
        EmojiWorld(dense_size=size)


def test_a_world_without_dense_pictures_is_as_it_was(world, dense):
    assert "dense" not in world.tasks
    assert not world.image_ids("train", "dense")
    assert world.fingerprint() != dense.fingerprint()
    with pytest.raises(RecipeError, match="no task 'dense'"):
        world.source("dense", "train")
    with pytest.raises(DocumentError, match=r"where world\.dense_size is set"):
        world.picture("dense/red-car@1.2")


@pytest.mark.parametrize(
    "name", ["dense/red-car@1.6", "dense/red-car@1.2+blue-car@1.2", "dense/1@1.1", "dense/", "scene/red-car@left"]
)
def test_what_names_no_board_is_refused(name):
    with pytest.raises(DocumentError, match=r"is no board|names no board"):
        Board.from_id(name)


def test_captions_of_full_boards_name_every_place():
    board = Board(tuple((place, ("red", "car")) for place in PLACES))
    assert describe_board(board).count("a red car in column") == 25


def test_a_tokenizer_of_another_size_is_refused_by_name(dense):
    tokenizer = PatchFSQ(image_size=(64, 64), width=32, encoder_depth=1, decoder_depth=1, num_heads=1)
    name = dense.source("dense", "val")[0].images[0].image_id
    codes = open_pictures(folder=None, vision_tokenizer=tokenizer, world=dense)
    assert codes.codes("scene/red-car@left")[0].shape == (4, 4)
    with pytest.raises(
        RecipeError, match=r"has 128 x 128 pixels and vision_tokenizer\.image_size is \[64, 64\].*world\.dense_size"
    ):
        codes.codes(name)
    large = PatchFSQ(image_size=(128, 128), width=32, encoder_depth=1, decoder_depth=1, num_heads=1)
    assert open_pictures(folder=None, vision_tokenizer=large, world=dense).codes(name)[0].shape == (8, 8)
