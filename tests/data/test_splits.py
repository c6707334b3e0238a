"""The splits hold what they promise: nothing that a test shows is seen or read in training, nor by the vision tokenizer."""

import hashlib
import re
from collections import Counter
from itertools import combinations

import pytest

from plait.document import Document, TextSpan
from plait.errors import RecipeError
from plait.worlds.emoji import EmojiWorld, Scene
from plait.worlds.emoji.captions import parse
from plait.worlds.emoji.glyphs import OBJECT_CODES, list_glyphs, open_glyph
from plait.worlds.emoji.oracle import Oracle
from plait.worlds.emoji.recolour import natural_colour
from plait.worlds.emoji.scenes import COLOURS, OBJECTS
from plait.worlds.emoji.splits import HELD_OUT_CELLS, HELD_OUT_PAIRS, assign_scene
from plait.worlds.emoji.stories import follow

PAIR_TASKS = ("one_object", "centred", "placed", "two_objects")
DRAWN_TASKS = ("vqa", "stories", "edits", "text")
CELL = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(OBJECTS)})\b")
OBJECT = re.compile(rf"\b({'|'.join(OBJECTS)})\b")


@pytest.fixture(scope="module")
def painted_world() -> EmojiWorld:
    return EmojiWorld(has_painted=True)


def read_objects(document: Document) -> set[str]:
    """All objects that a document shows or mentions."""
    shown = {name for image in document.images for name in Scene.from_id(image.image_id).objects}
    return shown | set(OBJECT.findall(document.text))


def read_scenes(document: Document) -> list[Scene]:
    """All scenes that a document shows or describes, intermediate states of stories without pictures included."""
    scenes = [Scene.from_id(image.image_id) for image in document.images]
    state = None
    for sentence in re.findall(r"[^.]+\.", " ".join(s.text for s in document.spans if isinstance(s, TextSpan))):
        caption = parse(sentence)
        if caption is None:
            state = follow(None if sentence.strip().startswith("here is") else state, sentence.strip())
        scenes += [scene for scene in (caption or state,) if scene is not None]
    return scenes


def test_held_out_pairs_are_12_of_66_and_each_object_is_in_two():
    assert len(HELD_OUT_PAIRS) == 12
    assert not HELD_OUT_PAIRS - {frozenset(pair) for pair in combinations(OBJECTS, 2)}
    assert Counter(name for pair in HELD_OUT_PAIRS for name in pair) == dict.fromkeys(OBJECTS, 2)


def test_held_out_cells_leave_four_colours_per_object_and_nine_objects_per_colour():
    assert len(HELD_OUT_CELLS) == 12
    assert all(sum(name == own for _, own in HELD_OUT_CELLS) <= 1 for name in OBJECTS)
    assert all(sum(colour == own for own, _ in HELD_OUT_CELLS) <= 3 for colour in COLOURS)


def test_no_cell_is_held_out_in_the_colour_in_which_its_glyph_is_drawn():
    natural = {(natural_colour(open_glyph(code)), name) for name, code in OBJECT_CODES.items()}
    assert not natural & HELD_OUT_CELLS


def test_every_scene_is_in_at_most_one_split(world):
    counts = Counter((split, len(scene.things)) for scene, split in world.assignment.items())
    assert counts == {
        ("train", 1): 240,
        ("test_combo", 1): 60,
        ("train", 2): 3048,
        ("val", 2): 408,
        ("test_pair", 2): 768,
        ("test_combo", 2): 1944,
        (None, 2): 432,
    }


def test_val_holds_a_coloured_pair_in_all_its_places(world):
    groups = Counter(scene.cells for scene, split in world.assignment.items() if split == "val")
    assert set(groups.values()) == {4}


def test_no_training_picture_equals_a_held_out_picture(world):
    def hash_pictures(ids):
        return {hashlib.sha256(world.pixels([image_id]).tobytes()).digest() for image_id in ids}

    training = world.image_ids("train")
    assert len(training) == 240 + 3048 + len(world.glyphs("train"))
    seen = hash_pictures(training)
    held_out = [scene.id for scene, split in world.assignment.items() if split != "train"] + world.image_ids("val", "glyphs")
    assert len(seen) == len(training)
    assert not seen & hash_pictures(held_out)


def test_the_glyphs_of_the_worlds_objects_are_not_among_the_glyphs():
    assert len(list_glyphs()) > 3_800
    assert not {glyph.code for glyph in list_glyphs()} & set(OBJECT_CODES.values())


def test_no_glyph_is_named_like_held_out_content():
    for glyph in list_glyphs():
        assert not set(CELL.findall(glyph.name)) & HELD_OUT_CELLS, glyph
        assert not any(frozenset(pair) in HELD_OUT_PAIRS for pair in combinations(set(OBJECT.findall(glyph.name)), 2)), glyph


