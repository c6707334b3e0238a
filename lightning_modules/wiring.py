"""Small joints for configs: they bring together parts of the library that must not know one another (a world and a template, a
tokenizer and a world). Anything that decides or computes belongs in the library; anything that trains belongs in a stage.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.backbones.text import WordTokenizer, train_word_level
from plait.document import Document
from plait.errors import RecipeError
from plait.images import to_tensor
from plait.tokenizers.codes import CodeCache, hash_tokenizer, write_codes

Codes = Callable[[str], tuple[np.ndarray, ...]]


def train_text_tokenizer(*, world: Any, template: Any, has_glyphs: bool = False) -> WordTokenizer:
    """A word tokenizer that knows every word of a world and of the wording of a system.

    Args:
        has_glyphs: whether the names of the real glyphs are among the words.
    """
    texts = chain(world.vocabulary_texts(glyphs=has_glyphs), template.texts())
    return train_word_level(texts, template.specials)


def open_sources(*, world: Any, tasks: Sequence[str], split: str = "train") -> Mapping[str, Sequence[Document]]:
    """task -> its documents of one split."""
    return {task: world.source(task, split) for task in tasks}


def open_codes(*, folder: str | None, vision_tokenizer: nn.Module, world: Any) -> Codes:
    """Codes of a world's pictures: read from a cache, or encoded when asked for (and kept) where there is none.

    Raises:
        CheckpointError: the cache was made by another tokenizer or from other data.
    """
    if folder is not None:
        cache = CodeCache(folder, hash_tokenizer(vision_tokenizer), world.fingerprint())
        return cache.__getitem__
    return LiveCodes(vision_tokenizer, world)
