"""Callbacks that cost nothing at steps they have no business with.

Lightning asks every callback at some ten hooks of every step, each inside a profiler's context, also where the hook is the empty one of
the base class: with six callbacks that was about two thirds of what a step cost beyond bare Lightning (once, under cProfile). It passes
over hooks that are None, so the hooks of a step that a class leaves empty are None here. What remains: reports/benchmarks/overhead.md.
"""

from typing import Any

from lightning.pytorch.callbacks import Callback

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class Quiet(Callback):
    """Base of the callbacks of the house; a subclass defines a hook or does not have it (so it never calls `super()` there)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in STEP_HOOKS:
            if getattr(cls, name) is getattr(Callback, name):
                setattr(cls, name, None)
