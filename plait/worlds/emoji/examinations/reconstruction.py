"""What a vision tokenizer keeps: does the oracle still see the scene after encoding and decoding, and how far are the pixels? A generator
over codes cannot be better than this. `original` beside the figures is the oracle on the pictures themselves: the ceiling.
"""

from random import Random

import numpy as np

from plait.document import Document, ImageSpan
from plait.errors import RecipeError
from plait.evaluation.bench import Bench
from plait.evaluation.figures import Figure, Record, Scores, summarise
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.oracle import Calibration
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.scoring import describe_finding, describe_scene, score_scene

ABOUT = {
    "reconstruction": (
        "keeping pictures as codes",
        "share of pictures that show their scene after encoding and decoding: the ceiling",
    ),
    "reconstruction_pixel_error": (
        "",
        "mean difference of a decoded picture from its original; white to black is 1 (lower is better)",
    ),
}


def judge_reconstruction(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Encode and decode pictures of a split, half of them with one object where the split has such.

    Returns:
        figures `<split>/reconstruction` with `_objects`, `_colours`, `_cells`, `_places`, `_unrecognisable` and `_pixel_error` (mean
        absolute difference, white to black is 1; baseline: the mean training picture).
    """
    key = f"{split}/reconstruction"
    scenes = _take_scenes(bench, split)
    spans = [_encode(bench, scene.id) for scene in scenes]
    decoded = bench.decode(spans)
    originals = [bench.world.picture(scene.id) for scene in scenes]
    seen, ceiling = bench.judge.see(decoded), bench.judge.see(originals)
    baselines = blind.score(scenes, names=("chance", "majority"))
    mean_picture = bench.world.pixels([scene.id for scene in blind.training[:500]]).astype(np.float64).mean(0)
    records: list[Record] = []
    mean_scores: list[Scores] = []
    for scene, span, picture, original, finding in zip(scenes, spans, decoded, originals, seen, strict=True):
        scores = {
            **score_scene(finding, scene),
            "pixel_error": _difference(np.asarray(picture), np.asarray(original)),
        }
        document = Document((ImageSpan(scene.id), span))
        mean_scores.append({"pixel_error": _difference(mean_picture, np.asarray(original))})
        expected, found = describe_scene(scene), describe_finding(finding)
        given = Document(document.spans[:1])
        records.append(Record(key, document, (original, picture), scores, expected, found, scene.id, prompt=given))
    baselines["mean_picture"] = mean_scores
    baselines["original"] = [score_scene(finding, scene) for finding, scene in zip(ceiling, scenes, strict=True)]
    return summarise(key, records, baselines, "encoded and decoded"), records


def judge_glyphs(bench: Bench, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Encode and decode real glyphs of a split, which no oracle reads.

    Returns:
        figure `<split>/glyphs_pixel_error`, with the blank white picture as baseline.
    """
    names = [f"glyph/{glyph.code}" for glyph in bench.world.glyphs(split)]
    spans = [_encode(bench, name) for name in Random(bench.seed).sample(names, min(bench.n, len(names)))]
    originals, decoded = [bench.world.picture(span.image_id) for span in spans], bench.decode(spans)
    records, white = [], []
    for span, original, picture in zip(spans, originals, decoded, strict=True):
        pixels, score = np.asarray(original), _difference(np.asarray(picture), np.asarray(original))
        document = Document((ImageSpan(span.image_id), span))
        name = span.image_id.removeprefix("glyph/")
        given, scores = Document(document.spans[:1]), {"pixel_error": score}
        records.append(Record(f"{split}/glyphs", document, (original, picture), scores, name, "", name, prompt=given))
        white.append({"pixel_error": _difference(np.full_like(pixels, 255), pixels)})
    return summarise(f"{split}/glyphs", records, {"white": white}, "encoded and decoded"), records


def calibrate_oracle(bench: Bench, num_pictures: int = 500) -> Calibration:
    """Let the oracle accept what the tokenizer makes of *training* pictures, within its own limits.

    Otherwise the tokenizer's blur would be counted against the model that draws with it.
    """
    scenes = [Scene.from_id(name) for name in bench.world.image_ids("train", "scenes")]
    chosen = Random(bench.seed).sample(scenes, min(num_pictures, len(scenes)))
    decoded = bench.decode([_encode(bench, scene.id) for scene in chosen])
    return bench.judge.calibrate(np.stack([np.asarray(picture) for picture in decoded]), chosen)


def _take_scenes(bench: Bench, split: str) -> list[Scene]:
    """Scenes of a split, those with one object first, at most half of them."""
    found: list[Scene] = []
    for task, limit in (("one_object", bench.n // 2), ("two_objects", bench.n)):
        try:
            source = bench.world.source(task, split)
        except RecipeError:  # test_pair has no scene with one object
            continue
        found += [Scene.from_json(source[index].meta["scene"]) for index in range(min(len(source), limit - len(found)))]
    return found


def _difference(picture: np.ndarray, original: np.ndarray) -> float:
    return float(np.abs(picture.astype(np.float64) - original.astype(np.float64)).mean() / 255)


def _encode(bench: Bench, image_id: str) -> ImageSpan:
    """A picture of the world as codes: whoever redraws pictures need not read documents."""
    return bench.pictures.fill(ImageSpan(image_id, form="codes"))
