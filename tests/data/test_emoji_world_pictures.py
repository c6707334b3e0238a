"""Pictures of the world: one per scene, exactly in their slots, each in its colour."""

import colorsys

import numpy as np
import pytest

from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji import EmojiWorld, Scene
from plait.worlds.emoji.glyphs import Glyph, list_glyphs, normalise_name, to_code
from plait.worlds.emoji.recolour import HUES
from plait.worlds.emoji.scenes import COLOURS, OBJECTS

AREAS_64 = {
    "left": (slice(16, 48), slice(0, 32)),
    "right": (slice(16, 48), slice(32, 64)),
    "top": (slice(0, 32), slice(16, 48)),
    "bottom": (slice(32, 64), slice(16, 48)),
    "centre": (slice(8, 56), slice(8, 56)),
}


def test_there_are_6900_scenes_and_no_two_look_alike(world):
    pixels = world.pixels([scene.id for scene in world.assignment])
    assert pixels.shape == (6900, 64, 64, 3)
    assert pixels.dtype == np.uint8
    assert len({picture.tobytes() for picture in pixels}) == 6900


@pytest.mark.parametrize("slot", AREAS_64)
def test_things_stay_in_their_slot_and_fill_it(world, slot):
    for name in OBJECTS:
        picture = np.asarray(world.picture(f"scene/blue-{name}@{slot}"))
        inside = picture[AREAS_64[slot]]
        drawn = (inside != 255).any(axis=2)
        rest = picture.copy()
        rest[AREAS_64[slot]] = 255
        assert (rest == 255).all()
        assert max(np.ptp(axis) for axis in np.nonzero(drawn)) >= len(inside) - 5


def test_two_things_are_the_two_pictures_together(world):
    left, right, both = world.pixels(
        ["scene/red-car@left", "scene/blue-house@right", "scene/red-car@left+blue-house@right"]
    ).astype(int)
    assert np.array_equal(both, left + right - 255)


@pytest.mark.parametrize("colour", COLOURS)
def test_every_object_looks_its_colour(world, colour):
    for name in OBJECTS:
        inside = np.asarray(world.picture(f"scene/{colour}-{name}@centre"))[AREAS_64["centre"]]
        colours = [
            colorsys.rgb_to_hsv(*(inside[y, x] / 255)) for y, x in zip(*np.nonzero((inside != 255).any(axis=2)), strict=True)
        ]
        hue, saturation, _ = np.array(colours).T
        off = np.abs((hue * 360 - HUES[colour] + 180) % 360 - 180)
        right = (off < 12) & (saturation > 0.4)
        others = [np.abs((hue * 360 - HUES[other] + 180) % 360 - 180) < 12 for other in COLOURS if other != colour]
        assert right.mean() > 0.3, (colour, name, right.mean())
        assert right.sum() > 2.5 * max(((other) & (saturation > 0.4)).sum() for other in others), (colour, name)


def test_scene_ids_and_json_are_inverse(world):
    for scene in list(world.assignment)[::7]:
        assert Scene.from_id(scene.id) == scene
        assert Scene.from_json(scene.to_json()) == scene


@pytest.mark.parametrize(
    ("image_id", "words"),
    [
        ("scene/red-car", "names no scene"),
        ("scene/red-car@left+blue-car@right", "two different objects"),
        ("scene/red-car@left+blue-house@top", "two different objects"),
        ("scene/red-car@centre+blue-house@right", "two different objects"),
        ("scene/red-dog@left", "not of the world"),
        ("cat.png", "names no picture"),
    ],
)
def test_pictures_that_do_not_exist_are_refused(world, image_id, words):
    with pytest.raises(DocumentError, match=words):
        world.picture(image_id)


def test_unknown_glyphs_splits_and_sizes_are_refused(world):
    with pytest.raises(RecipeError, match="no glyph 'zz'"):
        world.picture("glyph/zz")
    with pytest.raises(RecipeError, match="no split 'test'"):
        world.image_ids("test")
    with pytest.raises(RecipeError, match="no task 'poems'"):
        world.source("poems", "train")
    with pytest.raises(RecipeError, match="multiple of 16 and at least 32, not 40"):
        EmojiWorld(image_size=40)


@pytest.mark.parametrize("image_size", [32, 128])
def test_other_sizes_scale_the_layout(image_size):
    picture = np.asarray(EmojiWorld(image_size).picture("scene/red-car@left"))
    quarter = image_size // 4
    assert picture.shape == (image_size, image_size, 3)
    assert (picture[:, 2 * quarter :] == 255).all()
    assert (picture[:quarter] == 255).all()
    assert (picture[quarter : 3 * quarter, : 2 * quarter] != 255).any()


def test_glyphs_are_drawn_once_each_on_white(world):
    glyphs = list_glyphs()
    assert len({glyph.code for glyph in glyphs}) == len(glyphs)
    assert Glyph("1f600", "grinning face") in glyphs
    assert sorted(world.glyphs("train") + world.glyphs("val"), key=lambda glyph: glyph.code) == list(glyphs)
    picture = np.asarray(world.picture("glyph/1f600"))
    assert picture.shape == (64, 64, 3)
    assert (picture[0] == 255).all()


def test_names_are_words_and_marks():
    assert normalise_name("Woman’s_Hat (blue)") == "woman ' s hat ( blue )"
    assert to_code("\u2602\ufe0f") == to_code("\u2602") == "2602"
    for glyph in list_glyphs():
        assert glyph.name == normalise_name(glyph.name)
        assert glyph.name
