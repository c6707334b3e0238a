"""Watching a run that still trains, from a notebook: its curves and its latest samples, redrawn when its files have grown.

Reading is all it does: stopping the cell stops the watching and not the run, which is another process.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_modules.folders.records import JOB_FILE, read_job
from lightning_modules.tracking.loggers import METRICS_FILE
from lightning_modules.tracking.screen import Screen, draw_curves
from plait.rendering import render_cards
from plait.runs import Run


def follow(
    folder: str | Path,
    keys: Sequence[str] = ("train/loss",),
    *,
    every_s: float = 2.0,
    longest_s: float = float("inf"),
    num_samples: int = 3,
    show: Callable[[str], None] | None = None,
) -> str:
    """Show a run until it ends, the cell is stopped, or the time is over.

    Args:
        folder: of the run; it may not be there yet.
        keys: of the metrics that are drawn.
        every_s, longest_s: seconds between two looks, and of all.
        num_samples: of the latest page of samples.
        show: takes the HTML of each look; by default it is shown in the cell.

    Returns:
        How the watching ended: "running" where the run goes on, else the state in which the run ended.
    """
    place, show, begun, seen = Path(folder), show or Screen().show, time.monotonic(), None
    try:
        while True:
            version = _version(place)  # before the state: what the last row says is shown before a run is called finished
            state = (read_job(place) or {"state": "not there yet"})["state"]
            if version != seen:
                show(_draw(place, state, keys, num_samples))
                seen = version
            if state not in ("running", "not there yet"):
                return state
            if time.monotonic() - begun > longest_s:
                break
            time.sleep(every_s)
    except KeyboardInterrupt:
        pass
    return "running"


def _version(place: Path) -> tuple:
    """What changes whenever there is something new to see."""
    files = [place / JOB_FILE, place / METRICS_FILE, *place.glob("samples/*.json")]
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file())


def _draw(place: Path, state: str, keys: Sequence[str], num_samples: int) -> str:
    if not (place / JOB_FILE).is_file():
        return f"waiting for {place}"
    metrics = Run(place).metrics
    steps = [row["step"] for row in metrics if row["step"] is not None]
    curves = draw_curves({place.name: metrics}, keys, f"{place}: {state}, step {steps[-1] + 1 if steps else 0}")
    latest = Run(place).latest_samples[:num_samples]
    return curves + (render_cards(latest, latest[0].page.stem) if latest else "")
