"""The job of `plait-evaluate`: choose the sampler on val, examine every split, keep figures, sheets and samples in the run folder.

It writes evaluation.json (every figure with interval, n, baselines and policy), summary.json (flat: key -> value), items.json
(every judged item with its scores), sheets/*.png and samples/*.html. What a figure means is plait.evaluation's affair.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plait.atomic import write_json
from plait.errors import RecipeError
from plait.evaluation.bench import Bench, Codes
from plait.evaluation.cost import measure, summarise_cost
from plait.evaluation.figures import MAIN, Record
from plait.evaluation.protocol import DEFAULT_PLAN, Evaluation, evaluate
from plait.evaluation.reconstruction import calibrate_oracle
from plait.evaluation.tuning import choose_image_policy
from plait.evaluation.verifier import Oracle
from plait.protocols import Policy
from plait.rendering import Cell, Sample, contact_sheet, render_html

SHOWN_SAMPLES = 12
log = logging.getLogger(__name__)


def examine(
    *,
    model: Any,
    world: Any,
    codes: Codes,
    folder: str,
    text_policy: Policy,
    prose_policy: Policy,
    image_policies: Mapping[str, Policy],
    plan: Mapping[str, Sequence[str]] = DEFAULT_PLAN,
    n: int = 300,
    tuning_n: int = 96,
    batch_size: int = 256,
    seed: int = 0,
    costs: Mapping[str, float] | None = None,
    sheet_cells: int = 48,
) -> dict[str, float]:
    """Examine a model on a world.

    Args:
        text_policy: of captions and answers; `prose_policy` of stories.
        image_policies: candidates; the one that draws most val scenes rightly is used for every figure.
        n: prompts per figure; `tuning_n` for each candidate.
        costs: what training recorded (tokens, seconds), reported beside the figures.
        sheet_cells: pictures on a contact sheet.

    Returns:
        The flat summary.

    Raises:
        RecipeError: the data has no oracle.
    """
    place = Path(folder)
    policies = {"text": text_policy, "prose": prose_policy}
    bench = Bench(
        model, world, open_oracle(world), codes, policies | {"image": text_policy}, n=n, batch_size=batch_size, seed=seed
    )
    with measure() as reading:
        calibration = calibrate_oracle(bench)
        choice = choose_image_policy(bench, image_policies, tuning_n)
        log.info("image policy %r of %s (share of right val pictures)", choice.name, choice.shares)
        found = evaluate(
            model,
            world,
            bench.oracle,
            codes,
            policies | {"image": choice.policy},
            n=n,
            plan=plan,
            batch_size=batch_size,
            seed=seed,
            is_calibrated=True,
            on_progress=log.info,
        )
    cost = summarise_cost(model.parts, model.builder.layout.num_codes + 2).to_dict() | dict(costs or {})
    cost |= {"evaluation_duration_s": reading.duration_s, "evaluation_peak_memory_bytes": reading.peak_memory_bytes}
    facts = found.facts | {"calibration": asdict(calibration), "tuning": {"chosen": choice.name, "val_shares": choice.shares}}
    write_json(place / "evaluation.json", {"results": found.results, "facts": facts, "cost": cost})
    summary = flatten(found, cost, choice.name)
    write_json(place / "summary.json", summary)
    write_json(place / "items.json", list_items(found))
    write_sheets(found, place, sheet_cells)
    return summary


def open_oracle(world: Any) -> Oracle:
    """The judge of a world.

    Raises:
        RecipeError: there is none for this data.
    """
    if not hasattr(type(world), "sprites"):
        raise RecipeError(
            f"The data of this run is a {type(world).__name__}, expected EmojiWorld: the oracle judges only that, and of other data nobody "
            "knows what is right. Next: read the losses on held-out rows (val/... in metrics.jsonl) and the samples/ of the run, or draw "
            "with plait-generate."
        )
    return Oracle(world)


def list_items(found: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Figure name -> its judged items in order: what was expected and found, the cluster, the scores."""
    items: dict[str, list[dict[str, Any]]] = {}
    for record in found.records:
        facts = {name: getattr(record, name) for name in ("expected", "found", "cluster")}
        items.setdefault(record.key, []).append({**facts, "scores": dict(record.scores)})
    return items


def flatten(found: Evaluation, cost: Mapping[str, float], policy: str) -> dict[str, Any]:
    """Figure name -> value, with the interval, n and baselines under dotted names; JSON-ready."""
    summary: dict[str, Any] = {}
    for key, figure in found.results.items():
        summary[key] = figure["value"]
        summary |= {f"{key}.{name}": figure[name] for name in ("low", "high", "n", "gap_closed") if name in figure}
        summary |= {f"{key}.{name}": value for name, value in figure["baselines"].items()}
    summary |= {f"cost/{name}": value for name, value in cost.items()}
    return summary | {"policy/image": policy}


def write_sheets(found: Evaluation, folder: Path, num_cells: int) -> None:
    """A contact sheet per figure that has drawn pictures, and a page of interleaved samples per figure."""
    for key in Counter(record.key for record in found.records):
        records = found.select(key)
        name = key.replace("/", "-")
        cells = [
            Cell(record.pictures[-1], f"{record.expected} | {record.found}", bool(record.scores[MAIN]))
            for record in records[:num_cells]
            if record.pictures and MAIN in record.scores
        ]
        if cells:
            (folder / "sheets").mkdir(parents=True, exist_ok=True)
            value = found.results[key]["value"] if key in found.results else float("nan")
            sheet = contact_sheet(cells, columns=8, title=f"{key}: {value:.3f}")
            sheet.quantize(256).save(folder / "sheets" / f"{name}.png")  # a third of the bytes of the page
        samples = [to_sample(record) for record in records[:SHOWN_SAMPLES]]
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        page = render_html(samples, title=key, note="what the model was given and what it made, first items, not chosen")
        (folder / "samples" / f"{name}.html").write_text(page, encoding="utf-8")
        listed = json.dumps([sample.to_json() for sample in samples], indent=1)
        (folder / "samples" / f"{name}.json").write_text(listed, encoding="utf-8")


def to_sample(record: Record) -> Sample:
    """A judged item as people look at it: yes/no scores as ticks, and what the judge expected and read."""
    pictures = {id(span): picture for span, picture in zip(record.document.images, record.pictures, strict=False)}
    scores = {name: bool(value) if value in (0, 1) else float(value) for name, value in record.scores.items()}
    return Sample(
        record.document,
        lambda span: pictures.get(id(span)),  # drawn pictures of one document may share an id: the span decides
        {**scores, "expected": record.expected, "found": record.found},
        record.seed,
        title=record.key,
    )