def test_no_painted_glyph_is_named_like_an_object_of_the_world(painted_world):
    ids, documents = painted_world.image_ids("train", "painted"), list(painted_world.source("painted", "train"))
    assert len(ids) == len(set(ids)) == len(documents) > 3_000
    assert {document.images[0].image_id for document in documents} == set(ids)
    codes = {document.images[0].image_id.partition("-")[2].partition("@")[0] for document in documents}
    assert codes <= {glyph.code for glyph in painted_world.glyphs("train")}
    assert not any(OBJECT.findall(document.text) for document in documents)
    assert not painted_world.image_ids("val", "painted")
    with pytest.raises(RecipeError, match="0 distinct documents of painted/test_combo"):
        painted_world.source("painted", "test_combo")


def check_painted(painted_world: EmojiWorld, ids: list[str]) -> None:
    pixels = painted_world.pixels(ids)
    held_out = [
        scene.id for scene, split in painted_world.assignment.items() if len(scene.things) == 1 and split == "test_combo"
    ]
    hashes = {hashlib.sha256(picture.tobytes()).digest() for picture in painted_world.pixels(held_out)}
    assert not hashes & {hashlib.sha256(picture.tobytes()).digest() for picture in pixels}
    seen = [finding for finding in Oracle(painted_world).read(pixels) if finding.is_recognisable]
    assert not {thing.cell for finding in seen for thing in finding.things} & HELD_OUT_CELLS


def test_the_oracle_takes_no_painted_glyph_for_a_held_out_cell(painted_world):
    check_painted(painted_world, painted_world.image_ids("train", "painted")[::20])


@pytest.mark.slow
def test_the_oracle_takes_none_of_all_painted_glyphs_for_a_held_out_cell(painted_world):
    check_painted(painted_world, painted_world.image_ids("train", "painted"))


def test_a_world_without_painted_glyphs_is_as_it_was(world, painted_world):
    assert "painted" not in world.tasks
    assert not world.image_ids("train", "painted")
    assert world.fingerprint() != painted_world.fingerprint()
    with pytest.raises(RecipeError, match="no task 'painted'"):
        world.source("painted", "train")


@pytest.mark.parametrize("task", PAIR_TASKS)
def test_pairs_are_drawn_from_training_scenes_only(world, task):
    scenes = getattr(world.pools("train"), task)
    assert scenes
    assert {world.assignment[scene] for scene in scenes} == {"train"}


@pytest.mark.parametrize("task", PAIR_TASKS + DRAWN_TASKS)
def test_the_first_training_documents_never_show_or_mention_held_out_content(world, task):
    check_training(world, task, 1_000)


@pytest.mark.slow
@pytest.mark.parametrize("task", DRAWN_TASKS)
def test_no_training_document_shows_or_mentions_held_out_content(world, task):
    check_training(world, task, len(world.source(task, "train")))


def check_training(world: EmojiWorld, task: str, size: int) -> None:
    for document in world.source(task, "train", size):
        cells = set(CELL.findall(document.text))
        assert not cells & HELD_OUT_CELLS, document
        assert not any(frozenset(pair) in HELD_OUT_PAIRS for pair in combinations(read_objects(document), 2)), document
        scenes = read_scenes(document)
        assert scenes or task == "vqa"
        assert all(world.assignment[scene] == "train" for scene in scenes), document


def test_the_text_tokenizer_reads_no_held_out_content(world):
    for text in world.vocabulary_texts():
        assert not set(CELL.findall(text)) & HELD_OUT_CELLS, text
        assert not any(frozenset(pair) in HELD_OUT_PAIRS for pair in combinations(set(OBJECT.findall(text)), 2)), text


@pytest.mark.parametrize("split", ["val", "test_pair", "test_combo"])
@pytest.mark.parametrize("task", ["two_objects", "vqa", "stories", "edits", "text"])
def test_each_test_document_has_content_of_its_split_and_none_of_the_others(world, split, task):
    documents = list(world.source(task, split, 300))
    for document in documents:
        found = {world.assignment[scene] for scene in read_scenes(document)}
        assert split in found, document
        assert found <= {split, "train"}, document


@pytest.mark.parametrize("split", ["val", "test_pair", "test_combo"])
@pytest.mark.parametrize("task", ["two_objects", "vqa", "stories", "edits", "text"])
def test_prompts_outside_training_are_distinct(world, split, task):
    prompts = [
        tuple(getattr(s, "text", None) or s.image_id for s in document.spans) for document in world.source(task, split, 400)
    ]
    assert len(set(prompts)) == len(prompts)


def test_a_scene_with_a_held_out_cell_and_a_held_out_pair_belongs_nowhere():
    assert assign_scene(Scene.from_id("scene/red-fish@left+green-star@right")) is None


def test_one_object_scenes_are_few_and_say_so(world):
    assert len(world.source("one_object", "val")) == 240
    with pytest.raises(RecipeError, match="240 distinct documents of one_object/val, asked for were 300"):
        world.source("one_object", "val", 300)
    with pytest.raises(RecipeError, match="test_pair has no one-object scenes"):
        world.source("one_object", "test_pair")
