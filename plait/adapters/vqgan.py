"""The released VQGAN of Chameleon (arXiv 2405.09818), which Liquid uses as it is: a pickle `vqgan.ckpt` with the names of
plait.tokenizers.vqgan, besides the networks of its training loss. The only place where a pickle is opened, on request and with
torch's restricted reader, which builds tensors and plain containers and runs nothing."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from plait.errors import CheckpointError

LOSS = "loss."


def read_vqgan(path: Path | str) -> dict[str, Tensor]:
    """Weights of the tokenizer by name, without those of its training loss.

    Args:
        path: the released `vqgan.ckpt`, or a `.safetensors` file with the same names.

    Raises:
        CheckpointError: the file is missing or damaged, holds objects besides tensors, or has no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"No VQGAN at {path}: expected the released vqgan.ckpt, or a .safetensors file with its tensors.")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}.") from error
    else:
        state = _read_pickle(path)
    return {name: value for name, value in state.items() if not name.startswith(LOSS)}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as tensors and plain values alone: {reason} Objects in a pickle can run code, so they are not "
            "loaded; take the file from its publisher, or convert it to .safetensors where you trust it."
        ) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        found = sorted(map(str, content))[:5] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} has no state_dict of tensors: found {found}.")
    return state
