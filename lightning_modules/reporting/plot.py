"""Curves as SVG whose points are the data themselves: steps and values as they were logged, placed by a transform.

So a drawn point can be compared with the file it came from. Axes are linear; where the first twentieth of the steps lies far above
the rest, the axis ends at the highest later value and the title says that the curve begins above it.
"""

import html
import json
import math
from collections.abc import Sequence

from lightning_modules.reporting.spec import Bar, Curve, Plot

COLORS = ("#3b5bdb", "#e8590c", "#2b8a3e", "#c2255c", "#1098ad", "#9c36b5", "#e67700", "#495057")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 330, 190, 52, 24, 24
EARLY, MANY = 0.05, 20
"""share of the steps that may lie above the axis, in curves of many points"""


def draw_plot(plot: Plot) -> str:
    """The SVG of a plot; the colour of a curve is its place in the legend."""
    points = [(step, value) for curve in plot.curves for step, value in curve.points if math.isfinite(value)]
    lost = sum(not math.isfinite(value) for curve in plot.curves for _, value in curve.points)
    if not points:
        return f"<p class='note'>{html.escape(plot.title)}: no finite value was logged.</p>"
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    is_long = max(len(curve.points) for curve in plot.curves) >= MANY
    later = [value for step, value in points if not is_long or step >= first + EARLY * (last - first)]
    low, high = min(value for _, value in points), max(later)
    note = " (begins above)" if max(value for _, value in points) > high else ""
    note += f" ({lost} values not finite)" if lost else ""
    first, last = (first - 0.5, last + 0.5) if first == last else (first, last)
    low, high = (low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9) if low == high else (low, high)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    across, up = (WIDTH - LEFT - 8) / (last - first), (HEIGHT - TOP - BOTTOM) / (high - low)
    move = f"matrix({across!r} 0 0 {-up!r} {LEFT - across * first!r} {TOP + up * high!r})"
    lines = "".join(_line(curve, number) for number, curve in enumerate(plot.curves))
    box = f"x='{LEFT}' y='{TOP}' width='{WIDTH - LEFT - 8}' height='{HEIGHT - TOP - BOTTOM}'"
    return (
        f"<svg class='plot' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{html.escape(plot.title, quote=True)}'>"
        f"<text x='{LEFT}' y='14' class='title'>{html.escape(plot.title + note)}</text>"
        f"{_grid(low, high, up)}{_steps(first, last, across)}"
        f"<svg {box} viewBox='{LEFT} {TOP} {WIDTH - LEFT - 8} {HEIGHT - TOP - BOTTOM}'><g transform='{move}'>{lines}</g></svg></svg>"
    )


def draw_bar(bar: Bar) -> str:
    """A value between 0 and 1 with its interval, and the best blind answer as a grey mark; their numbers stand beside it."""
    low, value, high = (f"{100 * min(max(one.value, 0), 1):.2f}" for one in (bar.low, bar.value, bar.high))
    blind = f"{100 * min(max(bar.blind.value, 0), 1):.2f}%" if bar.blind else None
    mark = f"<line x1='{blind}' x2='{blind}' y1='2' y2='20' class='blind'/>" if blind else ""
    return (
        f"<svg role='img' aria-label='{html.escape(bar.name.text, quote=True)}'><rect x='0' y='10' width='100%' height='2' class='axis'/>"
        f"{mark}<line x1='{low}%' x2='{high}%' y1='11' y2='11' class='range'/><circle cx='{value}%' cy='11' r='4.5'/></svg>"
    )


def draw_legend(labels: Sequence[str]) -> str:
    """Names beside the colours of their curves."""
    entries = (f"<span><i style='background:{_color(i)}'></i>{html.escape(label)}</span>" for i, label in enumerate(labels))
    return f"<p class='legend'>{''.join(entries)}</p>"


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _line(curve: Curve, number: int) -> str:
    source = [curve.source.run, curve.source.file, curve.source.key]
    points = [f"{step},{value!r}" for step, value in curve.points if math.isfinite(value)]
    if len(points) == 1:
        points *= 2  # a line without length and with round ends is a dot
    dot = " class='dot'" if len(set(points)) == 1 else ""
    return (
        f"<polyline{dot} data-source='{html.escape(json.dumps(source), quote=True)}' points='{' '.join(points)}' stroke='{_color(number)}'>"
        f"<title>{html.escape(curve.label)}</title></polyline>"
    )


def _grid(low: float, high: float, up: float) -> str:
    lines = []
    for tick in _ticks(low, high):
        y = TOP + up * (high - tick)
        lines.append(f"<line x1='{LEFT}' x2='{WIDTH - 8}' y1='{y:.1f}' y2='{y:.1f}'/>")
        lines.append(f"<text x='{LEFT - 5}' y='{y + 3.5:.1f}' text-anchor='end'>{tick:g}</text>")
    return "".join(lines)


def _steps(first: float, last: float, across: float) -> str:
    ticks = [tick for tick in _ticks(first, last) if tick == round(tick)]
    places = ((tick, LEFT + across * (tick - first)) for tick in ticks)
    return "".join(f"<text x='{x:.1f}' y='{HEIGHT - 8}' text-anchor='middle'>{tick:g}</text>" for tick, x in places)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two."""
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    start = math.ceil(low / step)
    return [round(number * step, 12) for number in range(start, math.floor(high / step) + 1)]
