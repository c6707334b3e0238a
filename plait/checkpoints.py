"""Checkpoints: a folder of safetensors and JSON, written whole or not at all, read strictly. No pickle anywhere.

    model.safetensors   weights under the names of the model's state dict; tied tensors once
    state.safetensors   tensors of the training state (optimiser, random generators), only in resumable checkpoints
    state.json          the rest of the training state, with references into state.safetensors
    manifest.json       format, class, config, parents, aliases of tied tensors, sha256 of each file; written last

It does not know what a model is beyond its state dict, nor what a training state means. A folder is built beside its target,
flushed to disk and exchanged with it in one rename (`torch.save` under kill -9 left 10 of 10 files unreadable).
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from plait.atomic import replace_folder
from plait.errors import CheckpointError
from plait.flattening import flatten_state, restore_state

FORMAT = "plait-checkpoint-1"
MOST_PER_NUMBER, FEW = 4, 2**28
"""parameters of a model for each number of its checkpoint (ties, and parts that are trained elsewhere); and what is built anyway"""
WEIGHTS, STATE, STATE_JSON, MANIFEST = "model.safetensors", "state.safetensors", "state.json", "manifest.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself.

    Args:
        model: qualified class name of the saved module.
        config: what is needed to build the module again (JSON-able), as given by the caller.
        parents: checkpoints this one was made from, as the caller names them (path and `identity`).
        step: completed optimiser steps, if it comes from training.
        aliases: name of a tied tensor -> name under which its values are stored.
        hashes: file name -> sha256.
        is_complete: false while a run still goes on (an intermediate checkpoint).
    """

    model: str
    config: Mapping[str, Any] = field(default_factory=dict)
    parents: Sequence[Any] = ()
    step: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True
    format: str = FORMAT

    @property
    def identity(self) -> str:
        """The sha256 of the weights: two checkpoints with the same identity hold the same weights."""
        return self.hashes[WEIGHTS]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory; `weights` has an entry for every tied name, `state` is None without training state."""

    manifest: Manifest
    weights: dict[str, Tensor]
    state: Any = None


def save_checkpoint(
    folder: Path | str, weights: nn.Module | Mapping[str, Tensor], *, state: Any = None, **facts: Any
) -> Manifest:
    """Write a checkpoint folder; an older one at the same place is replaced in one step or stays whole.

    Args:
        folder: target; its parent is made if missing.
        weights: a module, or a state dict (then give `model=`, the class name).
        state: nested dicts, lists, tuples of tensors, arrays and plain values: what a resume needs.
        facts: fields of `Manifest` (model, config, parents, step, is_complete).

    Raises:
        CheckpointError: weights are not finite (an older checkpoint stays as it is), or the state or config holds something that cannot be
            written without pickle.
    """
    if isinstance(weights, nn.Module):
        facts.setdefault("model", f"{type(weights).__module__}.{type(weights).__qualname__}")
        weights = weights.state_dict()
    check_finite(weights, f"{folder} is not written: what is to be saved")
    tensors, aliases = _untie(weights)
    try:
        json.dumps([facts.get("config"), facts.get("parents")])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config and parents of a checkpoint must be plain JSON values: {error}.") from error
    tree, state_tensors = flatten_state(state) if state is not None else (None, {})
    with replace_folder(folder, MANIFEST) as beside:
        save_file(tensors, beside / WEIGHTS)
        if state is not None:
            save_file(state_tensors, beside / STATE)
            (beside / STATE_JSON).write_text(json.dumps(tree), encoding="utf-8")
        hashes = {path.name: file_hash(path) for path in sorted(beside.iterdir())}
        manifest = Manifest(**{"model": "", **facts}, aliases=aliases, hashes=hashes)
        (beside / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
    return manifest


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest alone (no tensor is read).

    Raises:
        CheckpointError: there is no checkpoint here, or its manifest is damaged or of another format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        found = "does not exist" if not Path(folder).exists() else f"has no {MANIFEST}"
        raise CheckpointError(
            f"{folder} is no checkpoint: it {found}. Expected a folder with {MANIFEST} and {WEIGHTS}. Check the path."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise TypeError(f"it holds a {type(data).__name__}, no JSON object")
        if not all(isinstance(data.get(name, {}), dict) for name in ("hashes", "aliases")):
            raise TypeError("its hashes and aliases are no JSON objects")
        found = data.get("format")
        manifest = Manifest(**data) if found == FORMAT else None
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}. Expected the JSON that save_checkpoint wrote. Take an earlier checkpoint of the run."
        ) from error
    if manifest is None:
        raise CheckpointError(
            f"{folder} has format {found!r}, this version reads {FORMAT!r}. Read it with the version of plait that wrote it, "
            "or make it again."
        )
    return manifest


def read_checkpoint(folder: Path | str, *, with_state: bool = False, verify: bool = True) -> Checkpoint:
    """Read a checkpoint into memory (CPU).

    Args:
        folder: the checkpoint.
        with_state: read the training state too.
        verify: compare the hash of every file that is read with the manifest.

    Raises:
        CheckpointError: a file is missing, was changed after it was written, or cannot be read; or there is no training state.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if with_state and STATE_JSON not in manifest.hashes:
        raise CheckpointError(
            f"{folder} holds weights only, expected {STATE_JSON} too: a run cannot resume from it. Use it as a base, or take "
            "last.ckpt."
        )
    for name in (WEIGHTS, STATE, STATE_JSON) if with_state else (WEIGHTS,):
        _check_file(folder / name, manifest.hashes.get(name), verify)
    weights = _load(folder / WEIGHTS)
    missing = sorted(set(manifest.aliases.values()) - set(weights))
    if missing:
        raise CheckpointError(
            f"{folder / WEIGHTS} lacks {len(missing)} tensors that the manifest ties others to: {missing[:3]}. Expected all of "
            "them. Take another checkpoint of the run."
        )
    weights.update({name: weights[stored] for name, stored in manifest.aliases.items()})
    if not with_state:
        return Checkpoint(manifest, weights)
    try:
        state = restore_state(json.loads((folder / STATE_JSON).read_text(encoding="utf-8")), _load(folder / STATE))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder / STATE_JSON} is damaged: {error}. Expected what save_checkpoint wrote. Take another checkpoint of the run."
        ) from error
    return Checkpoint(manifest, weights, state)


