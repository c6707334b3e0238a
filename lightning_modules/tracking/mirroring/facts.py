"""What W&B is told of a job before it begins: id, name, group, tags, notes and config, kept in mirror.json of the run folder.

A name tells the jobs of a sweep apart by the values that were swept. What W&B refuses is refused here by our own words before anything
is built; names that were put together here and are too long end in a hash. Values of environment variables that look like secrets
never leave: they are replaced by the name of the variable. It does not know what a job does.
"""

import hashlib
import os
import re
import secrets
import shlex
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.tracking.mirroring.record import MIRROR_FILE, read_json
from plait.errors import RecipeError

LONGEST = {"project": 128, "name": 128, "group": 128, "job_type": 64, "tags": 64}
"""characters that W&B takes (wandb.Settings; names and groups: what its server takes)"""
FORBIDDEN = {"project": "/\\#?%:", "run_id": ":;,#?/'"}
SECRET = re.compile(r"token|secret|passw|jwt|api_?key|credential|private|signature", re.IGNORECASE)
"""names of environment variables whose values must not leave"""
SHORTEST_SECRET = 6


def check_names(*, project: Any, name: Any = None, group: Any = None, job_type: Any = None, tags: Any = (), **_: Any) -> None:
    """Refuse what W&B would refuse, offline too: an offline run is sent one day.

    Raises:
        RecipeError: naming the value, its length or its characters.
    """
    found = {"project": [project], "name": [name], "group": [group], "job_type": [job_type], "tags": list(tags or ())}
    for key, values in found.items():
        for value in values:
            if value is None and key != "project":
                continue
            text, where = str(value), "tags" if key == "tags" else f"logger.wandb.{key}"
            wrong = sorted({char for char in text if char in FORBIDDEN.get(key, "") or not char.isprintable()})
            if not value or not text.strip() or wrong or len(text) > LONGEST[key]:
                finding = f"has {len(text)} characters" if len(text) > LONGEST[key] else f"holds {', '.join(map(repr, wrong))}"
                raise RecipeError(
                    f"W&B: {where}={_cut(text)!r} {finding if text.strip() else 'is empty'}. Expected 1 to {LONGEST[key]} printable "
                    f"characters{' without ' + ' '.join(FORBIDDEN[key]) if key in FORBIDDEN else ''}. Next: change it, or leave W&B "
                    "out with logger=none."
                )


def is_online(offline: bool) -> bool | None:
    """Whether a run is sent while it goes on; None where W&B is switched off. The variable WANDB_MODE wins over the config.

    Raises:
        RecipeError: the variable says something that W&B does not know.
    """
    mode = os.environ.get("WANDB_MODE") or ("offline" if offline else "online")
    known = {"online": True, "run": True, "shared": True, "offline": False, "dryrun": False, "disabled": None}
    if mode not in known:
        raise RecipeError(f"WANDB_MODE={mode}: expected online, offline or disabled. Next: set it anew, or unset it.")
    return known[mode]


def check_login() -> None:
    """Refuse to send runs for somebody whom W&B cannot know.

    Raises:
        RecipeError: there is no API key here, or one that cannot be right.
    """
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth

    settings = wandb_setup.singleton().settings
    key = os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=settings.base_url) or settings.api_key
    if not key and not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        raise RecipeError(
            f"W&B: logger=online, and nobody is logged in to {settings.base_url} here. Expected an account. Next: `wandb login`, or "
            "logger=offline (plait-sync sends it later), or logger=none."
        )
    if key and (problem := wbauth.check_api_key(key)):
        raise RecipeError(f"W&B: the API key is not one: {problem} Expected that of an account. Next: `wandb login --relogin`.")


def name_run(name: str, swept: Mapping[str, Any]) -> str:
    """The name of a run: that of its recipe or stage, and what was swept."""
    return shorten(" ".join([name, *(f"{key}={value}" for key, value in swept.items())]), LONGEST["name"])


