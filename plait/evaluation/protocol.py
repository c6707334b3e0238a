"""The evaluation protocol: one call, every figure of every split, each beside its baselines, and the items behind them.

One sample per prompt; policies are chosen on val beforehand (`tuning.py`) and printed with each figure; `n` prompts per
figure where the split holds as many different ones, else all, and the figure says how many. The oracle is loosened once, on
reconstructions of training pictures, and never again. The protocol knows systems only through `UnifiedModel`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from plait.errors import RecipeError
from plait.evaluation.bench import Bench, Codes, UnaskableError, describe_policies
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.context import judge_context
from plait.evaluation.decay import judge_decay
from plait.evaluation.editing import judge_edits
from plait.evaluation.features import FeatureSpace
from plait.evaluation.figures import Figure, Record, skip
from plait.evaluation.generation import judge_generation
from plait.evaluation.glosses import judge_glosses
from plait.evaluation.instructions import judge_instructions
from plait.evaluation.interleaved import judge_stories, judge_told_stories
from plait.evaluation.lookup import SlotLookup
from plait.evaluation.reconstruction import calibrate_oracle, judge_reconstruction, measure_codebooks
from plait.evaluation.understanding import judge_captions, judge_questions
from plait.protocols import Policy
from plait.worlds.emoji.scenes import Scene
from plait.worlds.wordnet import WordNet, open_wordnet

Examination = Callable[[Bench, BlindAnswers, str], tuple[dict[str, Figure], list[Record]]]

EXAMINATIONS: Mapping[str, Examination] = {
    "reconstruction": judge_reconstruction,
    "one_object": partial(judge_generation, num_things=1),
    "two_objects": partial(judge_generation, num_things=2),
    "captions": partial(judge_captions, task="two_objects"),
    "captions_one_object": partial(judge_captions, task="one_object"),
    "vqa": lambda bench, blind, split: judge_questions(bench, split, lookup=blind.lookup),
    "dense_vqa": lambda bench, blind, split: judge_questions(bench, split, "dense_vqa"),  # of a world with dense pictures
    "edits": judge_edits,
    "stories": judge_stories,
    "stories_told": judge_told_stories,
    "interleaved": judge_decay,
    "context": judge_context,
    "instructions": judge_instructions,
    "glosses": judge_glosses,
}
TEXT_EXAMINATIONS = ("glosses",)
"""examinations that need no pictures: all that a language model without any can take"""
WRITTEN_EXAMINATIONS = ("captions", "captions_one_object", "vqa", "dense_vqa", *TEXT_EXAMINATIONS)
"""examinations that judge what is written alone: for them no picture is drawn or decoded"""

LONG_EXAMINATIONS = ("interleaved", "context")
"""examinations whose prompts are sequences of many pictures: they take a third of the prompts (one of `interleaved` draws eight pictures,
one of `context` reads up to five), and their figures say how many"""

HEADLINES = (
    *EXAMINATIONS,
    *("stories_grammar", "stories_agreement", "interleaved_slope"),
    *("context_0", "context_2", "context_4", "context_gain", "instructions_english"),
    *("bits_per_byte", "bits_per_byte_kept", "gloss_choice", "gloss_choice_kept"),
)
"""figures that are columns of the common table, wherever a split has them"""

_EVERYWHERE = ("reconstruction", "two_objects", "captions", "vqa", "edits")
DEFAULT_PLAN: Mapping[str, Sequence[str]] = {
    "val": ("one_object", *_EVERYWHERE),
    # no scene of one object is of this split
    "test_pair": (*_EVERYWHERE, "stories", "stories_told", "interleaved", "context", "instructions"),
    "test_combo": ("one_object", *_EVERYWHERE, "captions_one_object"),
}
"""split -> examinations; what costs most (stories, sequences) once, on the split that the claims are about"""
TEXT_PLAN: Mapping[str, Sequence[str]] = {"held_out": TEXT_EXAMINATIONS}
"""the same for the texts of WordNet, whose splits are its own"""

NUM_TRAINING_SCENES = 2000


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        results: figure name -> `plait.evaluation.figures.Figure.to_dict`: value, interval, baselines, gap_closed and from where, lookup.
        records: every judged item, for sheets.
        facts: what holds for all figures: policies, oracle, codebook, seed, durations in seconds, the columns of the common table
            (`headlines`), what could not be asked (`skipped`: figure -> prompts and reason), and the `protocol`, without which two
            evaluations cannot be compared.
    """

    results: dict[str, dict[str, Any]]
    records: list[Record]
    facts: dict[str, Any] = field(default_factory=dict)

    def select(self, key: str) -> list[Record]:
        """The records behind one figure, such as "test_pair/two_objects"."""
        return [record for record in self.records if record.key == key]


