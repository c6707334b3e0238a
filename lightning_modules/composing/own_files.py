"""What a user writes in a config file of their own is used or refused, as what is written on the command line.

Hydra composes files in an order, and a later one wins without a word: an experiment's value under a key that `scale` sets as well, a choice
of a group that another file has made before, keys under a package that nobody reads because the first line was forgotten. Here every
key and every choice of a file that is not plait's own is compared with the composed config. What the command line decided is the
user's last word, a scale or debug option named there included. It does not know what the keys mean.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lightning_modules.composing.config_checks import MENTION, collect_nodes
from plait.errors import RecipeError

SHIPPED = ("pkg://plait.conf", "pkg://hydra.conf", "structured://")
LAST_WORDS = ("scale", "sizes", "debug")
"""Groups that change recipes on purpose where the command line asks for them."""
FOR_MANY_JOBS = ("scale", "sizes", "paths", "sources")
"""Groups whose files speak to several jobs at once: not every key concerns each of them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    """One file of the defaults list, with the keys that it sets in the whole config."""

    name: str
    package: str
    is_own: bool
    is_asked_for: bool
    keys: dict[str, Any]
    choices: dict[str, str | None]
    usual_package: str

    @property
    def group(self) -> str:
        return self.name.rpartition("/")[0].partition("/")[0]


def check_command(config: DictConfig) -> None:
    """`check_files` of the running command, and that it asks for one thing; nothing where there is none."""
    if HydraConfig.initialized() and GlobalHydra.instance().is_initialized():
        settings = HydraConfig.get()
        asked = {group: name for group in ("experiment", "curriculum") if (name := settings.runtime.choices.get(group))}
        if len(asked) > 1:
            raise RecipeError(
                f"{' and '.join(f'{group}={name}' for group, name in asked.items())}: expected one of them, a recipe or a curriculum, "
                "whose stages have recipes of their own. Next: leave one out."
            )
        check_files(config, settings.job.config_name, [*settings.overrides.task, *settings.overrides.hydra])


def check_files(config: DictConfig, name: str, overrides: list[str]) -> None:
    """Compare the user's own files with the config that was composed of them.

    Args:
        config: as composed.
        name: of the command's config.
        overrides: of the command line.

    Raises:
        RecipeError: a key or a choice of a file is not used; it names the file, the key, and what is used instead.
    """
    loader = GlobalHydra.instance().config_loader()
    listed = loader.compute_defaults_list(name, overrides, RunMode.RUN)
    typed, files_there = loader._parse_overrides_and_create_caching_repo(name, overrides)  # with hydra.searchpath
    asked = {group for group, facts in listed.overrides.override_metadata.items() if facts.external_override}
    files = [file for default in listed.defaults if (file := _read(files_there, default, asked)) is not None]
    own = [(number, file) for number, file in enumerate(files) if file.is_own]
    if not own:
        return
    raw = OmegaConf.to_container(config, resolve=False)
    said = [item.key_or_group for item in typed]
    for number, file in own:
        _check_choices(file, listed.overrides, asked)
        _check_readers(file, raw, files)
        for key, value in file.keys.items():
            if _find(raw, key) != value and not any(_touches(key, word) for word in said):
                _check_winner(file, key, value, _find(raw, key), files[number + 1 :])


def _read(files_there: Any, default: Any, asked: set[str]) -> _File | None:
    loaded = files_there.load_config(default.config_path) if default.config_path is not None else None
    if loaded is None:
        return None
    _refuse_namesake(files_there, default.config_path, str(loaded.path))
    content = OmegaConf.to_container(loaded.config, resolve=False)
    package = default.package or ""
    group = default.config_path.rpartition("/")[0]
    is_asked_for = _is_last_word(default.config_path, asked)
    choices = {
        item.group.lstrip("/"): item.value
        for item in loaded.defaults_list or ()
        if getattr(item, "override", False) and item.group
    }
    own = not str(loaded.path).startswith(SHIPPED)
    keys = {key: value for key, value in _iterate_leaves(content, package) if key.partition(".")[0] != "hydra"}
    return _File(
        default.config_path, package, own, is_asked_for, keys, choices, _usual_package(files_there, group) if own else ""
    )


