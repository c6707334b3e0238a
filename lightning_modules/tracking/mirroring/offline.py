"""What W&B keeps of a run offline, read back record by record: run-<id>.wandb is a log of LevelDB's format (blocks of 32 KiB, each
record whole or in pieces) that holds protocol buffers of wandb. It asks no network and starts nothing."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plait.errors import CheckpointError

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What the records of a run say, all together.

    Args:
        facts: id, project, name, group, job_type, tags, notes.
        config: key -> value, as it is at the end.
        rows: rows of history, key -> value.
        summary: key -> value.
        artifacts: name -> type.
        exit_code: of the job; None where the log ends before it.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def find_offline(folder: str | Path) -> list[Path]:
    """The offline folders of W&B in a run folder, oldest first."""
    return sorted(path for path in (Path(folder) / "wandb").glob("offline-run-*") if path.is_dir())


def read_offline(place: str | Path) -> OfflineRun:
    """Read an offline folder; a log that breaks off is read as far as it goes.

    Raises:
        CheckpointError: there is no log in it, or it is none of W&B.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    logs = list(Path(place).glob("run-*.wandb"))
    if len(logs) != 1:
        raise CheckpointError(f"{place} is no offline run of W&B: expected one file run-<id>.wandb, found {len(logs)}.")
    found = OfflineRun()
    for data in _iterate_records(logs[0]):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.facts = {"id": run.run_id, "project": run.project, "name": run.display_name, "group": run.run_group}
            found.facts |= {"job_type": run.job_type, "tags": list(run.tags), "notes": run.notes}
            _update(found.config, run.config.update)
        elif kind == "config":
            _update(found.config, record.config.update)
        elif kind == "history":
            found.rows.append({})
            _update(found.rows[-1], record.history.item)
        elif kind == "summary":
            _update(found.summary, record.summary.update)
        elif kind == "artifact":
            found.artifacts[record.artifact.name] = record.artifact.type
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            artifact = record.request.log_artifact.artifact
            found.artifacts[artifact.name] = artifact.type
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _update(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *path, last = item.nested_key or [item.key]
        node = target
        for key in path:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)


def _iterate_records(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    if data[:4] != b":W&B":
        raise CheckpointError(f"{path} is no log of W&B: it begins with {data[:4]!r}.")
    position, pieces = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        checksum = int.from_bytes(data[position : position + 4], "little")
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        piece = data[position + HEADER : position + HEADER + length]
        is_whole = len(piece) == length and zlib.crc32(piece, zlib.crc32(bytes([kind]))) == checksum
        if kind not in (FULL, FIRST, MIDDLE, LAST) or not is_whole:
            return
        position += HEADER + length
        pieces = piece if kind in (FULL, FIRST) else pieces + piece
        if kind in (FULL, LAST):
            yield pieces
