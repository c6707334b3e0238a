"""Small joints for configs: they bring together parts of the library that must not know one another (a world and a template, a
tokenizer and a world). Anything that decides or computes belongs in the library; anything that trains belongs in a stage.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from tqdm import tqdm

from lightning_modules.processes.ranks import count_ranks, decide, own_rank, shared_among_ranks
from plait.backbones.subwords import SubwordTokenizer, train_subwords
from plait.backbones.text import WordTokenizer, train_word_level
from plait.data.filling import Pictures
from plait.data.squares import Squares
from plait.document import Document
from plait.errors import CheckpointError, RecipeError
from plait.protocols import World
from plait.sequence.markers import find_marks
from plait.tiling import Tiling
from plait.tokenizers.codes import CodeCache, hash_tokenizer
from plait.tokenizers.encoding import write_codes
from plait.worlds.wordnet.sources import Glosses
from plait.worlds.wordnet.synsets import WordNet

Pixels = Callable[[Sequence[str]], np.ndarray]
log = logging.getLogger(__name__)
SUBWORDS = "text_tokenizer"
"""where a run keeps its subwords"""


def train_text_tokenizer(
    *, world: World, template: Any, has_glyphs: bool = True, size: int = 2048, folders: Mapping[str, str | None] | None = None
) -> WordTokenizer:
    """A text tokenizer trained on the texts of the data and on the wording of a system: one id per word where the data has a closed
    vocabulary, subwords where it has not.

    Args:
        has_glyphs: whether the names of the real glyphs are among the words (some 2,000 more).
        size: ids of a subword tokenizer at most.
        folders: "run" and "model", the folders of this training and of the weights that it starts from. Texts of one's own may change, so
            subwords are kept in the folder of the run and are from then on those of its weights.

    Raises:
        RecipeError: the weights come without their subwords, or the folder of the run has others.
    """
    wording = list(template.texts())
    specials = find_marks(wording)
    if world.is_closed:
        return train_word_level(chain(world.vocabulary_texts(glyphs=has_glyphs), wording), specials)
    run, model = ((folders or {}).get(name) for name in ("run", "model"))
    if model not in (None, "random"):
        # a run folder or saved model, or a checkpoint in <run>/checkpoints
        found = [place / SUBWORDS for place in (Path(model), *Path(model).parents[1:2]) if (place / SUBWORDS).is_dir()]
        if not found:
            raise RecipeError(
                f"base.model={model} has no folder {SUBWORDS}, expected a run that was trained with data=hub: ids that other data "
                "has given to its words would stand for other words. Next: name such a run, or leave base.model out."
            )
        tokenizer = SubwordTokenizer.load(found[0])
    else:
        tokenizer = train_subwords(chain(world.vocabulary_texts(), wording), specials, size)
    if run is not None:
        _keep_subwords(tokenizer, Path(run) / SUBWORDS)
    return tokenizer


@rank_zero_only
def _keep_subwords(tokenizer: SubwordTokenizer, folder: Path) -> None:
    if folder.is_dir() and not SubwordTokenizer.load(folder).is_same(tokenizer):
        raise RecipeError(
            f"{folder} holds other subwords than the texts of the data give now, expected the same: the data has changed since this run "
            "was begun. Next: bring the data back, or take a new paths.folder."
        )
    tokenizer.save(folder)


def open_sources(
    *, world: World, tasks: Sequence[str], split: str = "train", wordnet: WordNet | None = None
) -> Mapping[str, Sequence[Document]]:
    """task -> its documents of one split.

    Args:
        wordnet: its glosses are one more task, `glosses`: plain text, of which a released language model would else lose much.
    """
    glosses = {} if wordnet is None else {"glosses": Glosses(wordnet, split)}
    return {task: world.source(task, split) for task in tasks} | glosses


def open_pools(
    *,
    world: World,
    subsets: Sequence[str] = ("centred", "placed", "two_objects", "glyphs"),
    split: str = "train",
    order: Callable[[str], Any] | None = None,
) -> Mapping[str, Sequence[str]]:
    """subset -> the image ids of one split: all scenes, all glyphs, all boards, scenes of one kind; of data of one's own, all pictures.

    Args:
        order: image id -> what the ids are sorted by; None leaves them as the world has them.
    """
    pools = {name: world.image_ids(split, name) for name in subsets}
    return pools if order is None else {name: sorted(pool, key=order) for name, pool in pools.items()}


def open_pixels(*, world: World, tiling: Tiling | None, image_size: Sequence[int]) -> Pixels:
    """Pictures that a vision tokenizer learns from: those of a world as they are, or squares of them as they will be read.

    Args:
        image_size: (height, width) of the tokenizer.

    Raises:
        RecipeError: tiles are asked for, and its pictures are no squares.
    """
    return world.pixels if tiling is None else Squares(world, tiling, _square_side(image_size)).pixels


def open_pictures(
    *,
    folder: str | None,
    vision_tokenizer: nn.Module | None,
    world: World,
    tiling: Tiling | None = None,
    image_size: Sequence[int] | None = None,
) -> Pictures:
    """A world's pictures by their ids. Their codes are read from a cache, or made when they are asked for where there is none.

    Args:
        vision_tokenizer: None for a system that reads pictures as they are.
        image_size: (height, width) of the tiles of such a system.
        tiling: cuts pictures into squares of the tokenizer's size, however large they are; None refuses pictures of another size.

    Raises:
        CheckpointError: the cache was made by another tokenizer, from other data or in other tiles.
    """
    if vision_tokenizer is None:
        return Pictures(pixels=partial(_read_pixels, world, tiling, image_size))
    if folder is None:
        return live_pictures(vision_tokenizer, world, tiling)
    return Pictures(CodeCache(folder, hash_tokenizer(vision_tokenizer), _fingerprint(world, tiling)).__getitem__)


def _read_pixels(world: Any, tiling: Tiling | None, image_size: Sequence[int] | None, image_id: str) -> np.ndarray:
    if tiling is None:
        return np.asarray(world.picture(image_id))
    tiles = tiling.cut(world.picture(image_id), _square_side(image_size))
    return np.stack([np.asarray(tile) for tile in tiles]) if len(tiles) > 1 else np.asarray(tiles[0])


def live_pictures(vision_tokenizer: nn.Module, world: Any, tiling: Tiling | None = None) -> Pictures:
    """A world's pictures, each encoded when it is first asked for (see `open_pictures`)."""
    return Pictures(LiveCodes(vision_tokenizer, world, tiling))