def read_dtype(folder: Path | str) -> torch.dtype:
    """The dtype of the weights of a checkpoint, from the head of its file: float32 where they have several. Raises CheckpointError."""
    kinds = {FLOATS[name] for name in _read_head(folder).values() if name in FLOATS}
    return kinds.pop() if len(kinds) == 1 else torch.float32


def list_parts(folder: Path | str) -> set[str]:
    """The parts of the model whose weights a checkpoint holds, by the first word of their tensors. Raises CheckpointError."""
    return {name.partition(".")[0] for name in _read_head(folder)}


def _read_head(folder: Path | str) -> dict[str, str]:
    """Tensor -> dtype, without reading one."""
    try:
        with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        found = f"{Path(folder) / WEIGHTS} cannot be read: {error}."
        raise CheckpointError(f"{found} Expected whole safetensors. Next: take another checkpoint.") from error


def load_weights(
    module: nn.Module, folder: Path | str, *, part: str = "", is_strict: bool = True, verify: bool = True
) -> Manifest:
    """Read the weights of a checkpoint into a module.

    Args:
        module: is changed in place, and not at all if an error is raised.
        folder: the checkpoint.
        part: name of the module inside the model that was saved; its weights are taken from there. A model that has no such part is
            taken as a whole: it is the part.
        is_strict: names must agree. If false, what is missing or unexpected is left alone; shapes must still agree.
        verify: compare hashes.

    Raises:
        CheckpointError: names, shapes or values of tied tensors differ (all are counted, the first are named).
    """
    checkpoint = read_checkpoint(folder, verify=verify)
    own = {name.removeprefix(f"{part}."): value for name, value in checkpoint.weights.items() if name.startswith(f"{part}.")}
    assign_weights(module, own or checkpoint.weights, str(folder), is_strict=is_strict)
    return checkpoint.manifest


@contextmanager
def bounded_by(*folders: Path | str) -> Iterator[None]:
    """While a model is built whose weights are those of some checkpoints, refuse one that is out of all proportion to them, before its
    memory is filled: the sizes that a config asks for may be anybody's.

    Raises:
        CheckpointError: the parameters are more than `MOST_PER_NUMBER` times the numbers of the checkpoints, and more than `FEW`.
    """
    stored, built = sum(map(_count_numbers, folders)), 0
    named = " and ".join(map(str, folders))

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal built
        built += 0 if parameter is None else parameter.numel()
        if built > max(FEW, MOST_PER_NUMBER * stored):
            raise CheckpointError(_out_of_proportion(named, f"has {built:,} numbers and more", stored))

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if "allocat" not in str(error):
            raise
        raise CheckpointError(_out_of_proportion(named, "takes more memory than there is", stored)) from error
    finally:
        handle.remove()


def _out_of_proportion(named: str, finding: str, stored: int) -> str:
    return (
        f"{named}: the model that its config describes {finding}, and the weights hold {stored:,}. Expected sizes of one model. "
        "Next: correct the sizes in the config, or take another checkpoint."
    )


def _count_numbers(folder: Path | str) -> int:
    """Numbers in the weights of a checkpoint, from the index of its file; 0 where that cannot be read, which `load_weights` says."""
    try:
        with safe_open(Path(folder) / WEIGHTS, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError):
        return 0


