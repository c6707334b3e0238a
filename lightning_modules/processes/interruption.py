"""Stopping at the end of an optimiser step instead of in the middle of one.

The first Ctrl-C (or SIGTERM, SIGHUP, SIGUSR1, which is Slurm's) is only noted; whoever asks `requested` at a safe place acts on it. A
second Ctrl-C stops at once. What is to be ignored (SIGHUP under nohup) stays ignored. It does not know what is saved.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning_modules.processes.ranks import own_rank

TERMINATIONS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What ends a process besides Ctrl-C, before a limit of time or with its terminal."""

log = logging.getLogger(__name__)


class StopSignals:
    """Takes the place of the handlers of the stop signals between `install` and `restore` (main thread only)."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Start listening."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self.requested = None
        for number in (signal.SIGINT, *TERMINATIONS):
            before = signal.getsignal(number)
            if before != signal.SIG_IGN or number == signal.SIGINT:
                self._before[number] = before
                signal.signal(number, self._note)

    def restore(self) -> None:
        """Give the handlers back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def pass_on(self, number: signal.Signals) -> None:
        """Do what the former handler would have done (requeue, for Slurm's signal), then stop with a KeyboardInterrupt."""
        before = self._before.get(number)
        self.restore()
        self.requested = None
        if number not in (signal.SIGINT, signal.SIGTERM) and callable(before):
            before(number, None)
        # after a requeue too: what would be trained until Slurm ends the job is trained again
        raise KeyboardInterrupt(f"stopped by {number.name}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            self.restore()
            raise KeyboardInterrupt("stopped at once")
        self.requested = signal.Signals(number)
        log.warning("%s: stopping after this optimiser step (Ctrl-C again stops at once).", self.requested.name)


@contextmanager
def terminations_interrupt() -> Iterator[None]:
    """Inside, a signal that would end the process without a word is a Ctrl-C, so that the job is written down as interrupted.

    Slurm's SIGUSR1 is left to Lightning, which has the job requeued and would give way to a handler that is there before.
    """
    is_slurm = "SLURM_JOB_ID" in os.environ
    numbers = [number for number in TERMINATIONS if not (is_slurm and number == signal.SIGUSR1)]
    if own_rank() != 0 or threading.current_thread() is not threading.main_thread():  # rank 0 writes; the others end at once
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Make an interrupted fit end in a KeyboardInterrupt after which Ctrl-C works as before.

    Lightning ends it in a SystemExit and leaves SIGINT ignored: right for a command, but the kernel of a notebook goes on, and its
    stop button would do nothing from then on.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt(*error.__context__.args) from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
