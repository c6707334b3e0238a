"""A run folder has one owner: the job that works in it, known by a lock that ends with its processes and by a record that others can read.

The lock (`.lock`, flock) decides between processes of one machine, whatever containers they live in: the system lets go of it when
the owner and every process it forked (ranks, loaders) have ended, however they ended. Where a file system does not carry locks
from machine to machine, the record decides: machine, process and when it began, and a sign of life, the time of the lock file, which
the owner renews every `PULSE_S` seconds. A job on another machine counts as dead once that is `SILENCE_S` old.

It does not know what a job is nor what lies in its folder.
"""

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

LOCK_FILE = ".lock"
PULSE_S, SILENCE_S = 30.0, 300.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""what a file system says that has no locks"""


class Claim:
    """The hold of this process on a folder, from `take` to `release`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None
        self._process = 0
        self._has_made: list[Path] = []
        self._is_over = threading.Event()

    def take(self, waits: bool = False) -> bool:
        """Hold the folder, which is made if it is not there.

        Args:
            waits: until it is free; otherwise False says that another process holds it.
        """
        while True:
            self._make_folder()
            path = self.folder / LOCK_FILE
            if not path.exists():
                self._has_made.append(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(descriptor)
                self._has_made.clear()
                return False
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    os.close(descriptor)
                    raise
            # the folder may have been set aside while this process was waiting: then this is the lock of another folder
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    break
            os.close(descriptor)
        self._descriptor, self._process = descriptor, os.getpid()
        return True

    def give_signs_of_life(self) -> None:
        """Renew the time of the lock file until the release."""

        def beat() -> None:
            while not self._is_over.is_set():
                with suppress(OSError):
                    os.utime(self._descriptor)
                self._is_over.wait(PULSE_S)

        threading.Thread(target=beat, name="sign of life", daemon=True).start()

    def release(self, is_unused: bool = False) -> None:
        """Let go of the folder.

        Args:
            is_unused: nothing was written: what was made for the claim is removed.
        """
        if self._descriptor is None or self._process != os.getpid():  # a fork holds what its parent holds, until that lets go
            return
        self._is_over.set()
        if is_unused:
            for path in reversed(self._has_made):
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # not the close alone: a loader that still ends has a copy of it
        os.close(self._descriptor)
        self._descriptor = None

    def _make_folder(self) -> None:
        missing = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        self._has_made = list(reversed(missing))
        self.folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def hold(folder: str | Path, waits: bool = True) -> Iterator[bool]:
    """Hold a folder for the length of the block.

    Returns:
        Whether it is held: without `waits`, False where another process holds it.
    """
    claim = Claim(folder)
    is_held = claim.take(waits)
    try:
        yield is_held
    finally:
        claim.release()


@cache
def _machine() -> dict[str, str | None]:
    return {"host": socket.gethostname(), "boot": _read("/proc/sys/kernel/random/boot_id"), "space": _link("/proc/self/ns/pid")}


def describe_process() -> dict[str, Any]:
    """What tells this process from every other: machine, since when it runs, the space its number is from, number, and beginning."""
    return {**_machine(), "pid": os.getpid(), "began": _beginning(os.getpid())}


def is_alive(owner: Mapping[str, Any] | None, folder: str | Path, pid: int | None = None) -> bool:
    """Whether the process that a record names is still there.

    Args:
        owner: `describe_process` of the owner; None in records of an older plait, which have its number alone.
        folder: whose lock file tells of life where its process cannot be seen.
        pid: its number.
    """
    if not owner:
        return pid is not None and _beginning(pid) is not None
    if all(owner.get(key) == value for key, value in _machine().items()):
        found = _beginning(owner["pid"])
        return found is not None and found == owner["began"]
    age = silence_s(folder)
    return age is not None and age < SILENCE_S


def silence_s(folder: str | Path) -> float | None:
    """Seconds since the last sign of life of a folder's owner, or of one in a folder inside, as the stages of a curriculum are; None
    where there was none."""
    found = []
    for path in (Path(folder) / LOCK_FILE, *Path(folder).glob(f"*/{LOCK_FILE}")):
        with suppress(OSError):
            found.append(path.stat().st_mtime)
    return time.time() - max(found) if found else None


def _beginning(pid: int) -> str | None:
    """When a process began, in the unit of its system; None where there is no such process (or only what is left of it)."""
    status = _read(f"/proc/{pid}/stat")
    if status is not None:
        fields = status.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
