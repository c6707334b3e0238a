"""Attributes of pictures and the batches that carry them."""

import pytest
import torch

from plait.data.jitter import Jitter
from plait.data.pictures import PictureBatches
from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji.attributes import Attributes
from plait.worlds.emoji.splits import HELD_OUT_CELLS
from plait.worlds.emoji.world import EmojiWorld


@pytest.fixture(scope="module")
def attributes() -> Attributes:
    return Attributes(EmojiWorld())


def test_a_scene_says_which_colour_and_which_object_stand_where(attributes) -> None:
    found = {attributes[number] for number in attributes.of("scene/red-car@left+blue-house@right")}
    assert found == {"left red", "left car", "right blue", "right house"}


def test_a_glyph_has_its_name_and_the_words_of_it(attributes) -> None:
    names = {f"glyph/{glyph.code}": glyph.name for glyph in EmojiWorld().glyphs("train")}
    image_id = next(key for key, name in names.items() if len(set(name.split())) == 3)
    assert {attributes[number] for number in attributes.of(image_id)} == {names[image_id], *names[image_id].split()}


def test_no_phrase_is_a_held_out_cell_or_the_name_of_a_val_glyph(attributes) -> None:
    phrases = set(attributes)
    assert len(phrases) == len(attributes) == attributes.size
    assert not [cell for cell in HELD_OUT_CELLS if any(all(word in phrase.split() for word in cell) for phrase in phrases)]
    glyph = EmojiWorld().glyphs("val")[0]
    with pytest.raises(DocumentError, match="has no attributes: expected a scene or a training glyph"):
        attributes.of(f"glyph/{glyph.code}")


def test_batches_carry_attributes_and_are_a_function_of_their_number(attributes) -> None:
    world = EmojiWorld()
    pools = {"scenes": world.image_ids("train", "scenes"), "glyphs": world.image_ids("train", "glyphs")}

    def make(**settings) -> PictureBatches:
        weights = {"scenes": 0.5, "glyphs": 0.5}
        named = {"attributes": attributes.of, "jitter": Jitter(), "terms": ["attributes"]}
        return PictureBatches(
            pools=pools, weights=weights, pixels=world.pixels, batch_size=8, num_batches=4, **{**named, **settings}
        )

    batch, again, plain = make()[2], make()[2], make(jitter=None)[2]
    assert torch.equal(batch["images"], again["images"])
    assert not torch.equal(batch["images"], plain["images"])
    assert batch["counts"] == {"attributes": 8.0}
    for row, name in zip(batch["attributes"].tolist(), make().image_ids(2), strict=True):
        own = attributes.of(name)
        assert row == own + [-1] * (len(row) - len(own))
    assert "attributes" not in make(attributes=None)[2]


def test_neighbours_of_a_pool_come_together_and_originals_say_which_are_one_picture(attributes) -> None:
    world = EmojiWorld()
    pool = sorted(world.image_ids("train", "glyphs"), key=attributes.spell)
    settings = {
        "pools": {"glyphs": pool[:10]},
        "weights": {"glyphs": 1.0},
        "pixels": world.pixels,
        "num_batches": 3,
        "batch_size": 14,
    }
    batches = PictureBatches(**settings, jitter=Jitter(), has_originals=True, neighbours={"glyphs": 4})
    names = batches.image_ids(1)
    for start in (0, 4, 8, 12):
        first, length = pool.index(names[start]), min(4, 14 - start)
        assert names[start : start + length] == [pool[(first + step) % 10] for step in range(length)]
    batch = batches[1]
    numbers = batch["numbers"].tolist()
    assert numbers == [names.index(name) for name in names]
    assert len(set(numbers)) < 14  # ten pictures: some came twice
    for row, number in enumerate(numbers):
        assert torch.equal(batch["originals"][row], batch["originals"][number])
    assert not torch.equal(batch["images"], batch["originals"])
    ranks = [PictureBatches(**settings, neighbours={"glyphs": 4}, rank=rank, num_ranks=2).image_ids(1) for rank in (0, 1)]
    assert [name for pair in zip(*ranks, strict=True) for name in pair] == names


def test_originals_without_renderings_and_neighbours_of_no_pool_are_refused(attributes) -> None:
    settings = {"pools": {"a": ["x"]}, "weights": {"a": 1.0}, "pixels": None, "num_batches": 1, "batch_size": 2}
    with pytest.raises(RecipeError, match="nothing is rendered afresh: name a jitter"):
        PictureBatches(**settings, has_originals=True)
    with pytest.raises(RecipeError, match=r"batches\.neighbours has \{'b': 2\}, expected pools of \['a'\]"):
        PictureBatches(**settings, neighbours={"b": 2})


def test_spelled_in_order_a_figure_stands_beside_itself_in_other_tones(attributes) -> None:
    ids = sorted(EmojiWorld().image_ids("train", "glyphs"), key=attributes.spell)
    names = [attributes.spell(image_id) for image_id in ids]
    first = names.index("man cook dark skin tone") if "man cook dark skin tone" in names else names.index("man cook")
    assert all(name.startswith("man cook") for name in names[first : first + 3])
    assert attributes.spell("scene/red-car@left+blue-house@right") == "left red, left car, right blue, right house"