def _fingerprint(world: World, tiling: Tiling | None) -> str:
    return world.fingerprint() if tiling is None else f"{world.fingerprint()} {tiling}"


class LiveCodes:
    """Codes of pictures, each encoded when it is first asked for.

    Args:
        vision_tokenizer: a module; used in evaluation mode.
        world: draws a picture by its id.
        tiling: see `open_pictures`.
    """

    def __init__(self, vision_tokenizer: nn.Module, world: World, tiling: Tiling | None = None) -> None:
        self.vision_tokenizer, self.world, self.tiling = vision_tokenizer.eval(), world, tiling
        self._known: dict[str, tuple[np.ndarray, ...]] = {}

    @torch.inference_mode()
    def __call__(self, image_id: str) -> tuple[np.ndarray, ...]:
        """One grid (gh, gw) per level, of a picture in several tiles (t, gh, gw)."""
        if image_id not in self._known:
            (tiles,) = read_tiles(self.world, [image_id], self.vision_tokenizer.image_size, self.tiling)
            device = next(iter(self.vision_tokenizer.state_dict().values())).device
            levels = (level.cpu().numpy() for level in self.vision_tokenizer.encode(tiles.to(device)))
            self._known[image_id] = tuple(level if len(tiles) > 1 else level[0] for level in levels)
        return self._known[image_id]


