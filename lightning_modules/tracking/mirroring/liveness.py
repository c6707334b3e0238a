"""Whether a process and what it has started work or stand still, as far as the system says so (Linux; elsewhere nothing is seen)."""

from dataclasses import dataclass
from pathlib import Path

PARENT, USER, SYSTEM = 1, 11, 12
"""fields of /proc/<pid>/stat behind the name"""


@dataclass(frozen=True)
class Pulse:
    """What a process and its children have computed so far, in ticks of the system (a hundredth of a second); whether one of their threads
    computes now, or would on a machine that were less busy; whether the process itself was stopped by a signal."""

    ticks: int = 0
    is_running: bool = False
    is_stopped: bool = False


def feel_pulse(process: int) -> Pulse:
    """The pulse of a process."""
    family = [process, *find_children(process)]
    is_stopped = _read(f"/proc/{process}/stat")[:1] == ["T"]
    return Pulse(sum(map(_count_ticks, family)), any(map(_is_running, family)), is_stopped)


def find_children(parent: int) -> list[int]:
    """Processes that a process has started and that live."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if (fields := _read(f"/proc/{pid}/stat")) and int(fields[PARENT]) == parent]


def _count_ticks(pid: int) -> int:
    fields = _read(f"/proc/{pid}/stat")
    return int(fields[USER]) + int(fields[SYSTEM]) if fields else 0


def _is_running(pid: int) -> bool:
    return any(_read(str(path / "stat"))[:1] == ["R"] for path in Path(f"/proc/{pid}/task").glob("*"))


def _read(path: str) -> list[str]:
    """The fields behind the name: state, parent, ...; none where the process has ended."""
    try:
        return Path(path).read_text().rpartition(")")[2].split()
    except OSError:
        return []
