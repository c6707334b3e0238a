"""What a study leaves in the repository: results.json, tables in its page, and one sheet of drawings per arm.

It reads the folders of finished runs and computes nothing but means and intervals. The page is a person's: only what stands
between its two marks is written here.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_modules.callbacks.stop_when import PASSED
from plait.atomic import write_json
from plait.errors import CheckpointError
from plait.evaluation.arms import compare_arms
from plait.evaluation.comparison import LEAST_SEEDS
from plait.evaluation.learning import Curve, compare_costs
from plait.evaluation.table import spell_figure, write_row
from plait.runs import Run

PAGE, BEGIN, END = "README.md", "<!-- results -->", "<!-- end of results -->"
SHEETS = ("test_combo-two_objects.png", "test_pair-two_objects.png")
"""of these an arm's sheet is the first that its evaluation drew"""
WHOLE = ("reconstruction", "captions_one_object")
LEFT_OUT = (
    *("_places", "_unrecognisable", "_ungrammatical", "_pixel_error"),
    *(f"{name}_{part}" for name in WHOLE for part in ("objects", "colours", "cells", "relation")),
)
"""ends of the names of figures that are in results.json and not on the page; of `WHOLE` the page has the main figure only"""
COSTS = ("duration_s", "tokens", "parameters_trained", "training_flops_by_rule")
"""of the fastest run of an arm: the others waited for other work on the machine"""
SUMMED = ("tokens", "images", "training_flops_by_rule")
"""over the stages of an arm that train"""
EXAMINED = "examination/"
LEVELS = (0.25, 0.5, 0.75, 0.9)
"""shares of right answers at which costs are compared"""
log = logging.getLogger(__name__)


