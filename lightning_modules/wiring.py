"""Small joints for configs: they bring together parts of the library that must not know one another (a world and a template, a
tokenizer and a world). Anything that decides or computes belongs in the library; anything that trains belongs in a stage.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from tqdm import tqdm

from plait.backbones.subwords import SubwordTokenizer, train_subwords
from plait.backbones.text import WordTokenizer, train_word_level
from plait.data.wordnet.sources import Glosses
from plait.data.wordnet.synsets import WordNet
from plait.document import Document
from plait.errors import CheckpointError, RecipeError
from plait.tokenizers.codes import CodeCache, hash_tokenizer, write_codes

Codes = Callable[[str], tuple[np.ndarray, ...]]
log = logging.getLogger(__name__)
MARKED = re.compile(r"<\|?\w+\|?>")
"""How a wording writes strings that are one id: <start_of_turn>, <|im_start|>."""
SUBWORDS = "text_tokenizer"
"""where a run keeps its subwords"""


def train_text_tokenizer(
    *, world: Any, template: Any, has_glyphs: bool = True, size: int = 2048, folders: Mapping[str, str | None] | None = None
) -> WordTokenizer:
    """A text tokenizer trained on the texts of the data and on the wording of a system: one id per word where the data has a closed
    vocabulary, subwords where it has not.

    Args:
        has_glyphs: whether the names of the real glyphs are among the words (some 2,000 more).
        size: ids of a subword tokenizer at most.
        folders: "run" and "model", the folders of this job and of the weights that it starts from. Texts of one's own may change, so
            subwords are kept in the folder of the run and are from then on those of its weights.

    Raises:
        RecipeError: the weights come without their subwords, or the folder of the run has others.
    """
    wording = list(template.texts())
    specials = sorted({marked for text in wording for marked in MARKED.findall(text)})
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
        return SubwordTokenizer.load(found[0])
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
    *, world: Any, tasks: Sequence[str], split: str = "train", wordnet: WordNet | None = None
) -> Mapping[str, Sequence[Document]]:
    """task -> its documents of one split.

    Args:
        wordnet: its glosses are one more task, `glosses`: plain text, of which a released language model would else lose much.
    """
    glosses = {} if wordnet is None else {"glosses": Glosses(wordnet, split)}
    return {task: world.source(task, split) for task in tasks} | glosses


def open_pools(
    *,
    world: Any,
    subsets: Sequence[str] = ("centred", "placed", "two_objects", "glyphs"),
    split: str = "train",
    order: Callable[[str], Any] | None = None,
) -> Mapping[str, Sequence[str]]:
    """subset -> the image ids of one split: all scenes, all glyphs, all boards, scenes of one kind; of data of one's own, all pictures.

    Args:
        order: image id -> what the ids are sorted by; None leaves them as the world has them.
    """
    pools = {
        name: world.image_ids(split, name)
        if name in ("scenes", "glyphs", "dense", "pictures")
        else [scene.id for scene in getattr(world.pools(split), name)]
        for name in subsets
    }
    return pools if order is None else {name: sorted(pool, key=order) for name, pool in pools.items()}


def open_codes(*, folder: str | None, vision_tokenizer: nn.Module, world: Any) -> Codes:
    """Codes of a world's pictures: read from a cache, or encoded when they are asked for where there is none.

    Raises:
        CheckpointError: the cache was made by another tokenizer or from other data.
    """
    if folder is None:
        return LiveCodes(vision_tokenizer, world)
    return CodeCache(folder, hash_tokenizer(vision_tokenizer), world.fingerprint()).__getitem__


class LiveCodes:
    """Codes of pictures, each encoded when it is first asked for.

    Args:
        vision_tokenizer: a module; used in evaluation mode.
        world: draws a picture by its id.
    """

    def __init__(self, vision_tokenizer: nn.Module, world: Any) -> None:
        self.vision_tokenizer, self.world = vision_tokenizer.eval(), world
        self._known: dict[str, tuple[np.ndarray, ...]] = {}

    @torch.inference_mode()
    def __call__(self, image_id: str) -> tuple[np.ndarray, ...]:
        """One grid (gh, gw) per level."""
        if image_id not in self._known:
            levels = self.vision_tokenizer.encode(read_images(self.world, [image_id], self.vision_tokenizer))
            self._known[image_id] = tuple(level[0].cpu().numpy() for level in levels)
        return self._known[image_id]


def encode_world(
    *, vision_tokenizer: nn.Module, world: Any, folder: str, splits: Sequence[str], batch_size: int = 256
) -> dict[str, int]:
    """Write the codes of every picture of some splits; the job of `plait-encode`. A cache that is whole and made by the same
    tokenizer from the same data is kept.

    Returns:
        How many pictures the cache holds, and how many of them were encoded now.
    """
    fingerprint = world.fingerprint()
    try:
        return {"pictures": len(CodeCache(folder, hash_tokenizer(vision_tokenizer), fingerprint)), "encoded": 0}
    except CheckpointError as error:
        if Path(folder).exists():
            log.warning("%s It is replaced now.", error)
        ids = list(dict.fromkeys(name for split in splits for name in world.image_ids(split)))
    with progress("encoding pictures", len(ids)) as report:
        cache = write_codes(
            folder,
            vision_tokenizer,
            ids,
            lambda names: read_images(world, names, vision_tokenizer),
            batch_size=batch_size,
            data_fingerprint=fingerprint,
            overwrite=True,
            report=report,
        )
    return {"pictures": len(cache), "encoded": len(ids)}


def read_images(world: Any, names: Sequence[str], vision_tokenizer: nn.Module) -> torch.Tensor:
    """Pictures of a world -> (n 3 h w) in [-1, 1].

    Raises:
        RecipeError: they are of another size than the one whose grid of codes the tokenizer announces to the model.
    """
    pixels = world.pixels(names)
    size, wanted = pixels.shape[1:3], tuple(vision_tokenizer.image_size)
    if size != wanted:
        raise RecipeError(
            f"Picture {names[0][:60]!r} has {size[0]} x {size[1]} pixels and vision_tokenizer.image_size is {list(wanted)}, expected one "
            f"size. Next: train a tokenizer of vision_tokenizer.image_size={list(size)} for it, or give world.image_size (of boards: "
            "world.dense_size) the size of the tokenizer."
        )
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def count_batches(*, max_steps: int, accumulate: int = 1) -> int:
    """Micro-batches of a stage: its epoch is the whole of it."""
    return max_steps * accumulate


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields what must be called with (done, total)."""
    with tqdm(total=total, desc=title, disable=None) as bar:
        yield lambda done, _: bar.update(done - bar.n)
