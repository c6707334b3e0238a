"""Writing a folder whole or not at all: a temporary sibling, everything flushed, one rename.

It does not know what is in the folder. Kill the process at any instant and the target is the old folder or the new one. On
Linux the two are exchanged by one system call; elsewhere the old folder moves aside first, and a kill between the two renames
leaves it beside the target under a name that ends in `.old`.

Several processes may write one target, as two first imports of the same rows do: each writes beside it under a name of its own, which it
holds locked, and the last one to end stays. What a killed process left is removed by the next one that finds it unlocked.
"""

import ctypes
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plait.errors import CheckpointError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LONGEST_S = 7 * 24 * 3600.0
"""After so long without a change a folder that cannot be locked (its file system has no locks) counts as left behind."""


@contextmanager
def replace_folder(target: Path | str, index: str) -> Iterator[Path]:
    """Yield an empty folder beside `target`; when the block ends without an error, it takes the target's place.

    Args:
        index: the file (or folder) by which an older target is known to be of the kind that is written now.

    Raises:
        CheckpointError: the target is a file or a folder of something else, or its parent cannot be written.
    """
    target = Path(target)
    if target.is_file():
        raise CheckpointError(f"{target} is a file where a folder is to be written. Move it away or choose another name.")
    check_replaceable(target, index)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.*.tmp"):
            _remove_if_left(stale)
        beside, lock = _make_beside(target)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}.") from error
    try:
        yield beside
        for path in (*sorted(beside.rglob("*")), beside):
            if not path.is_symlink():  # it lives in its folder and may lead nowhere
                _flush(path)
        _take_place(beside, target)
        _flush(target.parent)
    finally:
        os.close(lock)
        shutil.rmtree(beside, ignore_errors=True)


def check_replaceable(folder: Path, index: str) -> None:
    """Refuse to write a folder over something else.

    Raises:
        CheckpointError: it is there, is not empty and has no `index`.
    """
    if folder.is_dir() and not (folder / index).exists() and (found := sorted(path.name for path in folder.iterdir())):
        raise CheckpointError(
            f"{folder} holds {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}, and no {index}: it is something else than what "
            "is to be written there. Expected nothing, an empty folder, or an older one of the same kind, which is replaced. Next: choose "
            "another name, or move it away."
        )


def _make_beside(target: Path) -> tuple[Path, int]:
    """An empty folder beside the target, and the descriptor that holds it."""
    while True:
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        beside.mkdir()
        try:
            lock = os.open(beside, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for left behind before it was held
            continue
        if _try_to_lock(lock) is not False and beside.exists():
            return beside, lock
        os.close(lock)


def _remove_if_left(stale: Path) -> None:
    try:
        lock = os.open(stale, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        is_left = _try_to_lock(lock)
        if is_left is None:
            is_left = time.time() - max(path.lstat().st_mtime for path in (stale, *stale.rglob("*"))) > _LONGEST_S
        if is_left:
            shutil.rmtree(stale, ignore_errors=True)
    finally:
        os.close(lock)


def _try_to_lock(descriptor: int) -> bool | None:
    """Whether the lock was free; None where there are none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _take_place(beside: Path, target: Path) -> None:
    if not target.exists():
        try:
            os.rename(beside, target)
            return
        except OSError:  # another process was faster
            if not target.exists():
                raise
    if not _exchange(beside, target):
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(beside, target)
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; false where the system cannot (then nothing happened)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path | str, data: object) -> None:
    """`write_text` of JSON."""
    write_text(path, json.dumps(data, indent=1))


def write_text(path: Path | str, text: str) -> None:
    """Write a file beside the target and take its place: a reader finds the old file or the new one, never half of one, whoever else
    writes it."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path | str, data: bytes) -> None:
    """Likewise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
