"""Weights in the files of transformers: one model.safetensors, or several with an index. Tensors are mapped from the files and not
read into memory, so a release of any size is renamed and split without a second copy."""

import json
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor

from plait.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_shards(folder: Path | str) -> dict[str, Tensor]:
    """Tensors by name, each backed by its file until somebody uses it.

    Raises:
        CheckpointError: there are no weights, a shard is missing or damaged, or index and shards disagree.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file():
        places = _read_index(folder / INDEX)
    elif (folder / WEIGHTS).is_file():
        places = {WEIGHTS: None}
    else:
        raise CheckpointError(f"{folder} holds no weights: expected {WEIGHTS}, or {INDEX} and the files that it names.")
    weights: dict[str, Tensor] = {}
    for file, names in places.items():
        weights |= _read_file(folder / file, names)
    return weights


def write_shards(folder: Path | str, weights: Mapping[str, Tensor], max_shard_size: str = "5GB") -> None:
    """Write weights as transformers does: one file, or several with an index where they exceed `max_shard_size`."""
    contiguous = {name: value.detach().contiguous() for name, value in weights.items()}
    save_torch_state_dict(contiguous, folder, max_shard_size=max_shard_size)


def _read_index(path: Path) -> dict[str, set[str] | None]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        places: dict[str, set[str] | None] = {}
        for name, file in weight_map.items():
            places.setdefault(file, set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}. Expected {{'weight_map': {{tensor: file}}}}.") from error
    strange = [file for file in places if Path(file).name != file or not (path.parent / file).is_file()]
    if strange:
        raise CheckpointError(f"{path} names {len(strange)} of {len(places)} files that are not beside it: {strange[:3]}.")
    return places


def _read_file(path: Path, names: set[str] | None) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            if names is not None and found != names:
                raise CheckpointError(
                    f"{path} holds {len(found)} tensors and {INDEX} says {len(names)}: {sorted(found ^ names)[:3]} are in one of "
                    "the two only. Fetch the release again."
                )
            return {name: file.get_tensor(name) for name in sorted(found)}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Fetch the release again.") from error
