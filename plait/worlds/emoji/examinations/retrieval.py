"""Does a vision encoder know again what it has seen? The nearest of a gallery to a fresh rendering of one of its pictures.

Nearest is by the cosine of pooled embeddings. Beside it: chance, and the nearest picture by pixels (mean squared difference), which
is what an encoder has to be better than.
"""

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch.nn import functional

from plait.axes import Float, Images, Int, Tensor
from plait.document import Document, ImageSpan
from plait.evaluation.features import FeatureSpace
from plait.evaluation.figures import MAIN, Figure, Record, summarise
from plait.images import to_pictures, to_tensor
from plait.protocols import World
from plait.worlds.emoji.scenes import Scene
from plait.worlds.emoji.world import EmojiWorld

Render = Callable[[Images, torch.Generator], Images]


def judge_retrieval(
    space: FeatureSpace, world: EmojiWorld, render: Render, n: int = 1000, seed: int = 0
) -> tuple[dict[str, Figure], list[Record]]:
    """Look up fresh renderings.

    Args:
        render: pictures -> fresh renderings of them (plait.data.jitter).
        n: queries per figure, each of another picture; all where the gallery is smaller.

    Returns:
        figures `glyphs/retrieval` (queries and gallery: the training glyphs), `unseen_glyphs/retrieval` (queries: the val glyphs,
        which join the gallery), `objects/retrieval` (coloured objects of training, large in the centre) and `unseen_objects/retrieval`
        (queries: the held-out cells, which join), and the records behind them.
    """
    seen, unseen = ([f"glyph/{glyph.code}" for glyph in world.glyphs(split)] for split in ("train", "val"))
    cells, held_out = ([scene.id for scene in world.pools(split).centred] for split in ("train", "test_combo"))
    galleries = {
        "glyphs": (seen, seen),
        "unseen_glyphs": (unseen, [*seen, *unseen]),
        "objects": (cells, cells),
        "unseen_objects": (held_out, [*cells, *held_out]),
    }
    figures: dict[str, Figure] = {}
    records: list[Record] = []
    for name, (pool, gallery) in galleries.items():
        queries = Random(f"{seed}/{name}").sample(pool, min(n, len(pool)))
        generator = torch.Generator().manual_seed(seed)
        found = _look_up(space, world, f"{name}/retrieval", queries, gallery, lambda x, g=generator: render(x, g))
        figures |= found[0]
        records += found[1]
    return figures, records


def _look_up(
    space: FeatureSpace,
    world: World,
    key: str,
    queries: Sequence[str],
    gallery: Sequence[str],
    render: Callable[[Images], Images],
) -> tuple[dict[str, Figure], list[Record]]:
    shown = to_tensor([world.picture(name) for name in gallery])
    asked = render(to_tensor([world.picture(name) for name in queries]))
    nearest = _nearest(*(functional.normalize(space.measure(images), dim=1) for images in (asked, shown)))
    by_pixels = _nearest(asked.flatten(1), shown.flatten(1))
    records = []
    for name, index, picture in zip(queries, nearest.tolist(), to_pictures(asked), strict=True):
        document = Document(tuple(ImageSpan(shown_name) for shown_name in (name, gallery[index], f"{name}, rendered afresh")))
        pictures = (world.picture(name), world.picture(gallery[index]), picture)
        score = {MAIN: float(gallery[index] == name)}
        records.append(Record(key, document, pictures, score, _spell(name), _spell(gallery[index]), name))
    baselines = {
        "chance": [{MAIN: 1 / len(gallery)}] * len(queries),
        "pixels": [{MAIN: float(gallery[index] == name)} for name, index in zip(queries, by_pixels.tolist(), strict=True)],
    }
    facts = {**space.describe(shown.shape[-2:]), "gallery": len(gallery)}
    return summarise(key, records, baselines, "nearest by cosine", facts), records


def _nearest(queries: Float[Tensor, "n d"], gallery: Float[Tensor, "m d"]) -> Int[Tensor, "n"]:
    """The row of the gallery that is nearest to each query."""
    return (gallery.square().sum(1) - 2 * queries @ gallery.T).argmin(1)


def _spell(image_id: str) -> str:
    if image_id.startswith("scene/"):
        return " and ".join(f"{thing.colour} {thing.object}" for thing in Scene.from_id(image_id).things)
    return image_id.removeprefix("glyph/")