def _is_last_word(name: str, asked: set[str]) -> bool:
    root = name.partition("/")[0]
    return root in LAST_WORDS and ("scale" if root == "sizes" else root) in asked


def _refuse_namesake(files_there: Any, name: str, used: str) -> None:
    for source in files_there.get_sources():
        if not source.full_path().startswith(SHIPPED) and source.full_path() != used and source.is_config(name):
            raise RecipeError(
                f"{name}.yaml is in {source.full_path()} and in {used}, and only the latter is read. Expected a name of its own for a file "
                "of your own. Next: rename it."
            )


def _usual_package(files_there: Any, group: str) -> str:
    """The package that plait's files of a group name in their first line; empty where they name none."""
    for option in files_there.get_group_options(group) if group else ():
        loaded = files_there.load_config(f"{group}/{option}")
        if loaded is not None and str(loaded.path).startswith(SHIPPED):
            return loaded.header.get("package") or ""
    return ""


def _check_choices(file: _File, found: Any, asked: set[str]) -> None:
    for group, value in file.choices.items():
        used = found.known_choices.get(group, value)
        if used == value or group in asked:
            continue
        winner = getattr(found.override_metadata.get(group), "containing_config_path", None) or "another file"
        if _is_last_word(winner, asked):
            log.info("%s.yaml chooses %s=%s; %s, which was asked for, chooses %s", file.name, group, value, winner, used)
            continue
        raise RecipeError(
            f"{file.name}.yaml chooses {group}={value}, but {winner} chooses {group}={used}, which is taken. "
            f"Expected one choice of a group. Next: give {group}={value} on the command line, or leave it out of the file."
        )


def _check_readers(file: _File, raw: Mapping[str, Any], files: list[_File]) -> None:
    """Refuse a node that no shipped file has and nothing refers to, and one that this job does not build."""
    known = {key.partition(".")[0] for other in files if not other.is_own for key in other.keys}
    mentioned = set(MENTION.findall(json.dumps(raw)))
    plain = [name for name, node in raw.items() if not (isinstance(node, Mapping) and "_target_" in node)]
    reached = collect_nodes(raw, ["job", *plain])
    for key in file.keys:
        top = key.partition(".")[0]
        if top not in known | mentioned:
            close = get_close_matches(top, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "take it out."
            if file.package and top == file.package.partition(".")[0]:
                hint = f"make `# @package {file.usual_package or '_global_'}` the first line of {file.name}.yaml."
            raise RecipeError(
                f"{file.name}.yaml sets {key}, and nothing reads {top}. Expected keys of the config (`--cfg job` shows them). Next: {hint}"
            )
        if top not in reached and file.group not in FOR_MANY_JOBS:
            raise RecipeError(
                f"{file.name}.yaml sets {key}, and nothing in this job reads {top}. Expected keys of what the job is made of"
                f"{': a curriculum takes overrides for its stages' if 'stages' in (raw.get('job') or {}) else ''}. Next: take it out."
            )


def _check_winner(file: _File, key: str, value: Any, used: Any, later: list[_File]) -> None:
    winners = [other for other in later if any(_touches(key, set_) for set_ in other.keys)]
    winner = winners[-1] if winners else None
    if winner is not None and winner.is_own:
        return
    if winner is not None and winner.is_asked_for:
        log.info("%s.yaml sets %s: %s; %s, which was asked for, sets %s", file.name, key, value, winner.name, used)
        return
    who = winner.name if winner is not None else "what comes after it"
    raise RecipeError(
        f"{file.name}.yaml sets {key}: {value}, but {who}, which comes after it, makes it {used}: the value of the file would not be used. "
        f"Expected a key that nothing later sets. Next: give {key}={value} on the command line"
        f"{f', or a {winner.group} of your own (a file {winner.group}/<name>.yaml beside it)' if winner and winner.group else ''}."
    )


def _iterate_leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _iterate_leaves(value, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, node


def _find(raw: Mapping[str, Any], key: str) -> Any:
    node: Any = raw
    for word in key.split("."):
        if not isinstance(node, Mapping) or word not in node:
            return None
        node = node[word]
    return node


def _touches(key: str, other: str) -> bool:
    """Whether one of two keys lies in the other."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")
