"""What modules inside a decoder layer may know of the call that runs them: its record (`plait.records.Side`) and the layer.

transformers hands keyword arguments to a layer and its attention only. A layer whose class lies under `ReadableLayer` shows them to all
that it runs, for as long as it runs. Nothing is held by a module: the state belongs to the thread, is put back when the layer ends, and
is made anew where activation checkpointing runs the layer a second time (in a thread of the backward pass). It knows neither experts
nor taps.

Hooks of the layer would not do: under gradient checkpointing transformers recomputes `forward` and leaves the hooks outside. Nor would
hooks of its attention: those of a deep copy would still feed the first backbone. A class over the layer's own is recomputed whole, it is
copied with the layer, and it renames no weight.
"""

import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

from torch import nn

from plait.axes import Hidden
from plait.records import Side


class Call(threading.local):
    """The layer that runs in this thread; everything is None outside of one. (Compilers see through this, unlike a ContextVar.)

    Args:
        layer: that runs.
        side: the record of its call.
        carried: what one module of the layer leaves for a later one.
    """

    layer: nn.Module | None = None
    side: Side | None = None
    carried: Hidden | None = None


CALL = Call()


class ReadableLayer:
    """A decoder layer that shows what it runs the record of the call."""

    def forward(self, *args: Any, side: Side | None = None, **kwargs: Any) -> Any:
        before = CALL.layer, CALL.side, CALL.carried
        CALL.layer, CALL.side, CALL.carried = self, side, None
        try:
            return super().forward(*args, side=side, **kwargs)
        finally:
            CALL.layer, CALL.side, CALL.carried = before


def let_read(model: nn.Module, layers: Iterable[nn.Module], reader: str) -> None:
    """Let modules inside these layers of a model read the call.

    Args:
        reader: what they are, in the words of a message to who calls without a record.
    """
    for layer in layers:
        put_over(layer, ReadableLayer)
    model.side_readers = (*getattr(model, "side_readers", ()), reader)


def put_over(module: nn.Module, face: type) -> None:
    """Let a class stand over that of a module, once: weights, hooks and names stay."""
    if not isinstance(module, face):
        module.__class__ = _join(face, type(module))


@cache
def _join(face: type, own: type[nn.Module]) -> type[nn.Module]:
    return type(f"{face.__name__}{own.__name__}", (face, own), {})
