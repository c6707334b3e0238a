"""What a run that goes on has in another form than the run had before: found, listed, and refused where it would falsify the record.

Metrics, cost and passport of a run speak of one recipe. So what decides what is learned (data, model, optimiser, schedule, seed, batch,
number of steps, precision) may not change under a run without a word: it is refused, unless it is named in `resume.changes`; then the
run's record says what was used from which step on. What only decides where and how often things are written, and on which devices, may
change and is written down as well. It knows the names of nodes that never decide what is learned, and no others.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from plait.errors import RecipeError

Changes = dict[str, tuple[Any, Any]]
"""key -> (before, now); `ABSENT` where there is none"""

ABSENT = "(absent)"
LEFT_OUT = ("job", "base", "base_command", "checkpoint", "facts", "resume")
"""Nodes that repeat others or say how the job was started; what it starts from is compared by its weights."""
HARMLESS = (
    "paths.*",
    "logger.*",
    "group",
    "tags",
    "evaluation.*",
    "*policy.*",
    "*policies.*",
    "loaders.num_workers",
    "loaders.pin_memory",
    *(
        f"trainer.{name}"
        for name in (
            "accelerator",
            "devices*",
            "num_nodes*",
            "strategy*",
            "log_every_n_steps",
            "val_check_interval*",
            "check_val_every_n_epoch",
            "num_sanity_val_steps",
            "enable_*",
            "profiler*",
            "detect_anomaly",
            "default_root_dir",
            "max_time",
        )
    ),
)
"""Keys that decide where and how often something is written, on what it is computed, and how samples are drawn."""
ACTORS = (
    "lightning_modules.callbacks.moving_average.",
    "lightning_modules.callbacks.stop_when.",
    "lightning.pytorch.callbacks.EMA",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.GradientAccumulationScheduler",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.StochasticWeightAveraging",
    "lightning.pytorch.callbacks.WeightAveraging",
)
"""Callbacks that act on the weights or end the training; any other one looks on, and its change is written down."""
REFERENCE = re.compile(r"^\$\{([A-Za-z_]\w*(?:\.\w+)*)\}$")
MENTIONED = re.compile(r"[{,:\s]([A-Za-z_]\w*(?:\.\w+)+)(?=[},\s])|\$\{([A-Za-z_]\w*)\}")


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any], raw: Mapping[str, Any]) -> Changes:
    """Every key whose value differs, under the name at which it is set: what follows from another change is not listed again.

    Args:
        before, now: resolved configs.
        raw: the config of now as it was composed.
    """
    first, second = (dict(_iterate_leaves(_plain(config))) for config in (before, now))
    found: Changes = {}
    for path in sorted(first.keys() | second.keys()):
        if path.partition(".")[0] in LEFT_OUT or first.get(path, ABSENT) == second.get(path, ABSENT):
            continue
        found[_trace(path, raw)[0]] = (first.get(path, ABSENT), second.get(path, ABSENT))
    return {path: pair for path, pair in found.items() if not _follows(path, found, raw)}


def is_harmless(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a change of this key cannot change what is learned."""
    if key.startswith("callbacks."):
        nodes = [(config.get("callbacks") or {}).get(key.split(".")[1]) or {} for config in (before, now)]
        return not any(str(node.get("_target_", "")).startswith(ACTORS) for node in nodes)
    return any(fnmatchcase(key, pattern) for pattern in HARMLESS)


def check_changes(changes: Changes, harmless: Sequence[str], named: Sequence[str], where: str) -> None:
    """Refuse what would falsify the record and was not named.

    Args:
        named: keys or nodes of `resume.changes`.
        where: what the run goes on from.

    Raises:
        RecipeError: lists every such change.
    """
    wrong = {key: pair for key, pair in changes.items() if key not in harmless and not _is_named(key, named)}
    if wrong:
        listed = "\n".join(f"- {spell(key, pair)}" for key, pair in wrong.items())
        raise RecipeError(
            f"{where} was made with another recipe than it is to go on with:\n{listed}\nExpected the settings of the run, so that what it "
            f"says of itself stays true. Next: take the settings back, start a run of its own (another paths.folder), or name what may "
            f"change from here on: 'resume.changes=[{','.join(wrong)}]'."
        )


def spell(key: str, pair: Sequence[Any]) -> str:
    """One change in a line."""
    old, new = (value if isinstance(value, str) else json.dumps(value) for value in pair)
    return f"{key}: {old} -> {new}"


def _is_named(key: str, named: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in named)


def _plain(config: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(config, default=str))


def _iterate_leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Lists are leaves: two of different length have no places in common."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _iterate_leaves(value, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, node


def _trace(path: str, raw: Mapping[str, Any]) -> tuple[str, Any]:
    """The path at which a value is set, and what is written there: references to nodes and values are followed."""
    for _ in range(20):
        node: Any = raw
        words = path.split(".")
        for number, word in enumerate(words):
            if not isinstance(node, Mapping) or word not in node:
                return path, None
            node = node[word]
            if isinstance(node, str) and (reference := REFERENCE.match(node)):
                path = ".".join([reference[1], *words[number + 1 :]])
                break
        else:
            return path, node
    return path, None


def _follows(path: str, found: Changes, raw: Mapping[str, Any]) -> bool:
    """Whether a value is put together from others of which one has changed."""
    _, written = _trace(path, raw)
    if not isinstance(written, str) or "${" not in written:
        return False
    mentioned = {_trace(one or other, raw)[0] for one, other in MENTIONED.findall(written)}
    return any(name != path and name in found for name in mentioned)
