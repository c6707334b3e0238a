"""Writing a folder whole or not at all: a temporary sibling, everything flushed, one rename.

It does not know what is in the folder. Kill the process at any instant and the target is the old folder or the new one. On
Linux the two are exchanged by one system call; elsewhere the old folder moves aside first, and a kill between the two renames
leaves it beside the target under a name that ends in `.old`.
"""

import ctypes
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plait.errors import CheckpointError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def replace_folder(target: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `target`; when the block ends without an error, it takes the target's place.

    Raises:
        CheckpointError: the target is a file, or its parent cannot be written.
    """
    target = Path(target)
    if target.is_file():
        raise CheckpointError(f"{target} is a file where a folder is to be written. Move it away or choose another name.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.*.tmp"):  # left by a process that was killed here
            shutil.rmtree(stale)
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        beside.mkdir()
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
        shutil.rmtree(beside, ignore_errors=True)


def _take_place(beside: Path, target: Path) -> None:
    if not target.exists():
        os.rename(beside, target)
    elif not _exchange(beside, target):
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
    """Write JSON beside the target and take its place: a reader finds the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
    os.replace(beside, path)
