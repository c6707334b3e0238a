"""The job of `plait-report`: one self-contained HTML page about finished runs and their evaluation.

Order of the page: what came out (figures beside baselines), what it looks like (sheets and interleaved samples), what was trained
(ledger and its proof), how it went (curves), where it comes from (passport). It reads run folders and computes nothing new.
"""

import base64
import html
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.atomic import write_json
from plait.errors import CheckpointError
from plait.evaluation.protocol import HEADLINES
from plait.rendering import STYLE
from plait.runs import Run

CURVES = ("train/loss", "train/text_loss_nats", "train/image_loss_nats", "val/loss", "perf/rate_tokens_per_s")
PAGE_STYLE = """
body { margin: 24px auto; max-width: 1100px; padding: 0 20px; background: #fafaf8; color: #1f2430;
       font: 15px/1.5 system-ui, sans-serif; }
h2 { margin: 32px 0 8px; border-bottom: 1px solid #d9dce3; } h3 { margin: 20px 0 6px; }
table { border-collapse: collapse; font-size: 13px; background: #fff; }
td, th { border: 1px solid #d9dce3; padding: 3px 8px; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } th { background: #f1f2f5; }
tr.headline td { font-weight: 600; } img { max-width: 100%; } pre { font-size: 12px; overflow: auto; background: #fff; padding: 8px; }
details { margin: 8px 0; } .bar { display: inline-block; height: 8px; background: #3b5bdb; } .note { color: #6b7280; }
"""
log = logging.getLogger(__name__)


