"""A pretend accelerator: tensors that say they live on another device, are computed on the CPU, and cannot be mixed with its tensors.

Without a GPU it shows what a GPU would refuse (two devices in one operator, numpy of its tensors) and counts what costs time there: waits
of the host for the device (`item`, `tolist`, `nonzero`, masks as indices, copies to the host) and copies to the device, each with the line
that asks for it. `torch.device("lazy")` stands for the device: a type that torch knows and nobody serves, so nothing is registered beyond
the block. What it does not have: kernels, memory and streams of its own, autocast (switched off for it), torch.compile. Inference mode is
`no_grad` in the block, as a wrapper cannot be an inference tensor.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(f"{ROOT / name}/" for name in ("plait", "lightning_modules"))
aten = torch.ops.aten

INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index, aten._unsafe_index_put}
WAITS = {
    aten._local_scalar_dense: "item",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten.equal: "equal",
    aten.bincount: "bincount",
    aten._unique: "unique",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.repeat_interleave: "repeat_interleave",
}
"""operators whose result has a size or a value that the host must know: it waits for the device"""


@dataclass
class Counts:
    """What happened on the device: place in the code -> how often."""

    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    kernels: int = 0

    def clear(self) -> None:
        self.waits.clear()
        self.copies.clear()
        self.kernels = 0

    def __str__(self) -> str:
        lines = [f"{self.waits.total()} waits, {self.copies.total()} copies to the device, {self.kernels} operators"]
        for kind, found in (("wait", self.waits), ("copy", self.copies)):
            lines += [f"  {number:4} {kind} {place}" for place, number in found.most_common()]
        return "\n".join(lines)


counts = Counts()


class Pretend(torch.Tensor):
    """A tensor on the pretend device; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Pretend":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), device=DEVICE, **layout)

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _run(operator, args, kwargs or {})

    def tolist(self) -> Any:
        counts.waits[f"tolist {_place()}"] += 1
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"a tensor of the device cannot be an array, copy it to the host first: {_place()}")

    __array__ = numpy

    def __repr__(self) -> str:
        return f"Pretend({tuple(self.shape)}, {self.dtype})"


class _Mode(TorchDispatchMode):
    """Factories that are asked for the device make tensors of it."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return _run(operator, args, kwargs or {})


@contextmanager
def pretend_device() -> Iterator[Counts]:
    """The block in which the device is there; yields its counts, empty. Modules move to it with `.to(DEVICE)`."""
    counts.clear()
    library = torch.library.Library("aten", "IMPL")
    for name, kernel in (("empty.memory_format", _empty), ("empty_strided", _empty_strided), ("_copy_from", _copy_from)):
        library.impl(name, kernel, "Lazy")
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay who they are, as on a GPU: ties survive
    try:
        with ExitStack() as stack:
            for owner, name, stand_in in (
                (torch._C, "_InferenceMode", lambda mode: torch.no_grad() if mode else nullcontext()),
                (torch, "autocast", _without_autocast(torch.autocast)),
                (torch, "is_autocast_enabled", _is_autocast_enabled(torch.is_autocast_enabled)),
            ):
                stack.enter_context(mock.patch.object(owner, name, stand_in))
            stack.enter_context(_Mode())
            yield counts
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapped)
        library._destroy()


def _run(operator, args: tuple, kwargs: dict) -> Any:
    flat: list[Any] = []
    held_args, held_kwargs = _map(lambda value: _on_host(value, flat), args), _map(lambda value: _on_host(value, flat), kwargs)
    tensors = [value for value in flat if not isinstance(value, torch.device)]
    ours = {id(value.held): value for value in tensors if isinstance(value, Pretend)}
    asked = next((value for value in flat if isinstance(value, torch.device)), None)
    is_asked = asked is not None and asked.type == DEVICE.type
    if not ours and not is_asked:
        return operator(*args, **kwargs)
    packet = operator.overloadpacket
    if packet is aten.copy_:
        _note_copy(*tensors[:2])
    elif packet is aten._to_copy:
        if asked is not None and is_asked != bool(ours):
            _note_copy(DEVICE if is_asked else CPU, tensors[0])
        if asked is not None and not is_asked:
            return operator(*held_args, **held_kwargs)
    elif ours:
        _check_mixing(operator, args, tensors)
        if packet in WAITS and not (packet is aten.repeat_interleave and kwargs.get("output_size") is not None):
            counts.waits[f"{WAITS[packet]} {_place()}"] += 1
        masks = [value for value in tensors[1:] if value.dtype in (torch.bool, torch.uint8)]
        if packet in INDEXING and any(value is mask for mask in masks for value in args[1]):
            counts.waits[f"mask as index {_place()}"] += 1
    counts.kernels += not operator.is_view
    out = operator(*held_args, **held_kwargs)
    return _map(lambda value: _wrap(value, ours), out)


def _wrap(value: Any, ours: dict[int, Pretend]) -> Any:
    """What an operator returns, on the device: the very tensor that was given where it worked in place."""
    if not isinstance(value, torch.Tensor):
        return value
    return ours[id(value)] if id(value) in ours else Pretend(value)


def _note_copy(target: Any, source: torch.Tensor) -> None:
    device = target if isinstance(target, torch.device) else target.device
    if device.type == DEVICE.type and not isinstance(source, Pretend) and (source.dim() or isinstance(target, torch.device)):
        counts.copies[f"to device {_place()}"] += 1
    elif device.type != DEVICE.type and isinstance(source, Pretend):
        counts.waits[f"to host {_place()}"] += 1


def _check_mixing(operator, args: tuple, tensors: list[torch.Tensor]) -> None:
    strangers = [value for value in tensors if not isinstance(value, Pretend) and value.dim()]
    if not strangers:
        return
    # torch takes indices from the host, and copies them to the device
    is_index = operator.overloadpacket in INDEXING and all(any(value is index for index in args[1]) for value in strangers)
    if not (is_index and isinstance(args[0], Pretend)):
        found = ", ".join(f"{value.device.type} {tuple(value.shape)}" for value in tensors)
        raise RuntimeError(f"{operator}: expected all tensors on one device, found {found} at {_place()}")
    counts.copies[f"index {_place()}"] += len(strangers)


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """What operators take and give: values, lists and tuples of them, keyword arguments. (torch's own for trees takes most of a test.)"""
    if isinstance(value, list | tuple):
        return type(value)([_map(change, item) for item in value])
    if isinstance(value, dict):
        return {name: _map(change, item) for name, item in value.items()}
    return change(value)


def _on_host(value: Any, seen: list[Any]) -> Any:
    """What the CPU computes with; notes tensors and devices."""
    if isinstance(value, torch.Tensor | torch.device):
        seen.append(value)
    return value.held if isinstance(value, Pretend) else CPU if isinstance(value, torch.device) else value


def _place() -> str:
    """file:line of the innermost frame in the library or the application."""
    frame = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return "elsewhere" if frame is None else f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"


def _empty(size, *, dtype=None, **_: Any) -> Pretend:
    return Pretend(torch.empty(size, dtype=dtype))


def _empty_strided(size, stride, *, dtype=None, **_: Any) -> Pretend:
    return Pretend(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Where torch copies below its dispatch: `torch.tensor(..., device=)`, lists as indices."""
    _note_copy(target, source)
    _on_host(target, []).copy_(_on_host(source, []))
    return target


def _without_autocast(autocast: Any) -> Any:
    @functools.wraps(autocast)
    def enter(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, *args, **kwargs)

    return enter


def _is_autocast_enabled(is_enabled: Any) -> Any:
    return lambda *device: False if device == (DEVICE.type,) else is_enabled(*device)
