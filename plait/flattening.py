"""Nested training state <-> plain JSON and a flat dict of tensors, exactly and without pickle.

Written as themselves: None, bool, int, str, finite floats and lists. Everything else becomes a one-key object: tensors and
arrays refer to an entry of the tensor dict, tuples, mappings with keys that are not strings and infinities are spelled out. A
type that is not listed here is refused by name and place, not guessed.
"""

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.errors import CheckpointError

DTYPES = {
    str(one).removeprefix("torch."): one
    for one in (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    )
}
"""the types that a state may name; a name from a file is looked up here and nowhere else"""


def flatten_state(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """(JSON tree, tensors by name) of a nested state; `restore_state` is the inverse.

    Raises:
        CheckpointError: an object of an unknown type, with the path that leads to it.
    """
    tensors: dict[str, Tensor] = {}
    return _flatten(state, "", tensors), tensors


def restore_state(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The nested state that `flatten_state` was given (mappings come back as dicts, paths as strings).

    Raises:
        CheckpointError: an entry of unknown kind, or a reference to a tensor that is not there.
    """
    if isinstance(tree, list):
        return [restore_state(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind in ("tensor", "array"):
        if value not in tensors:
            raise CheckpointError(
                f"The training state refers to the tensor {value!r}, expected among {len(tensors)} in its file. "
                "Take another checkpoint of the run."
            )
        return tensors[value] if kind == "tensor" else tensors[value].numpy()
    if kind == "dict":
        return {key: restore_state(item, tensors) for key, item in value.items()}
    if kind == "pairs":
        return {restore_state(key, tensors): restore_state(item, tensors) for key, item in value}
    if kind == "tuple":
        return tuple(restore_state(item, tensors) for item in value)
    if kind == "float":
        return float(value)
    if kind == "dtype" and value in DTYPES:
        return DTYPES[value]
    raise CheckpointError(
        f"The training state holds an entry of unknown kind {kind!r}: a newer version wrote it. Resume with that version."
    )


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Tensor):
        # a copy each: entries that share memory would be refused by safetensors
        return {"tensor": _keep(value.detach().clone().contiguous(), path, tensors)}
    if isinstance(value, np.ndarray):
        return {"array": _keep(torch.from_numpy(value.copy()), path, tensors)}
    if isinstance(value, torch.dtype) and value in DTYPES.values():
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list):
        return [_flatten(item, _below(path, index), tensors) for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_flatten(item, _below(path, index), tensors) for index, item in enumerate(value)]}
    if isinstance(value, Mapping):
        items = [(key, _flatten(item, _below(path, key), tensors)) for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in items):
            return {"dict": dict(items)}
        return {"pairs": [[_flatten(key, _below(path, "key"), tensors), item] for key, item in items]}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise CheckpointError(
        f"The training state holds a {kind} at {path or 'its root'!r}, which cannot be written without pickle. "
        "Turn it into tensors, numbers, strings, lists or dicts where it is made."
    )


def _keep(value: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    name = path or "root"
    while name in tensors:  # {"a": {"b": ...}, "a/b": ...} lead to the same path
        name += "+"
    tensors[name] = value
    return name


def _below(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)
