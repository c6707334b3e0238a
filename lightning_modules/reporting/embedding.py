"""What of a report's pictures goes into a page: files read and made small, and what is left out where it would grow too large.

Files of a run may come from anywhere: pictures are decoded by the loader that refuses bombs and links, samples are records.
"""

import base64
import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_modules.reporting.sources import read_json
from lightning_modules.reporting.spec import Block, Picture, Report, Samples
from plait.errors import CheckpointError, DocumentError
from plait.images import open_image
from plait.samples import StoredSample, read_samples

QUALITY = 82
"""of WebP: a quarter of the bytes of the PNG"""


def open_samples(report: Report, samples: Samples) -> tuple[int, list[StoredSample]]:
    """How many records the file has, and those that are shown.

    Raises:
        CheckpointError: the file is damaged or leads out of its run.
    """
    path = _find(report, samples)
    try:
        found = read_samples(read_json(path))
    except DocumentError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return len(found), found[: samples.count]


def embed_picture(report: Report, picture: Picture) -> str:
    """A picture file as a data URI.

    Raises:
        CheckpointError: the file is no picture or leads out of its run.
    """
    path = _find(report, picture)
    try:
        return _encode(path, path.stat().st_mtime_ns)
    except (DocumentError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from error


@lru_cache(maxsize=128)  # a page and a report of W&B show the same pictures
def _encode(path: Path, modified: int) -> str:
    return to_webp(open_image(path))


def to_webp(image: Image.Image) -> str:
    """A picture as a data URI, small."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def embed(report: Report, writers: Mapping[type, Callable[[Any], str]], largest: float) -> dict[Block, str]:
    """What the blocks of these kinds are on the page, without those that do not fit: the least important (of the highest rank) is left
    out first, the last of equals first, and what has rank 0 never.

    Args:
        writers: kind of block -> writes it.
        largest: bytes that all of them may have.
    """
    blocks = [block for section in report.sections for block in section.blocks if type(block) in writers]
    found: dict[Block, str] = {}
    for block in sorted(blocks, key=_rank):
        written = writers[type(block)](block)
        if _rank(block) == 0 or len(written) + sum(map(len, found.values())) <= largest:
            found[block] = written
    return found


def _rank(block: Block) -> int:
    return getattr(block, "rank", 0)


def _find(report: Report, block: Picture | Samples) -> Path:
    folder = Path(report.folders[block.run])
    path = folder / block.file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"{path} is a link out of its run, to {path.resolve()}. Expected a file of the run. Next: delete the link."
        )
    return path