def write_page(
    *,
    runs: Sequence[str],
    folder: str,
    evaluation: str | None = None,
    title: str = "report",
    target: str | None = None,
    summary: str | None = None,
) -> str:
    """Write the page.

    Args:
        runs: folders of training runs, in order.
        evaluation: folder of an evaluation.
        target: the page; by default `folder`/report.html.
        summary: path for a copy of the evaluation's flat summary, with the duration and peak memory of every run added.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: a folder holds no run or evaluation.
    """
    read = [Run(path) for path in runs]
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if evaluation is not None:
        parts += _evaluation(Path(evaluation))
    for run in read:
        parts += _run(run)
    page = (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}{PAGE_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    path = Path(target or Path(folder) / "report.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    if summary is not None:
        write_json(summary, _summarise(read, evaluation))
    log.info("report: %s", path)
    return str(path)


def _summarise(runs: Sequence[Run], evaluation: str | None) -> dict[str, Any]:
    found = {} if evaluation is None else _read_json(Path(evaluation) / "summary.json")
    for run in runs:
        found |= {f"cost/{run.folder.name}/{name}": value for name, value in sum_cost(run).items()}
    return found


def sum_cost(run: Run) -> dict[str, float]:
    """What a training run cost: seconds of the whole job, peak memory, what was trained on (tokens or images), and FLOPs by the
    rule 6 x trained parameters x tokens (a forward pass is a third of a step; frozen parameters still cost two thirds of theirs)."""
    metrics, ledger = run.metrics, run.ledger
    cost = {"parameters": ledger.parameters, "parameters_trained": ledger.trainable_parameters}
    cost["duration_s"] = _read_json(run.folder / "job.json").get("duration_s")
    if "perf/peak_memory_mib" in metrics.keys:
        cost["peak_memory_mib"] = metrics.last("perf/peak_memory_mib")
    for unit in ("tokens", "images"):
        if f"perf/rate_{unit}_per_s" in metrics.keys:
            steps, rates = metrics.series(f"perf/rate_{unit}_per_s")
            durations = metrics.series("perf/step_duration_s")[1]
            spans = [step - before for step, before in zip(steps, [-1, *steps], strict=False)]
            counts = [rate * duration * span for rate, duration, span in zip(rates, durations, spans, strict=True)]
            cost[unit] = round(sum(counts))
    if "tokens" in cost:
        cost["training_flops_by_rule"] = 6.0 * cost["parameters_trained"] * cost["tokens"]
    return cost


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): finish the run or evaluation first.") from error


def _evaluation(folder: Path) -> Iterator[str]:
    found = _read_json(folder / "evaluation.json")
    tuning = found["facts"].get("tuning", {})
    shares = ", ".join(f"{name} {share:.2f}" for name, share in tuning.get("val_shares", {}).items())
    note = (
        "One sample per prompt; value and 95 % bootstrap interval beside what blind answers reach on the same items. "
        f"Sampler chosen on val: {tuning.get('chosen')} of {shares}."
    )
    yield f"<h2>What it can do</h2><p class='note'>{html.escape(note)}</p>"
    yield _figures(found["results"])
    for split in dict.fromkeys(key.split("/")[0] for key in found["results"]):
        yield f"<h3>Pictures, {html.escape(split)}</h3>"
        for sheet in sorted((folder / "sheets").glob(f"{split}-*.png")):
            data = base64.b64encode(sheet.read_bytes()).decode("ascii")
            is_open = " open" if "two_objects" in sheet.stem or "one_object" in sheet.stem else ""
            yield f"<details{is_open}><summary>{html.escape(sheet.stem)}</summary><img src='data:image/png;base64,{data}'></details>"
    yield "<h3>Documents</h3>"
    for page in sorted((folder / "samples").glob("*.html")):
        body = page.read_text(encoding="utf-8").split("<body>", 1)[-1].split("</body>", 1)[0]
        yield f"<details{' open' if 'stories' in page.stem else ''}><summary>{html.escape(page.stem)}</summary>{body}</details>"
    yield f"<h3>Cost</h3>{_table(found['cost'])}"


def _figures(results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["<tr><th>figure</th><th>value</th><th></th><th>interval</th><th>n</th><th>baselines</th><th>gap closed</th></tr>"]
    for key, figure in results.items():
        baselines = ", ".join(f"{name} {value:.2f}" for name, value in figure["baselines"].items())
        gap = f"{figure['gap_closed']:.2f}" if "gap_closed" in figure else ""
        style = " class='headline'" if key.split("/")[1] in HEADLINES else ""
        width = max(0, round(80 * figure["value"])) if figure["value"] <= 1 else 0
        rows.append(
            f"<tr{style}><td>{html.escape(key)}</td><td class='number'>{figure['value']:.3f}</td>"
            f"<td><span class='bar' style='width:{width}px'></span></td>"
            f"<td class='number'>[{figure['low']:.3f}, {figure['high']:.3f}]</td><td class='number'>{figure['n']}</td>"
            f"<td>{html.escape(baselines)}</td><td class='number'>{gap}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"<tr><td>{html.escape(name)}</td><td class='number'>{_number(value)}</td></tr>" for name, value in values.items())
    return f"<table>{''.join(rows)}</table>"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def _run(run: Run) -> Iterator[str]:
    passport = run.passport
    yield f"<h2>Run: {html.escape(run.folder.name)}</h2>"
    facts = {name: passport[name] for name in ("state", "stage", "commit", "started") if name in passport} | sum_cost(run)
    yield _table(facts)
    yield f"<h3>What was trained, and the proof</h3><pre>{html.escape(run.ledger.table())}</pre>"
    yield _curves(run)
    for page in sorted((run.folder / "samples").glob("*.html"))[-1:]:
        body = page.read_text(encoding="utf-8").split("<body>", 1)[-1].split("</body>", 1)[0]
        yield f"<details><summary>samples: {html.escape(page.stem)}</summary>{body}</details>"
    config = html.escape(json.dumps(run.config, indent=1))
    yield f"<details><summary>resolved config</summary><pre>{config}</pre></details>"


def _curves(run: Run) -> str:
    """Loss curves as an inline SVG."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    keys = [key for key in run.metrics.keys if key in CURVES or (key.startswith("train/") and "loss" in key)]
    if not keys:
        return "<p class='note'>No curves were logged.</p>"
    figure = Figure(figsize=(3.4 * min(len(keys), 3), 2.4 * ((len(keys) + 2) // 3)), layout="constrained")
    for number, key in enumerate(keys, start=1):
        axes = figure.add_subplot((len(keys) + 2) // 3, min(len(keys), 3), number)
        axes.plot(*run.metrics.series(key), linewidth=1)
        axes.set_title(key, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]
