"""A folder that a user names to be written: an older one of the same kind may be replaced, and nothing else is touched.

`plait.atomic.replace_folder` looks at the folder itself; here is what it cannot know: runs, and what the new folder is made from.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from lightning_modules.folders.records import JOB_FILE
from plait.errors import CheckpointError


def check_target(target: str | Path, is_same: Callable[[Path], bool], sources: Iterable[str | Path | None] = ()) -> None:
    """Refuse a target, before anything is loaded.

    Args:
        is_same: whether a folder is of the kind that is to be written.
        sources: files and folders that it is made from; names of the Hub are none.

    Raises:
        CheckpointError: it is something else already, inside or around a run, or holds a source.
    """
    place = Path(target).resolve()
    if finding := _find(place, is_same, [Path(source).resolve() for source in sources if source and Path(source).exists()]):
        raise CheckpointError(
            f"target={target} {finding}. Expected a new or empty folder outside of runs, or an older one of the kind that is to be "
            "written, which is replaced as a whole. Next: choose another target=<folder>, or move what is there away."
        )


def _find(place: Path, is_same: Callable[[Path], bool], sources: Iterable[Path]) -> str | None:
    for source in sources:
        if source.is_relative_to(place) or place.is_relative_to(source):
            return f"overlaps with {source}, which is to be read"
    for folder in (place, *place.parents):
        if (folder / JOB_FILE).is_file():
            return f"lies in the run {folder}"
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not is_same(place)):
        return "is there already, and is something else"
    if run := next(place.rglob(JOB_FILE), None):
        return f"holds the run {run.parent}"
    return None
