"""What a vision tokenizer keeps: does the oracle still see the scene after encoding and decoding, how far are the pixels, and is the
codebook used? A generator over codes cannot be better than this. `original` beside the figures is the oracle on the pictures
themselves: the ceiling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plait.data.emoji_world.scenes import Scene
from plait.document import Document
from plait.errors import VocabularyError
from plait.evaluation.bench import Bench
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.figures import MAIN, Figure, Record, Scores, summarise
from plait.evaluation.scoring import compare_scenes, describe_things


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
        figures `<split>/reconstruction` with `_objects`, `_colours`, `_places`, `_unrecognisable` and `_pixel_error` (mean absolute
        difference, white to black is 1; baseline: the mean training picture).
    """
    key = f"{split}/reconstruction"
    scenes = _take_scenes(bench, split)
    spans = [bench.show(scene.id) for scene in scenes]
    decoded = bench.decode(spans)
    originals = [bench.world.picture(scene.id) for scene in scenes]
    seen, ceiling = bench.see(decoded), bench.see(originals)
    mean_picture = bench.world.pixels([scene.id for scene in blind.training[:500]]).astype(np.float64).mean(0)
    records, mean_scores = [], []
    for scene, span, picture, original, things in zip(scenes, spans, decoded, originals, seen, strict=True):
        scores = {
            **compare_scenes(things, scene),
            "unrecognisable": float(not things),
            "pixel_error": _difference(np.asarray(picture), np.asarray(original)),
        }
        document = Document((bench_original(scene.id), span))
        mean_scores.append({"pixel_error": _difference(mean_picture, np.asarray(original))})
        expected, found = describe_things(scene.things), describe_things(things)
        records.append(Record(key, document, (original, picture), scores, expected, found, scene.id))
    baselines: Mapping[str, Sequence[Scores]] = {
        **blind.score(scenes),
        "mean_picture": mean_scores,
        "original": [compare_scenes(things, scene) for things, scene in zip(ceiling, scenes, strict=True)],
    }
    return summarise(key, records, baselines, "codes of the tokenizer, decoded"), records