def evaluate(
    model: Any,
    world: Any,
    oracle: Any,
    codes: Codes,
    policies: Mapping[str, Policy],
    *,
    n: int = 300,
    plan: Mapping[str, Sequence[str]] = DEFAULT_PLAN,
    batch_size: int = 256,
    seed: int = 0,
    wordnet: Callable[[], WordNet] = open_wordnet,
    is_calibrated: bool = False,
    features: FeatureSpace | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Examine a model on the splits of the world.

    Args:
        model: see `Bench`.
        oracle: a `plait.evaluation.verifier.Oracle`.
        codes: image id -> code grids of the model's tokenizer.
        policies: "text", "image" and, for stories, "prose" (see `Bench`).
        n: prompts per figure; `LONG_EXAMINATIONS` take a third.
        plan: split -> names of examinations. A model without pictures takes `TEXT_EXAMINATIONS` alone, the rest is counted as skipped.
        wordnet: opens WordNet, for those that ask for it.
        is_calibrated: the oracle was calibrated on this tokenizer already.
        features: see `Bench`.
        on_progress: called with one line of text after each examination.

    Raises:
        RecipeError: the plan names an examination that does not exist.
    """
    unknown = sorted({name for names in plan.values() for name in names} - set(EXAMINATIONS))
    if unknown:
        raise RecipeError(f"The evaluation plan names {unknown}: expected examinations of {sorted(EXAMINATIONS)}.")
    bench = Bench(
        model, world, oracle, codes, policies, n=n, batch_size=batch_size, seed=seed, wordnet=wordnet, features=features
    )
    has_pictures = model.vision_tokenizer is not None
    training = list_training_scenes(world)
    facts: dict[str, Any] = {"policies": describe_policies(policies), "n": n, "seed": seed, "durations_s": {}}
    facts |= {"headlines": [], "skipped": {}}
    if has_pictures and not is_calibrated:
        facts["oracle"] = asdict(calibrate_oracle(bench))
    if has_pictures:
        facts["codebook"] = describe_codebook(bench)
    facts["protocol"] = describe_protocol(bench)
    blind = BlindAnswers(training, lookup=SlotLookup.of(bench, training))
    results: dict[str, dict[str, Any]] = {}
    records: list[Record] = []
    for split, names in plan.items():
        for name in names:
            start = time.perf_counter()
            try:
                if not has_pictures and name not in TEXT_EXAMINATIONS:
                    raise UnaskableError("The model neither reads nor draws pictures.", n)
                own = replace(bench, n=-(-n // 3)) if name in LONG_EXAMINATIONS else bench
                figures, judged = EXAMINATIONS[name](own, blind, split)
            except UnaskableError as error:
                figures, judged = skip(f"{split}/{name}", error.num_prompts, str(error)), []
            duration = time.perf_counter() - start
            facts["durations_s"][f"{split}/{name}"] = duration
            results |= {key: figure.to_dict() for key, figure in figures.items() if figure.n}
            skipped = {key: figure for key, figure in figures.items() if figure.skipped}
            facts["skipped"] |= {key: {"prompts": f.skipped, "reason": f.reason} for key, f in skipped.items()}
            facts["headlines"] += [key for key in figures if key.partition("/")[2] in HEADLINES]
            records += judged
            on_progress(f"{_headline(figures)} [{duration:.1f} s]")
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
        "rejected_beyond": asdict(bench.oracle.thresholds),
    }


def list_training_scenes(world: Any, num_scenes: int = NUM_TRAINING_SCENES) -> list[Scene]:
    """Scenes of the training split as they occur there, so many of each kind."""
    scenes = []
    for task in ("one_object", "two_objects"):
        source = world.source(task, "train")
        scenes += [Scene.from_json(source[index].meta["scene"]) for index in range(min(num_scenes, len(source)))]
    return scenes


def describe_codebook(bench: Bench, num_pictures: int = 1000) -> dict[str, dict[str, float]]:
    """Health of the tokenizer's codebooks on training pictures."""
    names = bench.world.image_ids("train", "scenes")
    chosen = names[:: max(1, len(names) // num_pictures)]
    health = measure_codebooks([bench.codes(name) for name in chosen], bench.model.vision_tokenizer.digit_sizes)
    return {name: asdict(value) for name, value in health.items()}


def _headline(figures: Mapping[str, Figure]) -> str:
    """The first figure of an examination in one line."""
    key, figure = next(iter(figures.items()))
    if not figure.n:
        return f"{key}: not asked of this model ({figure.reason})"
    skipped = f" skipped {figure.skipped}: {figure.reason}" if figure.skipped else ""
    baselines = ", ".join(f"{name} {value:.2f}" for name, value in figure.baselines.items())
    return f"{key} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] n={figure.n} ({baselines}){skipped}"
