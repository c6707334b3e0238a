"""The job of `plait-evaluate`: choose the sampler on val, examine every split, keep figures, sheets and samples in the run folder. What is
asked is the world's affair; where it knows no more than its documents, they are (plait/evaluation/documents.py).

It writes evaluation.json (every figure with interval, n, baselines and policy), summary.json (flat: key -> value), items.json
(every judged item with its scores), table.md and table.json (the common table: headlines, protocol, what was skipped, seconds),
sheets/*.png and samples/*.html. What a figure means is plait.evaluation's affair.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_modules.composing.arguments import check_count, checked_by
from lightning_modules.jobs.comparison import write_table
from lightning_modules.pretrained import check_unified
from plait.atomic import write_json
from plait.data.filling import Pictures
from plait.document import Document
from plait.errors import RecipeError
from plait.evaluation.bench import Bench
from plait.evaluation.cost import measure, summarise_cost
from plait.evaluation.documents import open_examinations
from plait.evaluation.examination import Examinations
from plait.evaluation.features import FeatureSpace
from plait.evaluation.figures import DEFECTS, GAIN, MAIN, NO_SHARES, Record
from plait.evaluation.protocol import Evaluation, evaluate
from plait.evaluation.retention import keep_shares
from plait.evaluation.table import tabulate_run
from plait.protocols import Judge, Policy, World
from plait.rendering import Cell, contact_sheet, draw_sample, stack_samples, write_samples
from plait.samples import Sample
from plait.sequence.chat import ChatWording

ITEMS = "items.json"
SHOWN_SAMPLES = 12
SHEET_WIDTH, WHOLE_SAMPLES = 1300, 16
"""pixels of a sheet of whole samples, and how many it has"""
log = logging.getLogger(__name__)


def check_examination(*, n: int = 300, tuning_n: int = 96, batch_size: int = 256, kept_of: str | None = None) -> None:
    """Refuse to ask nothing, and an evaluation to compare with that is not there."""
    for name, number in {"n": n, "tuning_n": tuning_n, "batch_size": batch_size}.items():
        check_count(number, name)
    if kept_of is not None:
        read_items(kept_of)


@checked_by(check_examination)
def examine(
    *,
    model: Any,
    world: World,
    pictures: Pictures,
    folder: str,
    text_policy: Policy,
    prose_policy: Policy,
    image_policy: Policy,
    image_policies: Mapping[str, Policy],
    documents: Mapping[str, Sequence[Document]] | None = None,
    plan: Mapping[str, Sequence[str]] | None = None,
    kept_of: str | None = None,
    n: int = 300,
    tuning_n: int = 96,
    batch_size: int = 256,
    seed: int = 0,
    costs: Mapping[str, float] | None = None,
    features: FeatureSpace | None = None,
    sheet_cells: int = 48,
    name: str = "run",
) -> dict[str, float]:
    """Examine a model on a world.

    Args:
        text_policy: of captions and answers; `prose_policy` of stories.
        image_policy: of pictures, where nobody judges them.
        image_policies: candidates; the one that draws most val scenes rightly is used for every figure. Where the plan has nothing that is
            drawn or decoded, none is tried and the oracle is not calibrated.
        documents: what the run held out, worded as it learns them; None has the world's worded by the template.
        plan: split -> names of examinations; None asks what the world asks, or else what its documents have.
        kept_of: an evaluated run, or its evaluation, that this model was trained from: what is left of each of its figures is said.
        n: prompts per figure; `tuning_n` for each candidate.
        costs: what training recorded (tokens, seconds), reported beside the figures.
        features: the encoder of the distribution figures; None leaves them out.
        sheet_cells: pictures on a contact sheet.
        name: of the row in the table.

    Returns:
        The flat summary.

    Raises:
        RecipeError: the model reads and writes no documents, the plan names what there is not, or `kept_of` holds no evaluation or shares
            no figure.
        DocumentError: `kept_of` was examined on other items.
    """
    check_unified(model)
    place = Path(folder)
    base = None if kept_of is None else read_items(kept_of)
    examinations = open_examinations(world, next(iter((documents or {}).values()), ()))
    known, plan = examinations.examinations, examinations.plan if plan is None else plan
    policies = {"text": text_policy, "prose": prose_policy}
    bench = Bench(
        model, world, examinations.judge, pictures, policies | {"image": text_policy}, n=n, batch_size=batch_size, seed=seed
    )
    candidates = image_policies if examinations.judge is not None else {"image_policy": image_policy}
    with measure() as reading:
        chosen, choices = "none", {}
        if model.vision_tokenizer is not None:
            chosen, policies["image"] = next(iter(candidates.items()))
        draws = any(known[name].draws for names in plan.values() for name in names if name in known)
        if model.vision_tokenizer is not None and draws and examinations.judge is not None:
            choices["calibration"] = examinations.calibrate(bench)
            choice = examinations.choose(bench, candidates, tuning_n)
            log.info("image policy %r of %s (share of right val pictures)", choice.name, choice.shares)
            chosen, policies["image"] = choice.name, choice.policy
            choices["tuning"] = {"chosen": choice.name, "val_shares": choice.shares}
        found = evaluate(
            model,
            world,
            bench.judge,
            pictures,
            policies,
            n=n,
            plan=plan,
            batch_size=batch_size,
            seed=seed,
            examinations=examinations,
            is_calibrated=True,
            features=features,
            on_progress=log.info,
        )
    frame = model.builder.layout.drawn_frame
    cost = summarise_cost(model.parts, frame.length() if frame else 0).to_dict() | dict(costs or {})
    cost |= {"evaluation_duration_s": reading.duration_s, "evaluation_peak_memory_bytes": reading.peak_memory_bytes}
    items = list_items(found)
    if base is not None:
        kept = keep_shares(items, base, examinations.about.losses)
        found.results.update({key: figure.to_dict() for key, figure in kept.items() if figure.n})
        skipped = {key: {"prompts": f.skipped, "reason": f.reason} for key, f in kept.items() if f.skipped}
        found.facts["skipped"] |= skipped
    write_json(place / "evaluation.json", {"results": found.results, "facts": found.facts | choices, "cost": cost})
    summary = flatten(found, cost, chosen)
    write_json(place / "summary.json", summary)
    write_json(place / ITEMS, items)
    write_sheets(found, place, sheet_cells, getattr(model.template, "wording", None))
    write_table(tabulate_run(name, found.results, found.facts), place)
    return summary


def find_examinations(world: World, names: Sequence[str]) -> Examinations:
    """What a world asks, if it asks all of this.

    Raises:
        RecipeError: it does not.
    """
    found = open_examinations(world)
    missing = sorted(set(names) - set(found.examinations))
    if missing:
        raise RecipeError(
            f"The data of this run is a {type(world).__name__}, which asks {sorted(found.examinations)} and not {missing}. Expected "
            "examinations that it has. Next: name one of these, or take callbacks.gallery.draw=${gallery} for documents to be looked at."
        )
    return found


def require_judge(world: World) -> Judge:
    """The judge of a world's pictures.

    Raises:
        RecipeError: there is none.
    """
    judge = open_examinations(world).judge
    if judge is None:
        raise RecipeError(
            f"The data of this run is a {type(world).__name__}, of whose pictures nobody knows what is right: expected data with a judge. "
            "Next: plait-evaluate says what its documents say (losses, choices, answers), plait-generate draws."
        )
    return judge


def list_items(found: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Figure name -> its judged items in order: what was expected and found, the cluster, the scores."""
    items: dict[str, list[dict[str, Any]]] = {}
    for record in found.records:
        facts = {name: getattr(record, name) for name in ("expected", "found", "cluster")}
        facts |= {name: getattr(record, name) for name in ("asked", "part_of") if getattr(record, name)}
        items.setdefault(record.key, []).append({**facts, "scores": dict(record.scores)})
    return items


