"""The oracle of boards: clean and noisy boards are read right, wrong ones are rejected or called wrong."""

import numpy as np
import pytest

from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji import EmojiWorld
from plait.worlds.emoji.boards import Board, draw_board, locate
from tests.worlds.board_verifier import BoardOracle

BOARD = Board(
    (((1, 1), ("red", "car")), ((1, 3), "407"), ((2, 2), ("blue", "house")), ((4, 5), ("green", "cat")), ((5, 2), "83"))
)


@pytest.fixture(scope="module")
def world():
    return EmojiWorld(dense_size=128)


@pytest.fixture(scope="module")
def oracle(world):
    return BoardOracle(world)


@pytest.fixture(scope="module")
def boards(world):
    return [
        Board.from_id(document.images[0].image_id) for split in world.splits for document in world.source("dense", split, 15)
    ]


def draw(world, board):
    return draw_board(board, world.board_sprites, world.dense_size)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_clean_and_noisy_boards_are_read(world, oracle, boards, sigma):
    pictures = world.pixels([board.id for board in boards])
    noise = np.random.default_rng(0).normal(0, 255 * sigma, pictures.shape)
    noisy = np.clip(np.round(pictures + noise), 0, 255).astype(np.uint8)
    assert [finding.board for finding in oracle.read(noisy)] == boards
    assert oracle.share_right(noisy, boards) == [1.0] * len(boards)


def test_larger_pictures_are_read_as_well():
    world = EmojiWorld(dense_size=256)
    (finding,) = BoardOracle(world).read(draw(world, BOARD)[None])
    assert finding.board == BOARD


@pytest.mark.parametrize(
    "other",
    [
        (((1, 1), ("blue", "car")),),
        (((1, 1), ("red", "house")),),
        (((1, 3), "401"),),
        (((5, 2), "833"),),
        (((5, 2), ("red", "key")),),
    ],
)
def test_another_board_is_read_as_that(world, oracle, other):
    changed = Board(tuple((place, dict(other).get(place, content)) for place, content in BOARD.contents))
    (finding,) = oracle.read(draw(world, changed)[None])
    assert finding.board == changed
    assert oracle.share_right(draw(world, changed)[None], [BOARD]) == [0.8]


def half(picture, area):
    picture[area][:12] = 255


def blend(picture, area):
    picture[area] = picture[area] // 2 + 127


def shift(picture, area):
    picture[:] = np.roll(picture, 8, axis=1)


def stroke(picture, area):
    picture[:4, :60] = 0


@pytest.mark.parametrize("damage", [half, blend, shift, stroke])
@pytest.mark.parametrize("place", [(1, 1), (2, 2), (4, 5)])
def test_damaged_boards_are_rejected(world, oracle, damage, place):
    picture = draw(world, BOARD)
    damage(picture, locate(place, 1))
    (finding,) = oracle.read(picture[None])
    assert finding.board is None
    assert finding.reason in ("far from every template", "between two templates")
    assert oracle.share_right(picture[None], [BOARD]) == [0.0]


def test_a_digit_between_two_is_rejected(world, oracle):
    one, other = (draw(world, Board((((3, 3), digits),))).astype(int) for digits in ("33", "38"))
    (finding,) = oracle.read(((one + other) // 2).astype(np.uint8)[None])
    assert finding.reason == "between two templates"


def test_an_empty_picture_is_no_board(oracle):
    (finding,) = oracle.read(np.full((1, 128, 128, 3), 255, np.uint8))
    assert (finding.board, finding.reason) == (None, "nothing there")


def test_what_it_cannot_read_is_refused(oracle):
    with pytest.raises(DocumentError, match=r"\(n 128 128 3\), found uint8 \(1, 64, 64, 3\)"):
        oracle.read(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(RecipeError, match=r"no dense pictures.*world\.dense_size"):
        BoardOracle(EmojiWorld())
