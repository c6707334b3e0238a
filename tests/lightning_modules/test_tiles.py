"""Large pictures read in tiles: their codes are those of each square by itself, from a cache as when asked; misfits are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules.composing.wiring import encode_world, open_pictures, open_pixels
from plait.errors import CheckpointError, RecipeError
from plait.tiling import Tiling
from plait.tokenizers.patch_fsq import PatchFSQ
from plait.worlds.emoji import EmojiWorld

TILES, SMALL = Tiling(max_tiles=4), Tiling(max_tiles=1)
SCENE = "scene/red-car@left"


@pytest.fixture(scope="module")
def world() -> EmojiWorld:
    return EmojiWorld(dense_size=128)


@pytest.fixture(scope="module")
def boards(world) -> list[str]:
    return [document.images[0].image_id for document in world.source("dense", "val", 6)]


@pytest.fixture(scope="module")
def tokenizer() -> PatchFSQ:
    torch.manual_seed(0)
    return PatchFSQ(
        image_size=(64, 64), patch_size=8, width=16, encoder_depth=1, decoder_depth=1, num_heads=1, levels=(5, 5, 5)
    )


def encode_by_hand(tokenizer: PatchFSQ, square: Image.Image) -> np.ndarray:
    pixels = torch.tensor(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return tokenizer.eval().encode(pixels)[0][0].numpy()


def test_codes_of_a_board_are_those_of_its_quarters_and_of_the_whole(world, boards, tokenizer) -> None:
    codes = open_pictures(folder=None, vision_tokenizer=tokenizer, world=world, tiling=TILES)
    board = world.picture(boards[0])
    # a board of 128 pixels is not scaled: its tiles are its quarters as they are
    quarters = [board.crop((left, top, left + 64, top + 64)) for top in (0, 64) for left in (0, 64)]
    whole = board.resize((64, 64), Image.Resampling.BICUBIC)
    expected = np.stack([encode_by_hand(tokenizer, square) for square in (*quarters, whole)])
    (found,) = codes.codes(boards[0])
    assert found.shape == (5, 8, 8)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected.reshape(5, -1), axis=0)) == 5, "every square says something else, or order would not show"
    small = open_pictures(folder=None, vision_tokenizer=tokenizer, world=world, tiling=SMALL)
    np.testing.assert_array_equal(small.codes(boards[0])[0], expected[-1])


def test_a_picture_of_the_size_of_the_tokenizer_is_read_as_ever(world, tokenizer) -> None:
    plain, *others = (
        open_pictures(folder=None, vision_tokenizer=tokenizer, world=world, tiling=t) for t in (None, TILES, SMALL)
    )
    for codes in others:
        np.testing.assert_array_equal(codes.codes(SCENE)[0], plain.codes(SCENE)[0])


class Few:
    """The world with one split of a scene and a few boards, and a fingerprint that takes no time."""

    def __init__(self, world: EmojiWorld, names: list[str]) -> None:
        self.picture, self.pixels, self.names = world.picture, world.pixels, names

    def fingerprint(self) -> str:
        return "a few boards"

    def image_ids(self, split: str) -> list[str]:
        return self.names


def test_a_cache_holds_pictures_of_one_tile_and_of_several(world, boards, tokenizer, tmp_path) -> None:
    few, folder = Few(world, [boards[0], SCENE, *boards[1:]]), str(tmp_path / "codes")
    settings = {"vision_tokenizer": tokenizer, "world": few}
    done = encode_world(**settings, folder=folder, splits=["val"], tiling=TILES, batch_size=3)
    assert done == {"pictures": 7, "encoded": 7}
    assert encode_world(**settings, folder=folder, splits=["val"], tiling=TILES)["encoded"] == 0
    cached, live = (open_pictures(**settings, folder=place, tiling=TILES) for place in (folder, None))
    for name in few.names:
        (ours,), (theirs,) = cached.codes(name), live.codes(name)
        assert ours.shape == ((8, 8) if name == SCENE else (5, 8, 8))
        np.testing.assert_array_equal(ours, theirs)
    for tiling in (None, SMALL, Tiling(max_tiles=4, has_thumbnail=False)):
        with pytest.raises(
            CheckpointError,
            match=r"'a few boards Tiling\(max_tiles=4, has_thumbnail=True\)', expected .* Encode the pictures again",
        ):
            open_pictures(**settings, folder=folder, tiling=tiling)


def test_tiles_of_a_tokenizer_that_reads_no_squares_are_refused(world, boards) -> None:
    flat = PatchFSQ(image_size=(32, 64), patch_size=8, width=16, encoder_depth=1, decoder_depth=1, num_heads=1)
    with pytest.raises(RecipeError, match=r"image_size is \[32, 64\], expected a square.*tiling=none"):
        open_pictures(folder=None, vision_tokenizer=flat, world=world, tiling=TILES).codes(boards[0])


def test_less_than_one_tile_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"max_tiles is 0, expected at least 1 tile.*tiling=none"):
        Tiling(max_tiles=0)


def test_a_tokenizer_learns_from_squares_of_what_it_will_read(world) -> None:
    names = [document.images[0].image_id for document in world.source("dense", "val", 60)]
    squares = open_pixels(world=world, tiling=TILES, image_size=(64, 64))(names)
    assert squares.shape == (60, 64, 64, 3)
    chosen = []
    for name, square in zip(names, squares, strict=True):
        tiles = [np.asarray(tile) for tile in TILES.cut(world.picture(name), 64)]
        chosen.append(next(number for number, tile in enumerate(tiles) if np.array_equal(tile, square)))
    assert set(chosen) == {0, 1, 2, 3, 4}
    assert 20 <= chosen.count(4) <= 40, "half of them are shown whole"
    np.testing.assert_array_equal(open_pixels(world=world, tiling=TILES, image_size=(64, 64))(names[3:4]), squares[3:4])
    np.testing.assert_array_equal(
        open_pixels(world=world, tiling=None, image_size=(64, 64))(names[:2]), world.pixels(names[:2])
    )
