"""The evaluation protocol: one call, every figure of every split, each beside its baselines, and the items behind them.

One sample per prompt; policies are chosen on val beforehand and printed with each figure; `n` prompts per figure where the split holds as
many different ones, else all, and the figure says how many. A judge is calibrated once, on reconstructions of training pictures, and never
again. What is asked is the world's affair (`examination.py`); where it asks nothing by itself, its documents are (`documents.py`).
The protocol knows systems only through `UnifiedModel`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from plait.data.filling import Pictures
from plait.errors import RecipeError
from plait.evaluation.bench import Bench, UnaskableError, describe_policies
from plait.evaluation.codebook import measure_codebooks
from plait.evaluation.documents import open_examinations
from plait.evaluation.examination import Examinations
from plait.evaluation.features import FeatureSpace
from plait.evaluation.figures import Figure, Record, skip
from plait.protocols import Judge, Policy, World


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        results: figure name -> `plait.evaluation.figures.Figure.to_dict`: value, interval, baselines, gap_closed and from where, lookup.
        records: every judged item, for sheets.
        facts: what holds for all figures: policies, oracle, codebook, seed, durations in seconds, the columns of the common table
            (`headlines`), what could not be asked (`skipped`: figure -> prompts and reason), what the figures say (`about`), and the
            `protocol`, without which two evaluations cannot be compared.
    """

    results: dict[str, dict[str, Any]]
    records: list[Record]
    facts: dict[str, Any] = field(default_factory=dict)

    def select(self, key: str) -> list[Record]:
        """The records behind one figure, such as "test_pair/two_objects"."""
        return [record for record in self.records if record.key == key]


def evaluate(
    model: Any,
    world: World,
    judge: Judge | None,
    pictures: Pictures,
    policies: Mapping[str, Policy],
    *,
    n: int = 300,
    plan: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 256,
    seed: int = 0,
    examinations: Examinations | None = None,
    is_calibrated: bool = False,
    features: FeatureSpace | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Examine a model on the splits of the world.

    Args:
        model: see `Bench`.
        judge: of pictures; None where nobody knows what is right.
        pictures: those of the world.
        policies: "text", "image" and, for stories, "prose" (see `Bench`).
        n: prompts per figure; some examinations take a part of them.
        plan: split -> names of examinations; None takes that of the examinations. What a model without pictures cannot be asked is counted
            as skipped.
        examinations: None takes those of the world.
        is_calibrated: the judge was calibrated on this tokenizer already.
        features: see `Bench`.
        on_progress: called with one line of text after each examination.

    Raises:
        RecipeError: the plan names an examination that does not exist.
    """
    examinations = open_examinations(world) if examinations is None else examinations
    plan = examinations.plan if plan is None else plan
    known = examinations.examinations
    unknown = sorted({name for names in plan.values() for name in names} - set(known))
    if unknown:
        raise RecipeError(f"The evaluation plan names {unknown}: expected examinations of {sorted(known)}.")
    bench = Bench(model, world, judge, pictures, policies, n=n, batch_size=batch_size, seed=seed, features=features)
    draws = model.vision_tokenizer is not None
    reads = draws or model.image_size is not None
    facts: dict[str, Any] = {"policies": describe_policies(policies), "n": n, "seed": seed, "durations_s": {}}
    facts |= {"headlines": [], "skipped": {}, "about": examinations.about.to_json()}
    if draws and not is_calibrated:
        facts["oracle"] = examinations.calibrate(bench)
    if draws and (names := examinations.training_pictures):
        facts["codebook"] = describe_codebook(bench, names)
    facts["protocol"] = describe_protocol(bench)
    blind = examinations.prepare(bench)
    results: dict[str, dict[str, Any]] = {}
    records: list[Record] = []
    for split, names in plan.items():
        for name in names:
            start = time.perf_counter()
            try:
                if known[name].needs_pictures and not (draws or (reads and not known[name].draws)):
                    raise UnaskableError(f"The model {'draws no' if reads else 'neither reads nor draws'} pictures.", n)
                figures, judged = known[name](replace(bench, n=-(-n // known[name].divisor)), blind, split)
            except UnaskableError as error:
                figures, judged = skip(f"{split}/{name}", error.num_prompts, str(error)), []
            duration = time.perf_counter() - start
            facts["durations_s"][f"{split}/{name}"] = duration
            results |= {key: figure.to_dict() for key, figure in figures.items() if figure.n}
            skipped = {key: figure for key, figure in figures.items() if figure.skipped}
            facts["skipped"] |= {key: {"prompts": f.skipped, "reason": f.reason} for key, f in skipped.items()}
            facts["headlines"] += [key for key in figures if examinations.about.is_headline(key)]
            records += judged
            on_progress(f"{_headline(f'{split}/{name}', figures)} [{duration:.1f} s]")
    return Evaluation(results, records, facts)


def describe_protocol(bench: Bench) -> dict[str, Any]:
    """How the figures were made, as far as it is not the model: two evaluations are comparable if this is equal (and the same items
    were asked, which `plait.evaluation.arms` checks)."""
    policies = {f"sampler_{name}": str(policy) for name, policy in sorted(bench.policies.items())}
    return {
        **policies,
        "guidance": list(bench.policies["image"].guidance_weights) if "image" in bench.policies else [],
        "n": bench.n,
        "seed": bench.seed,
        "data": bench.world.fingerprint(),
        **(bench.judge.describe() if bench.judge is not None else {}),
    }


def describe_codebook(bench: Bench, names: Sequence[str], num_pictures: int = 1000) -> dict[str, dict[str, float]]:
    """Health of the tokenizer's codebooks on pictures, so many of them at most."""
    chosen = names[:: max(1, len(names) // num_pictures)]
    health = measure_codebooks([bench.pictures.codes(name) for name in chosen], bench.model.vision_tokenizer.digit_sizes)
    return {name: asdict(value) for name, value in health.items()}


def _headline(name: str, figures: Mapping[str, Figure]) -> str:
    """The first figure of an examination in one line."""
    if not figures:
        return f"{name}: to be looked at"
    key, figure = next(iter(figures.items()))
    if not figure.n:
        return f"{key}: not asked of this model ({figure.reason})"
    skipped = f" skipped {figure.skipped}: {figure.reason}" if figure.skipped else ""
    baselines = ", ".join(f"{name} {value:.2f}" for name, value in figure.baselines.items())
    return f"{key} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] n={figure.n} ({baselines}){skipped}"