@shared_among_ranks
def encode_world(
    *,
    vision_tokenizer: nn.Module,
    world: World,
    folder: str,
    splits: Sequence[str],
    tiling: Tiling | None = None,
    batch_size: int = 256,
    num_workers: int = 0,
    loggers: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Write the codes of every picture of some splits; the job of `plait-encode`, which several ranks may share. A cache that is whole
    and made by the same tokenizer from the same data is kept; one that was begun is gone on with.

    Args:
        tiling: see `open_pictures`.
        num_workers: processes that load pictures; 0 loads them in this one.
        loggers: told how many pictures there are.

    Returns:
        How many pictures the cache holds, and for how many of them this job stands: none where the cache was there.
    """
    fingerprint = _fingerprint(world, tiling)

    def find() -> dict[str, int]:
        try:
            return {"pictures": len(CodeCache(folder, hash_tokenizer(vision_tokenizer), fingerprint))}
        except CheckpointError as error:
            if Path(folder).exists():
                log.warning("%s It is replaced now.", error)
            return {}

    if found := decide(find):  # looked at once for all ranks: a fast one may have written it before a slow one looks
        return _tell(found["pictures"], 0, loggers)
    ids = list(dict.fromkeys(name for split in splits for name in world.image_ids(split)))
    read = partial(read_images, world, image_size=vision_tokenizer.image_size)
    if tiling is not None:
        read = partial(read_tiles, world, image_size=vision_tokenizer.image_size, tiling=tiling)
    with progress("encoding pictures", len(ids[own_rank() :: count_ranks()])) as report:
        cache = write_codes(
            folder,
            vision_tokenizer,
            ids,
            read,
            batch_size=batch_size,
            num_workers=num_workers,
            share=(own_rank(), count_ranks()),
            data_fingerprint=fingerprint,
            overwrite=True,
            report=report,
        )
    return _tell(len(cache), len(ids), loggers)


def _tell(pictures: int, encoded: int, loggers: Mapping[str, Any] | None) -> dict[str, int]:
    counts = {"pictures": pictures, "encoded": encoded}
    for logger in (loggers or {}).values():
        logger.log_metrics({f"codes/{name}": count for name, count in counts.items()})
    return counts


def read_images(world: World, names: Sequence[str], image_size: Sequence[int]) -> torch.Tensor:
    """Pictures of a world -> (n 3 h w) in [-1, 1].

    Raises:
        RecipeError: they are of another size than the one whose grid of codes the tokenizer announces to the model.
    """
    pixels = world.pixels(names)
    size, wanted = pixels.shape[1:3], tuple(image_size)
    if size != wanted:
        raise RecipeError(
            f"Picture {names[0][:60]!r} has {size[0]} x {size[1]} pixels and vision_tokenizer.image_size is {list(wanted)}, expected one "
            f"size. Next: train a tokenizer of vision_tokenizer.image_size={list(size)} for it, or give world.image_size (of boards: "
            "world.dense_size) the size of the tokenizer; or have pictures scaled (tiling=small) or cut (tiling=tiles) to it."
        )
    return _to_tensor(pixels)


def read_tiles(world: World, names: Sequence[str], image_size: Sequence[int], tiling: Tiling | None) -> list[torch.Tensor]:
    """For each picture of a world its tiles (t 3 h w) in [-1, 1]; without a tiling the picture itself, as one.

    Raises:
        RecipeError: see `read_images`, and where tiles are asked for of a tokenizer whose pictures are no squares.
    """
    if tiling is None:
        return list(read_images(world, names, image_size)[:, None])
    side = _square_side(image_size)
    return [_to_tensor(np.stack([np.asarray(tile) for tile in tiling.cut(world.picture(name), side)])) for name in names]


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _square_side(image_size: Sequence[int]) -> int:
    height, width = image_size
    if height != width:
        raise RecipeError(
            f"tiling is set and vision_tokenizer.image_size is {[height, width]}, expected a square: tiles are squares. Next: take another "
            "tokenizer, or tiling=none."
        )
    return height


def count_batches(*, max_steps: int, accumulate: int = 1) -> int:
    """Micro-batches of a stage: its epoch is the whole of it."""
    return max_steps * accumulate


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields what must be called with (done, total)."""
    with tqdm(total=total, desc=title, disable=None) as bar:
        yield lambda done, _: bar.update(done - bar.n)
