"""What a vision tokenizer keeps: does the oracle still see the scene after encoding and decoding, how far are the pixels,
and is the codebook used? A generator over codes cannot be better than this. `original` beside the figures is the oracle on
the pictures themselves: the ceiling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from plait.document import Document, ImageSpan
from plait.errors import RecipeError, VocabularyError
from plait.evaluation.bench import Bench
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.figures import Figure, Record, Scores, summarise
from plait.evaluation.scoring import describe_finding, describe_scene, score_scene
from plait.evaluation.verifier import Calibration
from plait.worlds.emoji.scenes import Scene

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


@dataclass(frozen=True)
class CodebookHealth:
    """Use of one code level (or of one digit of it).

    Args:
        used: share of the codes that occur.
        perplexity: exp of the entropy of the code frequencies; the codebook size when all are used alike.
        size: codes there are.
    """

    used: float
    perplexity: float
    size: int


def measure_codebook(codes: np.ndarray, size: int) -> CodebookHealth:
    """Health of a codebook from observed codes.

    Raises:
        VocabularyError: no codes, or a code outside the codebook.
    """
    codes = np.asarray(codes).ravel()
    if codes.size == 0 or codes.min() < 0 or codes.max() >= size:
        found = f"codes {codes.min()}..{codes.max()}" if codes.size else "no codes"
        raise VocabularyError(f"Codebook of size {size}: found {found}. The code cache belongs to another tokenizer.")
    counts = np.bincount(codes, minlength=size)
    shares = counts[counts > 0] / codes.size
    return CodebookHealth(float((counts > 0).mean()), float(np.exp(-(shares * np.log(shares)).sum())), size)


def measure_codebooks(
    grids: Sequence[tuple[np.ndarray, ...]], digit_sizes: Sequence[Sequence[int]]
) -> dict[str, CodebookHealth]:
    """Health of every level, and of every digit where codes have several.

    Args:
        grids: per picture one grid per level.
        digit_sizes: per level the sizes of the digits, least significant first; one digit is a plain codebook.

    Returns:
        "level_0", "level_0_digit_0", ... -> health.
    """
    found = {}
    for level, sizes in enumerate(digit_sizes):
        codes = np.concatenate([np.asarray(grid[level]).ravel() for grid in grids])
        found[f"level_{level}"] = measure_codebook(codes, int(np.prod(sizes)))
        if len(sizes) > 1:
            for digit, size in enumerate(sizes):
                found[f"level_{level}_digit_{digit}"] = measure_codebook(codes % size, size)
                codes = codes // size
    return found


def judge_reconstruction(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Encode and decode pictures of a split, half of them with one object where the split has such.

    Returns:
        figures `<split>/reconstruction` with `_objects`, `_colours`, `_cells`, `_places`, `_unrecognisable` and `_pixel_error` (mean
        absolute difference, white to black is 1; baseline: the mean training picture).
    """
    key = f"{split}/reconstruction"
    scenes = _take_scenes(bench, split)
    spans = [bench.show(scene.id) for scene in scenes]
    decoded = bench.decode(spans)
    originals = [bench.world.picture(scene.id) for scene in scenes]
    seen, ceiling = bench.see(decoded), bench.see(originals)
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
    spans = [bench.show(name) for name in Random(bench.seed).sample(names, min(bench.n, len(names)))]
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
    decoded = bench.decode([bench.show(scene.id) for scene in chosen])
    return bench.oracle.calibrate(np.stack([np.asarray(picture) for picture in decoded]), chosen)


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