def collect(
    *,
    name: str,
    folder: str,
    arms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    reference: str,
    report: str,
    starts_from: Mapping[str, str] | None = None,
    trainings: Sequence[str] = ("pretraining",),
    per_run: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the results of all arms and seeds that have finished.

    Args:
        folder: of the study, see `lightning_modules.loops.study`.
        report: where results.json, the page and the sheets lie. A page without the two marks is refused.
        starts_from: see `lightning_modules.loops.study`.
        trainings: the stages of an arm that train, in order. Costs are those of all of them, ids and curves those of the last.
        per_run: figures of an evaluation's summary.json that are told of every run, beside the step at which a probe was passed.

    Returns:
        What is in results.json: per arm its overrides, runs (id, commit, cost) and figures; what is missing; the shared runs; and, where
        the recipe examined its models while they trained, curves and the ratios of costs to reach a level.
    """
    places = {arm: {seed: Path(folder, arm, f"seed-{seed}") for seed in seeds} for arm in arms}
    items = read_items(places, trainings[-1])
    missing = [f"{arm}/seed-{seed}" for arm in arms for seed in seeds if seed not in items.get(arm, ())]
    if reference not in items:
        log.info("no run of %s has finished yet: there is nothing to compare the other arms with", reference)
        return {}
    found = {arm: {seed: places[arm][seed] for seed in runs} for arm, runs in items.items()}
    figures = compare_arms(items, reference)
    results = {
        "study": name,
        "reference": reference,
        "missing": missing,
        "shared": {
            place.name: _describe(place)
            for place in sorted(Path(folder, "shared").glob("*/"))
            if (place / "job.json").is_file() and ".old-" not in place.name  # what a curriculum has set aside
        },
        "policy": _read(next(iter(found[reference].values())) / "evaluation" / "summary.json")["policy/image"],
        "arms": {
            arm: {
                "overrides": list(arms[arm]),
                "runs": {
                    str(seed): _describe(*(place / name for name in trainings)) | _tell(place, trainings, per_run)
                    for seed, place in places.items()
                },
                "figures": figures[arm],
            }
            for arm, places in found.items()
        },
    }
    last = {arm: {seed: place / trainings[-1] for seed, place in runs.items()} for arm, runs in found.items()}
    results |= describe_learning(
        last, reference, {arm: Path(folder, "shared", name) for arm, name in (starts_from or {}).items()}
    )
    place = Path(report)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "results.json", round_numbers(results))
    for arm, places in found.items():
        sheets = next(iter(places.values())) / "evaluation" / "sheets"
        drawn = [sheets / sheet for sheet in SHEETS if (sheets / sheet).is_file()]
        if drawn:
            shutil.copyfile(drawn[0], place / f"{arm}.png")
    if (place / PAGE).is_file():
        (place / PAGE).write_text(fill_page((place / PAGE).read_text(encoding="utf-8"), results), encoding="utf-8")
    log.info("%d of %d runs are in %s", sum(map(len, found.values())), len(arms) * len(seeds), place / "results.json")
    return results


def describe_learning(
    places: Mapping[str, Mapping[int, Path]], reference: str, bases: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Curves over floating point operations (by the rule, see `Run.cost`), and per arm, figure and level the cost over that of the
    reference: of the stage alone, and with what its base had cost. Empty where nothing was examined while it trained.

    Args:
        places: arm -> seed -> folder of the run.
        bases: arm -> run folder of what it starts from.
    """
    curves: dict[str, dict[str, dict[str, Curve]]] = {}
    for arm, seeds in places.items():
        for seed, place in seeds.items():
            for figure, curve in _read_curves(Run(place)).items():
                curves.setdefault(figure, {}).setdefault(arm, {})[str(seed)] = curve
    if not curves:
        return {}
    ratios = {
        f"{figure} >= {level}": {
            arm: {
                "alone": asdict(compare_costs(own, arms[reference], level)),
                "with_base": asdict(compare_costs(own, arms[reference], level, before=_flops(bases[arm])))
                if arm in bases
                else None,
            }
            for arm, own in arms.items()
            if arm != reference
        }
        for figure, arms in curves.items()
        if reference in arms
        for level in LEVELS
    }
    return {"learning": curves, "cost_ratios": ratios}


def _read_curves(run: Run) -> dict[str, Curve]:
    """figure -> (operations, values)."""
    keys = [key for key in run.metrics.keys if key.startswith(EXAMINED)]
    if not keys:
        return {}
    per_step = run.cost["training_flops_by_rule"] / (run.metrics.series("perf/rate_tokens_per_s")[0][-1] + 1)
    return {
        key.removeprefix(EXAMINED): ([(step + 1) * per_step for step in steps], values)
        for key, (steps, values) in ((key, run.metrics.series(key)) for key in keys)
    }


def _flops(place: Path) -> float:
    return Run(place).cost["training_flops_by_rule"]


def read_items(places: Mapping[str, Mapping[int, Path]], last: str) -> dict[str, dict[int, Any]]:
    """arm -> seed -> judged items, of what has finished: the stage `last`, and then the evaluation of what it left.

    An evaluation of weights that are being trained anew (the config has changed since) is none.
    """
    found: dict[str, dict[int, Any]] = {}
    for arm, seeds in places.items():
        for seed, place in seeds.items():
            if _is_evaluated(place / "evaluation", place / last):
                found.setdefault(arm, {})[seed] = _read(place / "evaluation" / "items.json")
    return found


def _is_evaluated(evaluation: Path, training: Path) -> bool:
    jobs = [_read(stage / "job.json") for stage in (evaluation, training) if (stage / "job.json").is_file()]
    if [job["state"] for job in jobs] != ["finished", "finished"]:
        return False
    return jobs[1]["id"] in [parent["job"] for parent in _read(evaluation / "lineage.json")["parents"]]


def fill_page(page: str, results: Mapping[str, Any]) -> str:
    """The page with the tables of these results between its marks.

    Raises:
        CheckpointError: the marks are not there, in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CheckpointError(f"The page of the study has no place for its tables: expected a line {BEGIN} and a line {END}.")
    tables = "\n".join(write_tables(round_numbers(results)))
    return f"{before}{begin}\n{tables}\n{end}{after}"


def write_tables(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown: every figure of every arm, the differences from the reference arm, the cost."""
    arms, reference = results["arms"], results["reference"]
    shown = [key for key in arms[reference]["figures"] if not key.endswith(LEFT_OUT)]
    yield from ("", write_row(["figure", "n", *arms]), write_row(["---"] * (len(arms) + 2)))
    for key in shown:
        yield write_row(
            [key, arms[reference]["figures"][key]["n"], *(spell_figure(arm["figures"].get(key)) for arm in arms.values())]
        )
    others = [arm for arm in arms if arm != reference]
    if others:
        yield from (
            "",
            f"Difference from {reference}:",
            "",
            write_row(["figure", *others]),
            write_row(["---"] * (len(others) + 1)),
        )
        for key in shown:
            gaps = (arms[arm]["figures"].get(key, {}).get("minus_reference") for arm in others)
            yield write_row([key, *(spell_figure(gap, "+.2f") for gap in gaps)])
        few = [f"{arm} ({len(arms[arm]['runs'])})" for arm in arms if len(arms[arm]["runs"]) < LEAST_SEEDS]
        if few:
            yield from (
                "",
                f"No verdict about arms with fewer than {LEAST_SEEDS} runs: {', '.join(few)}. Their intervals are over the items of "
                "these very runs; other seeds may move them further.",
            )
    if results.get("cost_ratios"):
        yield from _write_cost_ratios(results["cost_ratios"], reference)
    yield from _write_runs(arms)
    yield from ("", write_row(["cost of training, fastest run", *arms]), write_row(["---"] * (len(arms) + 1)))
    fastest = [min(arm["runs"].values(), key=lambda run: run["duration_s"]) for arm in arms.values()]
    for cost in COSTS:
        yield write_row([cost, *(f"{run[cost]:,.0f}" if run[cost] < 1e9 else f"{run[cost]:.2e}" for run in fastest)])
    yield write_row(["runs", *(len(arm["runs"]) for arm in arms.values())])
    yield ""


def _write_runs(arms: Mapping[str, Any]) -> Iterator[str]:
    """A row per run, where something is told of each."""
    runs = {f"{arm}, seed {seed}": run for arm, own in arms.items() for seed, run in own["runs"].items()}
    told = ["passed_at_step", *(key for key in next(iter(runs.values())) if "/" in key)]
    if not any(name in run for run in runs.values() for name in told):
        return
    yield from ("", "Every run (the step at which its probe was passed; none: it reached its cap):", "")
    yield from (write_row(["run", *told]), write_row(["---"] * (len(told) + 1)))
    for name, run in runs.items():
        yield write_row([name, *(_spell_told(run.get(key)) for key in told)])


def _spell_told(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f}" if value > 1 else f"{value:.3f}"


def _write_cost_ratios(ratios: Mapping[str, Any], reference: str) -> Iterator[str]:
    arms = list(next(iter(ratios.values())))
    kinds = ("alone", "with_base")
    yield from ("", f"Training operations to reach a level, over those of {reference} (below 1: cheaper):", "")
    yield write_row(["level on val", *(f"{arm}, {kind.replace('_', ' ')}" for arm in arms for kind in kinds)])
    yield write_row(["---"] * (1 + len(arms) * len(kinds)))
    for level, own in ratios.items():
        yield write_row([level, *(_spell_ratio(own[arm][kind]) for arm in arms for kind in kinds)])


def _spell_ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return ""
    if ratio["value"] is None:
        return "reached by {} of {}, {} of {}".format(*(ratio[key][i] for i in (0, 1) for key in ("reached", "seeds")))
    return f"{ratio['value']:.2f}" + ("" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]")


def round_numbers(value: Any, digits: int = 4) -> Any:
    """The same containers with fractions rounded: a file that is committed should not change in its last digits."""
    if isinstance(value, Mapping):
        return {key: round_numbers(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_numbers(item, digits) for item in value]
    return round(value, digits) if isinstance(value, float) else value


def _describe(*places: Path) -> dict[str, Any]:
    """Of stages that follow each other: id and code of the last, duration and cost of all."""
    jobs = [_read(place / "job.json") for place in places]
    facts = {"id": jobs[-1]["id"], "duration_s": sum(job["duration_s"] for job in jobs)}
    runs = [Run(place) for place in places if (place / "passport.json").is_file()]
    if not runs:
        return facts
    code = {name: runs[-1].passport["code"].get(name) for name in ("commit", "changed")}
    costs = [run.cost for run in runs]
    sums = {name: sum(cost[name] for cost in costs) for name in SUMMED if name in costs[-1]}
    return code | costs[-1] | sums | facts


def _tell(place: Path, trainings: Sequence[str], per_run: Sequence[str]) -> dict[str, Any]:
    """Of one run: its step of each stage that a probe ended, and the figures that are told of every run."""
    told: dict[str, Any] = {}
    for name in trainings:
        metrics = Run(place / name).metrics
        if PASSED in metrics.keys:
            told |= {"passed_at_step": metrics.last(PASSED)}
    summary = _read(place / "evaluation" / "summary.json") if per_run else {}
    return told | {name: summary[name] for name in per_run}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): run that arm of the study again.") from error