def read_items(folder: str) -> dict[str, list[dict[str, Any]]]:
    """The judged items of an evaluation, or of the last one of a run.

    Raises:
        RecipeError: there is none, or it is damaged.
    """
    place = Path(folder)
    paths = [path for pattern in ("", "evaluation/", "evaluation/*/") for path in sorted(place.glob(f"{pattern}{ITEMS}"))]
    if not paths:
        raise RecipeError(
            f"kept_of={folder} holds no {ITEMS}: expected the folder of a finished plait-evaluate, or of a run that was evaluated. Next: "
            f"plait-evaluate run={folder}"
        )
    try:
        return json.loads(paths[-1].read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{paths[-1]} is damaged: {error}. Expected what plait-evaluate wrote. Next: evaluate that model again."
        ) from error


def flatten(found: Evaluation, cost: Mapping[str, float], policy: str) -> dict[str, Any]:
    """Figure name -> value, with the interval, n and baselines under dotted names, and how many prompts were skipped; JSON-ready."""
    summary: dict[str, Any] = {}
    for key, figure in found.results.items():
        summary[key] = figure["value"]
        summary |= {f"{key}.{name}": figure[name] for name in ("low", "high", "n", "gap_closed") if name in figure}
        summary |= {f"{key}.{name}": value for name, value in figure["baselines"].items()}
    summary |= {f"{key}.skipped": skip["prompts"] for key, skip in found.facts.get("skipped", {}).items()}
    summary |= {f"cost/{name}": value for name, value in cost.items()}
    return summary | {"policy/image": policy}


