"""The oracle: clean and noisy scenes are read right, planted wrong pictures are rejected or called wrong."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from plait.errors import DocumentError
from plait.worlds.emoji import EmojiWorld, Scene, Thing
from plait.worlds.emoji.agreement import Finding, Score, compare_edit, compare_scene
from plait.worlds.emoji.oracle import DEFAULTS, LIMITS, Oracle
from tests.worlds.planted import PLANTS, plant

RIGHT = Score(True, True, True, True, True, True)


@pytest.fixture(scope="module")
def world():
    return EmojiWorld()


@pytest.fixture(scope="module")
def oracle(world):
    return Oracle(world)


@pytest.fixture(scope="module")
def scenes(world):
    """300 scenes: a third with one object, from all splits."""
    everything = list(world.assignment)
    return everything[:300:3] + everything[300::33]


@pytest.fixture(scope="module")
def pictures(world, scenes):
    return world.pixels([scene.id for scene in scenes])


def add_noise(pictures, sigma):
    noise = np.random.default_rng(0).normal(0, 255 * sigma, pictures.shape)
    return np.clip(np.round(pictures + noise), 0, 255).astype(np.uint8)


def blur(pictures, radius):
    return np.stack([np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius))) for picture in pictures])


def compress(pictures, quality):
    def once(picture):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return np.stack([once(picture) for picture in pictures])


def share_right(oracle, pictures, scenes):
    return np.mean([score.all for score in oracle.score(pictures, scenes)])


def test_clean_scenes_are_read_exactly(world, oracle):
    scenes = list(world.assignment)[::4]
    findings = oracle.read(world.pixels([scene.id for scene in scenes]))
    assert [finding.scene for finding in findings] == scenes
    assert max(finding.worst for finding in findings) < 1e-3
    assert min(finding.margin for finding in findings) > 0.99


@pytest.mark.parametrize("sigma", [0.1, 0.2])
def test_noise_is_read_through(oracle, pictures, scenes, sigma):
    assert share_right(oracle, add_noise(pictures, sigma), scenes) >= 0.99


@pytest.mark.parametrize(("damage", "degree"), [(blur, 1), (blur, 2), (compress, 30)])
def test_blur_and_compression_are_read_through(oracle, pictures, scenes, damage, degree):
    assert share_right(oracle, damage(pictures, degree), scenes) >= 0.99


@pytest.mark.parametrize("thresholds", [DEFAULTS, LIMITS])
@pytest.mark.parametrize("kind", PLANTS)
def test_planted_wrong_pictures_are_rejected_or_called_wrong(world, scenes, kind, thresholds):
    oracle = Oracle(world, thresholds)
    assert share_right(oracle, plant(world, kind, scenes), scenes) <= 0.05


@pytest.mark.parametrize("kind", ["patchwork", "blend", "blob", "half", "mix"])
def test_what_shows_no_scene_at_all_is_rejected(world, oracle, scenes, kind):
    assert np.mean([finding.is_recognisable for finding in oracle.read(plant(world, kind, scenes))]) <= 0.05


def test_without_the_reject_class_planted_pictures_would_pass(world, scenes):
    """The reject class is needed: nearest templates alone find the right scene in many mixes and halves."""
    findings = Oracle(world).read(plant(world, "mix", scenes))
    assert np.mean([finding.things == scene.things for finding, scene in zip(findings, scenes, strict=True)]) > 0.2


def test_noise_and_empty_pictures_are_nothing(oracle):
    static = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    grey = np.full((1, 64, 64, 3), 128, np.uint8)
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    assert [finding.reason for finding in oracle.read(white)] == ["nothing there"]
    assert not any(finding.is_recognisable for finding in oracle.read(np.concatenate([static, grey])))


def test_a_real_glyph_is_no_scene(world, oracle):
    findings = oracle.read(world.pixels([f"glyph/{code}" for code in ("1f600", "1f34e", "1f436", "2764", "1f6b2", "1f352")]))
    assert not any(finding.is_recognisable for finding in findings)


def test_the_same_object_twice_is_recognisable_but_no_scene(world, oracle):
    left, right = world.pixels(["scene/red-car@left", "scene/blue-car@right"])
    (finding,) = oracle.read(np.minimum(left, right)[None])
    assert finding.is_recognisable
    assert finding.scene is None
    assert finding.things == (Thing("red", "car", "left"), Thing("blue", "car", "right"))


def test_scores_tell_what_is_wrong(world, oracle):
    scene = Scene.from_id("scene/red-car@left+blue-house@right")
    cases = {
        "scene/red-car@left+blue-house@right": RIGHT,
        "scene/blue-car@left+red-house@right": Score(True, True, True, True, True, False),
        "scene/blue-house@left+red-car@right": Score(True, True, True, True, False, False),
        "scene/red-car@left+green-house@right": Score(True, True, False, True, True, False),
        "scene/red-car@top+blue-house@bottom": Score(True, True, True, False, False, False),
        "scene/red-car@left": Score(True, False, False, False, False, False),
    }
    for name, score in zip(cases, oracle.score(world.pixels(list(cases)), [scene] * len(cases)), strict=True):
        assert score == cases[name], name


def test_scenes_with_one_object_have_no_relation(world, oracle):
    (score,) = oracle.score(world.pixels(["scene/red-car@left"]), [Scene.from_id("scene/red-car@left")])
    assert score == Score(True, True, True, True, None, True)


@pytest.mark.parametrize("split", ["val", "test_pair", "test_combo"])
def test_edits_and_copies_of_the_input(world, oracle, split):
    documents = list(world.source("edits", split, 200))
    before, after = ([Scene.from_json(d.meta["states"][index]) for d in documents] for index in (0, 1))
    done = oracle.score_edits(world.pixels([scene.id for scene in after]), before, after)
    copied = oracle.score_edits(world.pixels([scene.id for scene in before]), before, after)
    assert all(score.all and score.change_done and score.rest_unchanged for score in done)
    assert not any(score.all or score.change_done for score in copied)
    assert all(score.rest_unchanged for score in copied)


@pytest.mark.parametrize(
    ("drawn", "change", "rest"),
    [
        ("scene/green-car@left+blue-house@right", True, True),
        ("scene/green-car@left+red-house@right", True, False),
        ("scene/yellow-car@left+blue-house@right", False, True),
        ("scene/green-car@left", True, False),
        ("scene/green-car@left+blue-key@right", True, False),
        ("scene/blue-house@left+green-car@right", True, False),
        ("scene/blue-house@right", False, False),
    ],
)
def test_an_edit_is_change_and_rest(world, oracle, drawn, change, rest):
    before, after = (Scene.from_id(f"scene/{colour}-car@left+blue-house@right") for colour in ("red", "green"))
    (score,) = oracle.score_edits(world.pixels([drawn]), [before], [after])
    assert (score.change_done, score.rest_unchanged) == (change, rest)
    assert score.all == (drawn == after.id)


def test_an_unrecognisable_edit_has_nothing_right():
    before, after = Scene.from_id("scene/red-car@left"), Scene.from_id("scene/green-car@left")
    finding = Finding(after.things, None, "far from every template", 0.1, 0.4, 0.9)
    assert not any(vars(compare_edit(finding, before, after)).values())
    assert not any(vars(compare_scene(finding, after)).values())
    assert compare_edit(None, before, after) == compare_edit(finding, before, after)


def test_stories_agree_picture_by_picture(world, oracle):
    document = next(d for d in world.source("stories", "val", 50) if len(d.images) == 5)
    states = [Scene.from_json(state) for state in document.meta["states"]]
    pictures = world.pixels([image.image_id for image in document.images])
    assert oracle.score_story(pictures, states).all
    moved = oracle.score_story(pictures[[1, 0, 2, 3, 4]], states)
    assert (moved.share, moved.all) == (0.6, False)
    short = oracle.score_story(pictures[:4], states)
    assert (short.share, short.all, short.pictures[4].recognisable) == (0.8, False, False)
    long = oracle.score_story(pictures[[0, 1, 2, 3, 4, 4]], states)
    assert (long.share, long.all) == (1.0, False)


def test_calibration_accepts_reconstructions(world, pictures, scenes):
    oracle = Oracle(world)
    reconstructions = blur(pictures, 3)
    before = share_right(oracle, reconstructions, scenes)
    report = oracle.calibrate(reconstructions, scenes, percentile=90.0)
    assert oracle.thresholds == report.thresholds
    assert DEFAULTS.worst < report.thresholds.worst == min(report.wanted.worst, LIMITS.worst)
    assert report.right == 1.0
    assert share_right(oracle, reconstructions, scenes) == report.accepted > before


def test_calibration_is_never_stricter_than_noise_nor_looser_than_the_limits(world, pictures, scenes):
    oracle = Oracle(world)
    assert oracle.calibrate(pictures, scenes).thresholds == DEFAULTS
    report = oracle.calibrate(blur(pictures, 5), scenes)
    assert report.wanted.worst > report.thresholds.worst == LIMITS.worst
    assert report.accepted < 0.5


def test_calibration_needs_reconstructions_that_are_right(world, pictures, scenes):
    with pytest.raises(DocumentError, match="None of 9 reconstructions shows its scene"):
        Oracle(world).calibrate(np.full_like(pictures[:9], 255), scenes[:9])


def test_pictures_of_another_kind_are_refused(oracle):
    with pytest.raises(DocumentError, match=r"uint8 pictures \(n 64 64 3\), found float32 \(1, 3, 64, 64\)"):
        oracle.read(np.zeros((1, 3, 64, 64), np.float32))


@pytest.mark.parametrize("image_size", [32, 128])
def test_other_picture_sizes_are_read(image_size):
    world = EmojiWorld(image_size)
    scenes = list(world.assignment)[::69]
    findings = Oracle(world).read(world.pixels([scene.id for scene in scenes]))
    assert [finding.scene for finding in findings] == scenes