def tag_run(tags: Iterable[Any], swept: Mapping[str, Any]) -> list[str]:
    """Tags of the recipe, and one per swept value."""
    made = (shorten(f"{key}={value}", LONGEST["tags"]) for key, value in swept.items())
    return list(dict.fromkeys([*map(str, tags), *made]))


def shorten(text: str, length: int) -> str:
    """A text of at most `length` characters; one that was longer ends in … and a hash of the whole, so that two stay two."""
    text = "".join(char if char.isprintable() else " " for char in text)
    if len(text) <= length:
        return text
    mark = f"…{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text[: length - len(mark)] + mark


def check_run_id(named: str) -> None:
    """Refuse what W&B takes for no id.

    Raises:
        RecipeError: WANDB_RUN_ID holds it.
    """
    if named != named.strip() or len(named) > 64 or any(char in FORBIDDEN["run_id"] for char in named):
        raise RecipeError(
            f"WANDB_RUN_ID={_cut(named)!r}: expected at most 64 characters, none of {FORBIDDEN['run_id']} and no space around them. "
            "Next: set it anew, or unset it."
        )


def choose_id(folder: Path, part: str | None, is_training: bool) -> str:
    """The id of a run: that of the run folder, whose resumes are one run of W&B; otherwise a new one. WANDB_RUN_ID names a training
    that is the only job of its command (W&B's agent sets it so); of several jobs each gets its own from it.

    Args:
        part: what tells this job from others of its command; None where it is the only one.

    Raises:
        RecipeError: the variable holds what W&B does not take.
    """
    known = read_json(folder / MIRROR_FILE).get("id")
    if isinstance(known, str) and known:
        return known
    named = os.environ.get("WANDB_RUN_ID", "")
    check_run_id(named)
    if named and part is None and is_training:
        return named
    if named and part is not None:
        return shorten(f"{named}-{re.sub(r'[^A-Za-z0-9_.=-]+', '-', part)}", 128)
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def spell_command(arguments: Sequence[str] | None = None) -> str:
    """The command that this process was started by, as it would be typed."""
    arguments = sys.argv if arguments is None else arguments
    path = Path(arguments[0]) if arguments else Path()
    if "ipykernel" in path.name or not path.name:
        return "from a notebook"
    name = f"plait-{path.stem}" if path.parent.name == "commands" else path.name
    return shlex.join([name, *arguments[1:]])


def flatten_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """key -> value of the overrides of a job, as it was typed (numbers and lists as such); a key that was left out is None."""
    flat: dict[str, Any] = {}
    for item in overrides:
        key, is_set, value = item.partition("=")
        try:
            flat[key.lstrip("+~")] = yaml.safe_load(value) if is_set else None
        except yaml.YAMLError:
            flat[key.lstrip("+~")] = value
    return flat


def find_parents(parents: Mapping[str, str], base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """part -> identity of the weights that the job starts from, the folder, and the id of their run in W&B (None: not known).

    Args:
        parents: part -> identity.
        base: part -> run folder or checkpoint.
    """
    found = {}
    for part, identity in parents.items():
        place = Path(str(base.get(part)))
        run = place.parent.parent if place.parent.name == "checkpoints" else place
        found[part] = {"identity": identity, "folder": str(run), "run": read_json(run / MIRROR_FILE).get("id")}
    return found


def count_parameters(ledger: Mapping[str, Any]) -> dict[str, int]:
    """part -> parameters of a ledger.json, with those of all and those that train."""
    counts: dict[str, int] = {}
    for row in ledger.get("rows", ()):
        counts[row["part"]] = counts.get(row["part"], 0) + row["parameters"]
    if counts:
        counts |= {"all": ledger["parameters"], "trained": ledger["trainable_parameters"]}
    return counts


def mask(value: Any) -> Any:
    """The same containers without the values of environment variables that look like secrets."""
    if isinstance(value, Mapping):
        return {str(key): mask(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    if isinstance(value, str):
        for name, hidden in os.environ.items():
            if len(hidden) >= SHORTEST_SECRET and SECRET.search(name) and hidden in value:
                value = value.replace(hidden, f"<{name}>")
        return value
    return value if isinstance(value, bool | int | float | None) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
