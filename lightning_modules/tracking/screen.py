"""A place in the output of a notebook cell that is redrawn instead of growing, and the curves that are drawn there."""

import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from plait.runs import Metrics
from plait.samples import inline_picture

FEW = 30
"""points that are drawn as points"""


class Screen:
    """Shows one piece of HTML at a time; outside of a notebook nothing is seen."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, content: str) -> None:
        """Put `content` in the place of what was shown before."""
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(content), display_id=True)
        else:
            self._handle.update(HTML(content))


def draw_curves(metrics: Mapping[str, Metrics], keys: Sequence[str], note: str = "") -> str:
    """One plot per key, one curve per run, as HTML; a key that nobody has logged yet is an empty plot.

    Args:
        metrics: name of a run -> its metrics.
        note: a line above the plots.
    """
    figure = Figure(figsize=(4.2 * len(keys), 2.6), layout="constrained")
    for key, axis in zip(keys, figure.subplots(1, len(keys), squeeze=False)[0], strict=True):
        for name, rows in metrics.items():
            found = zip(*rows.series(key), strict=True) if key in rows.keys else ()
            points = [(step, value) for step, value in found if math.isfinite(value)]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if len(points) < FEW else None, label=name)
        axis.set(title=key, xlabel="step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if len(metrics) > 1 and axis.lines:
            axis.legend()
    head = f"<div style='color: #6b7280'>{html.escape(note)}</div>" if note else ""
    return f"{head}<img src='{inline_picture(render_figure(figure))}'>"


def render_figure(figure: Figure) -> Image.Image:
    """A figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return Image.open(buffer)