def assign_weights(module: nn.Module, weights: Mapping[str, Tensor], origin: str, *, is_strict: bool = True) -> None:
    """Copy weights into a module after `check_weights`."""
    check_weights(module, weights, origin, is_strict=is_strict)
    own = module.state_dict()
    module.load_state_dict({name: value for name, value in weights.items() if name in own}, strict=False)


def check_weights(module: nn.Module, weights: Mapping[str, Tensor], origin: str, *, is_strict: bool = True) -> None:
    """Compare all names, shapes and ties of weights with those of a module (which may lie on the meta device), and refuse weights that
    are no numbers.

    Args:
        origin: names the source of the weights in errors.
        is_strict: see `load_weights`.

    Raises:
        CheckpointError: see `load_weights`.
    """
    check_finite(weights, origin)
    own = module.state_dict()
    # copying would cast them without a word: yes/no and counts are no weights, and the imaginary half of a number would be lost
    kinds = [name for name in own if name in weights and _kind(weights[name]) != _kind(own[name])]
    if kinds:
        raise CheckpointError(
            f"{origin} holds numbers of another kind in {len(kinds)} of {len(own)} tensors ({kinds[0]}: {weights[kinds[0]].dtype} saved, "
            f"{own[kinds[0]].dtype} here). Expected {_kind(own[kinds[0]])}. Next: take another checkpoint, or write this one again."
        )
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    problems = []
    if is_strict and missing:
        problems.append(f"{len(missing)} of {len(own)} tensors are missing ({', '.join(missing[:3])})")
    if is_strict and unexpected:
        problems.append(f"{len(unexpected)} are unexpected ({', '.join(unexpected[:3])})")
    if shapes:
        first = f"{shapes[0]}: {tuple(weights[shapes[0]].shape)} saved, {tuple(own[shapes[0]].shape)} here"
        problems.append(f"{len(shapes)} have another shape ({first})")
    _, ties = _untie(own)
    torn = [
        f"{name} = {stored}"
        for name, stored in ties.items()
        if name in weights and stored in weights and not shapes and not weights[name].equal(weights[stored])
    ]
    if torn:
        problems.append(f"{len(torn)} tensors are tied here but saved with different values ({torn[0]})")
    if problems:
        raise CheckpointError(
            f"{origin} does not fit {type(module).__name__}: {'; '.join(problems)}. "
            "Build the model from the config in the checkpoint's manifest, or load with is_strict=False to take what fits."
        )


def check_finite(weights: Mapping[str, Tensor], origin: str) -> None:
    """Refuse weights that are no numbers.

    Args:
        origin: names the source of the weights in the error.

    Raises:
        CheckpointError: names the first tensor, and counts the others.
    """
    # narrower floats (8 bits) have no test of their own, and are not what trains
    wide = {name: value for name, value in weights.items() if value.is_floating_point() and value.element_size() > 1}
    if not wide or bool(torch.stack([value.isfinite().all().cpu() for value in wide.values()]).all()):
        return
    broken = {name: count for name, value in wide.items() if (count := int((~value.isfinite()).sum()))}
    name, count = next(iter(broken.items()))
    raise CheckpointError(
        f"{origin} holds broken weights: {len(broken)} of {len(weights)} tensors have values that are not finite ({name}: {count} "
        f"of {weights[name].numel()}). Expected numbers: the training has diverged, or what wrote the file was broken. "
        "Next: take an earlier checkpoint, or train again, at a lower rate or with gradient_clip_val."
    )


def _kind(value: Tensor) -> str:
    """Floats of any width are one kind (a release in bf16 is read as fp32), and so are whole numbers."""
    if value.is_complex():
        return "complex numbers"
    return "floats" if value.is_floating_point() else "yes and no" if value.dtype == torch.bool else "whole numbers"


def file_hash(path: Path | str) -> str:
    """The sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _untie(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors to store, each once and contiguous, and the aliases of those that are the same memory seen the same way."""
    first: dict[tuple, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, value in weights.items():
        # on the meta device nothing has an address: there the storage itself is compared
        key = (
            value.data_ptr() or value.untyped_storage()._cdata,
            value.dtype,
            tuple(value.shape),
            value.stride(),
            value.device,
        )
        if value.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        # a view of a larger memory is copied out: safetensors refuses partly shared memory
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size() and value.is_contiguous()
        tensors[name] = value.detach() if whole else value.detach().clone().contiguous()
    return tensors, aliases


def _check_file(path: Path, expected: str | None, verify: bool) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} is damaged: {path.name} is missing, expected beside its manifest. Take another checkpoint of the run."
        )
    if verify and file_hash(path) != expected:
        raise CheckpointError(
            f"{path} is damaged: its sha256 is {file_hash(path)[:12]}..., the manifest says {str(expected)[:12]}... "
            "It was changed or cut after it was written. Take another checkpoint of the run."
        )


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Expected whole safetensors. Take another checkpoint of the run."
        ) from error
