"""What a composed config must not say, found by reading it: keys that nobody reads, and trained parts where a recipe starts from nothing.

What is passed to a constructor is compared with its arguments in instantiate.py. It does not know which recipes or nodes exist.
"""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from plait.errors import RecipeError

KEY = re.compile(r"\$\{(?:[\w.]+:)?([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
"""Node and key of a reference: of ${objective.weights}, ${part_of:model.builder}."""
MENTION = re.compile(r"[{:]([A-Za-z_]\w*)")
"""The first word of a reference: of ${model}, ${paths.folder}, ${part_of:model.builder}, ${budget.${job_type}.max_steps}."""
READ_BY_PART = ("base", "base_command")
"""Nodes whose keys are the parts of the model."""
READERS = ("from_pretrained", "from_folder", "load")
"""How functions are called that read trained weights."""


def check_config(raw: Mapping[str, Any]) -> None:
    """Both checks.

    Args:
        raw: plain containers, references as they were composed.

    Raises:
        RecipeError: see `check_keys` and `check_untrained`.
    """
    check_keys(raw)
    check_untrained(raw)


def check_keys(raw: Mapping[str, Any]) -> None:
    """Refuse an unknown key in a node that is read key by key, as ${objective.weights}: it has no `_target_`, and nothing takes it
    whole. Its known keys are those that a config of plait or this one refers to.

    Raises:
        RecipeError: names key and node, and the keys there are.
    """
    text = json.dumps(raw)
    own, shipped = find_keys(text), _shipped_keys()
    for name in sorted(shipped.keys() & raw.keys() - {*READ_BY_PART}):
        node = raw[name]
        is_taken_whole = f"{{{name}}}" in text or f"{{{name}.$" in text
        if not isinstance(node, Mapping) or "_target_" in node or is_taken_whole:
            continue
        known = shipped[name] | own.get(name, set())
        for key in node:
            if key not in known:
                close = get_close_matches(str(key), known, n=1)
                hint = f"did you mean {name}.{close[0]}?" if close else "take it out."
                raise RecipeError(
                    f"{name}.{key}={node[key]}: nothing reads this key. Expected one of {', '.join(sorted(known))} in {name}. "
                    f"Next: {hint}"
                )


def check_untrained(raw: Mapping[str, Any]) -> None:
    """Refuse an option that has been trained for a node that the recipe trains `from_nothing`.

    Raises:
        RecipeError: see above.
    """
    for name in raw.get("from_nothing") or ():
        node = raw.get(name) or {}
        target = str(node.get("_target_"))
        if target.rpartition(".")[2] in READERS or node.get("is_pretrained"):
            raise RecipeError(
                f"{raw['name']} trains its {name} from nothing, and {name} is that of {target}, which has been trained. Expected an "
                f"option that is built from a config, such as {name}=small. Next: leave {name}=... out here; a recipe that goes on "
                f"from a trained {name} takes it as it is."
            )


def collect_nodes(raw: Mapping[str, Any], start: Sequence[str], leave_out: Sequence[str] = ()) -> set[str]:
    """The top nodes of an unresolved config that some of them refer to, directly or through others."""
    names, found = set(), {name for name in start if name in raw}.difference(leave_out)
    while found:
        names |= found
        mentioned = MENTION.findall(json.dumps([raw[name] for name in found]))
        found = {name for name in mentioned if name in raw}.difference(names, leave_out)
    return names


def find_keys(text: str) -> dict[str, set[str]]:
    """node -> its keys that a text refers to."""
    found: dict[str, set[str]] = {}
    for name, key in KEY.findall(text):
        found.setdefault(name, set()).add(key)
    return found


@cache
def _shipped_keys() -> dict[str, set[str]]:
    folder = Path(str(files("plait.conf")))
    return find_keys("\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))))