def write_sheets(found: Evaluation, folder: Path, num_cells: int, wording: ChatWording | None = None) -> None:
    """A contact sheet per figure that has drawn pictures, and the interleaved samples of every figure as records and as a page. Where the
    model was given a picture, or drew several, the sheet shows its samples whole: what was given, what was asked, what was made.

    Args:
        wording: of the system (see `plait.samples.Sample`).
    """
    for key in Counter(record.key for record in found.records):
        records = found.select(key)
        if all(record.prompt is record.document for record in records):  # scored: the model has made nothing to look at
            continue
        name = key.replace("/", "-")
        for kind in ("sheets", "samples"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        samples = [to_sample(record, wording) for record in records[:num_cells]]
        if sheet := _draw_sheet(records[:num_cells], samples, f"{key}: {_spell_value(found, key)}"):
            sheet.quantize(256).save(folder / "sheets" / f"{name}.png")  # a third of the bytes of the page
        write_samples(samples[:SHOWN_SAMPLES], folder / "samples" / f"{name}.html", key, "The first items, not chosen")


def _draw_sheet(records: Sequence[Record], samples: Sequence[Sample], title: str) -> Image.Image | None:
    judged = []
    for record, sample in zip(records, samples, strict=True):
        if MAIN in record.scores:
            score = _read_score(record, MAIN, record.scores[MAIN])
            judged.append((record, sample, score if isinstance(score, bool) else None))
    if not any(record.scores for record in records):  # to be looked at: nobody says what is right
        judged = [(record, sample, None) for record, sample in zip(records, samples, strict=True)]
    if not any(_has_drawn(record) for record, _, _ in judged):
        return None
    if all(len(record.pictures) == 1 and record.scores for record, _, _ in judged):
        cells = [Cell(record.pictures[0], f"{record.expected} | {record.found}", right) for record, _, right in judged]
        return contact_sheet(cells, columns=8, title=title)
    drawn = [draw_sample(sample, width=SHEET_WIDTH, is_right=right) for _, sample, right in judged[:WHOLE_SAMPLES]]
    return stack_samples(drawn, title=title, width=SHEET_WIDTH + 20)


def _read_score(record: Record, name: str, value: float) -> bool | float:
    """Yes or no where an item was judged so; a share between them, a slope or what examples change is a number, whatever its value."""
    is_number = value not in (0, 1) or name in NO_SHARES or GAIN in record.key
    return float(value) if is_number else bool(value)


def _has_drawn(record: Record) -> bool:
    given = 0 if record.prompt is None else sum(not span.is_hole for span in record.prompt.images)
    return len(record.pictures) > given


def _spell_value(found: Evaluation, key: str) -> str:
    if key in found.results:
        return f"{found.results[key]['value']:.3f}"
    return "no figure" if any(record.scores for record in found.select(key)) else "not judged"


def to_sample(record: Record, wording: ChatWording | None = None) -> Sample:
    """A judged item as people look at it: yes/no scores as ticks, and what the judge expected and read. A tick is good, so defects are
    told by their opposite ("grammatical")."""
    pictures = {id(span): picture for span, picture in zip(record.document.images, record.pictures, strict=False)}
    scores = {}
    for name, value in record.scores.items():
        if name in DEFECTS:
            name, value = name.removeprefix("un"), 1.0 - value
        scores["right" if name == MAIN else name] = _read_score(record, name, value)
    read = {"expected": record.expected, "found": record.found}
    return Sample(
        record.document,
        lambda span: pictures.get(id(span)),  # drawn pictures of one document may share an id: the span decides
        {**scores, **(read if record.scores else {})},
        record.seed,
        record.prompt,
        record.key,
        wording,
    )
