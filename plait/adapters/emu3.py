"""The released vision tokenizer of Emu3 (BAAI/Emu3-VisionTokenizer; arXiv 2409.18869): its own names for weights, and those of
transformers' `Emu3VQVAE`, which plait.tokenizers.emu3 has too. transformers renames the levels, the middle blocks and the norms before
attention, and writes the 1 x 1 convolutions of attention as linear maps; everything else is called alike. Knows names and shapes only."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from plait.adapters.shards import read_shards
from plait.errors import CheckpointError

TO_TRANSFORMERS = (
    (r"^encoder\.down\.", "encoder.down_block.down."),
    (r"^decoder\.up\.", "decoder.up_block.up."),
    (r"\.mid\.", ".middle_block."),
    (r"\.attn_1\.norm\.", ".attn_norm."),
    (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
    (r"\.(attn_1|attn\.\d+)\.([qkv])\.", r".\1.\2_proj."),
    (r"\.(attn_1|attn\.\d+)\.proj_out\.", r".\1.out_proj."),
)
TO_RELEASED = (
    (r"^encoder\.down_block\.", "encoder."),
    (r"^decoder\.up_block\.", "decoder."),
    (r"\.attn_norm\.", ".attn_1.norm."),
    (r"\.attn_norms\.(\d+)\.", r".attn.\1.norm."),
    (r"\.middle_block\.", ".mid."),
    (r"\.([qkv])_proj\.", r".\1."),
    (r"\.out_proj\.", ".proj_out."),
)
PROJECTION = re.compile(r"\.(q|k|v|out)_proj\.weight$")
"""weights of attention by the names of transformers: (d d) there, (d d 1 1) in the release"""


def read_emu3(path: Path | str) -> dict[str, Tensor]:
    """Weights of the tokenizer by the names of transformers, with all their buffers.

    Args:
        path: folder of the release (one model.safetensors, or shards with an index), or a `.safetensors` file. Its names may be those of
            the release or of transformers.

    Raises:
        CheckpointError: there are no weights, or they are damaged.
    """
    path = Path(path)
    if path.is_dir():
        weights = read_shards(path)
    elif path.is_file():
        try:
            weights = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}. Expected whole safetensors: fetch the release again."
            ) from error
    else:
        raise CheckpointError(
            f"No Emu3 tokenizer at {path}: expected the folder of BAAI/Emu3-VisionTokenizer, or its model.safetensors."
        )
    return to_transformers(weights)


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of the release -> under those of transformers; what has such a name keeps it."""
    renamed = {_rename(name, TO_TRANSFORMERS): value for name, value in weights.items()}
    return {name: value.flatten(1) if PROJECTION.search(name) else value for name, value in renamed.items()}


def to_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: weights under the names of transformers -> under those of the release."""
    shaped = {name: value[:, :, None, None] if PROJECTION.search(name) else value for name, value in weights.items()}
    return {_rename(name, TO_RELEASED): value for name, value in shaped.items()}


def _rename(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
