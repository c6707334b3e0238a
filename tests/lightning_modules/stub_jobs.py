"""Jobs of a few lines: the machinery around a job is tested without any network."""

from pathlib import Path

from plait.errors import RecipeError
from tests.lightning_modules.queued_command import wait_for


class Part:
    """Something that is built once."""

    def __init__(self, size: int = 1, other: object = None) -> None:
        self.size, self.other = size, other

    @classmethod
    def of_size(cls, size: int) -> "Part":
        return cls(size)


def write(*, folder: str, value: int, reads: str | None = None) -> int:
    """Add the value of an earlier stage and write down that it ran."""
    total = value + (int(Path(reads, "value.txt").read_text()) if reads else 0)
    Path(folder, "value.txt").write_text(str(total))
    with open(Path(folder, "times.txt"), "a") as file:
        file.write("ran\n")
    return total


def stop_the_first_time(*, folder: str) -> None:
    """Behave like a job that is stopped by Ctrl-C."""
    mark = Path(folder, "mark.txt")
    if not mark.exists():
        mark.write_text("stopped here")
        raise KeyboardInterrupt
    Path(folder, "value.txt").write_text("7")


def fail(*, message: str) -> None:
    """Fail in a way that plait did not foresee."""
    raise ValueError(message)


def refuse(*, leaves: str | None = None) -> None:
    """Be refused once the folder is open, before or after something was made."""
    if leaves is not None:
        Path(leaves).write_text("work")
    raise RecipeError("not with me")


def meet(*, folder: str, other: str) -> None:
    """End only if another stage has begun."""
    Path(folder, "here").touch()
    wait_for(Path(folder).with_name(other).joinpath("here").exists)
