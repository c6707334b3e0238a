"""Where a path that was given without its beginning lies: a notebook works in its own folder, and runs lie in that of the project."""

import os
from pathlib import Path

from plait.errors import CheckpointError

MARK = "pyproject.toml"


def find_project() -> Path:
    """The project around the directory in which this process works: the nearest folder above it with a pyproject.toml, else itself."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / MARK).is_file()), here)


def find_upward(place: str | Path) -> Path | None:
    """What a path names here or, as git looks for its folder, in the nearest folder above, up to the project; None if nothing is there.

    Args:
        place: an absolute path is taken as it is; `~` is the home of the user.

    Raises:
        CheckpointError: it is no path.
    """
    if not isinstance(place, str | os.PathLike) or not str(place):
        raise CheckpointError(
            f"A folder is given as {place!r}, expected its path. Next: give one, such as 'outputs/demo/instruction'."
        )
    path, here, top = Path(place).expanduser(), Path.cwd(), find_project()
    folders = [here, *here.parents]
    for folder in folders[: folders.index(top) + 1]:
        if (found := folder / path).exists():
            return path if folder == here or path.is_absolute() else Path(os.path.relpath(found))
    return None
