"""Config -> objects: one node, one object; nothing outside an allow-list is ever imported.

A node with `_target_` names a class, a function or a class method; the other keys are its keyword arguments (lists arrive as
tuples). Three rules beside those that Hydra users know (`_partial_`, `_args_`):

- A reference to a whole node, `${model}`, is *that object*: it is built once per job and shared. So the data, the callbacks and
  the model of a job can speak of the same tokenizer without a global.
- `${part_of:model.builder}` is the attribute `builder` of the object `${model}`, for what exists only once a model is built.
- A target must lie under an allowed root, checked for the whole config before the first import, and must be *defined* there
  (`plait.document.json.loads` is refused). Hydra 1.3.8 forbids a list of names instead; `torch.load`, `pip.main` and
  `urllib.request.urlopen` pass it. From other people's packages only classes of the listed modules are taken.

This file does not know which nodes exist or what they are for. Your own package joins with `PLAIT_IMPORT_ROOTS=mylab`, set by
the person who starts the process, never by a config.
"""

import dataclasses
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_modules.composing.arguments import CHECK, LATER, check_arguments
from lightning_modules.composing.published import find_published
from lightning_modules.processes.ranks import choose_root
from plait.errors import PlaitError, RecipeError

OWN_ROOTS = ("plait", "lightning_modules")
CLASS_ROOTS = (
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.optim",
)
"""From these only classes are taken, and they are the only third-party modules that a config may name."""

UNSET = re.compile(r"[Mm]issing mandatory value: ([\w.]+)")
REFERENCE = re.compile(r"^\$\{(part_of:)?([A-Za-z_][\w.]*)\}$")
# When a config is printed with --resolve there are no objects yet: the reference stands for itself.
OmegaConf.register_new_resolver("part_of", lambda reference: f"<{reference}>", replace=True)
OmegaConf.register_new_resolver("choose_root", choose_root, replace=True)
OmegaConf.register_new_resolver("published", find_published, replace=True)
CONTROL_KEYS = {"_target_", "_partial_", "_args_"}


class Assembly:
    """The objects of one job.

    Args:
        config: the composed config; checked as a whole here, before anything is imported.
        given: path -> object that stands for the node at that path (a tokenizer loaded from its checkpoint, for example).

    Raises:
        RecipeError: a target lies outside the allowed roots.
    """

    def __init__(self, config: DictConfig, given: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.objects: dict[str, Any] = dict(given or {})
        self._held_back: str | None = None
        for path, target in iterate_targets(OmegaConf.to_container(config, resolve=False)):
            check_target(target, path)

    def build(self, path: str) -> Any:
        """The object of the node at `path`, built on first use.

        Raises:
            RecipeError: there is no such node, a value is missing, or the target refuses its arguments.
        """
        if path in self.objects:
            return self.objects[path]
        parent_path, _, key = path.rpartition(".")
        try:
            parent = OmegaConf.select(self.config, parent_path) if parent_path else self.config
        except OmegaConfBaseException as error:
            raise RecipeError(spell_missing(path, error)) from error
        if not isinstance(parent, DictConfig) or key not in parent:
            raise RecipeError(spell_missing(path, "there is no such node"))
        return self._child(parent, key, path)

    def prepare(self, path: str) -> Callable[[], Any]:
        """The call that a node stands for, all its arguments built: what must happen between the two happens before it is called.

        Raises:
            RecipeError: as `build`.
        """
        self._held_back = path
        return self.build(path)

    def _child(self, parent: DictConfig | ListConfig, key: Any, path: str) -> Any:
        if path in self.objects:
            return self.objects[path]
        if reference := _reference(parent, key):
            return self._attribute(reference[2], path) if reference[1] else self.build(reference[2])
        try:
            node = parent[key]
        except OmegaConfBaseException as error:
            raise RecipeError(spell_missing(path, error)) from error
        return self._value(node, path)

    def look_over(self, path: str) -> None:
        """Refuse the node at `path`, and whatever it is made of, for what their settings tell before any of it is built.

        Raises:
            RecipeError: as `build`, for names and kinds of arguments and for missing values; what a target refuses at sight (`checked_by`).
        """
        self._look_at(path, {})

    def _look_at(self, path: str, known: dict[str, Any]) -> Any:
        parent_path, _, key = path.rpartition(".")
        try:
            parent = OmegaConf.select(self.config, parent_path) if parent_path else self.config
        except OmegaConfBaseException as error:
            raise RecipeError(spell_missing(path, error)) from error
        is_there = isinstance(parent, DictConfig) and key in parent
        return self._look_at_child(parent, key, path, known) if is_there else LATER  # `build` says what is missing

    def _look_at_child(self, parent: DictConfig | ListConfig, key: Any, path: str, known: dict[str, Any]) -> Any:
        """A value as it will be, or LATER."""
        if path in self.objects:
            return LATER
        if path not in known:
            known[path] = LATER  # for what refers to itself
            reference = _reference(parent, key)
            if reference and reference[1]:
                self._look_at(reference[2].rpartition(".")[0], known)
            elif reference:
                known[path] = self._look_at(reference[2], known)
            else:
                try:
                    node = parent[key]
                except OmegaConfBaseException as error:
                    raise RecipeError(spell_missing(path, error)) from error
                known[path] = self._look_into(node, path, known)
        return known[path]

    def _look_into(self, node: Any, path: str, known: dict[str, Any]) -> Any:
        if isinstance(node, ListConfig):
            return tuple(self._look_at_child(node, index, f"{path}[{index}]", known) for index in range(len(node)))
        if not isinstance(node, DictConfig):
            return node
        values = {key: self._look_at_child(node, key, f"{path}.{key}", known) for key in node if key not in CONTROL_KEYS}
        if "_target_" not in node:
            return values
        target, is_partial = locate(node["_target_"], path), node.get("_partial_", False)
        positional = self._look_at_child(node, "_args_", f"{path}._args_", known) if "_args_" in node else ()
        check_arguments(target, positional, values, path, is_partial, _name_sources(node, path))
        plain = {name: value for name, value in values.items() if _is_plain(value)}
        if check := getattr(target, CHECK, None):
            taken = inspect.signature(check).parameters
            given = {name: plain[name] for name in taken if name in plain}
            if all(name in given or one.default is not one.empty for name, one in taken.items()):
                _call(check, (), given, path)
        if positional or len(plain) < len(values):
            return LATER
        if is_partial:
            return partial(target, **values)
        return _call(target, (), values, path) if dataclasses.is_dataclass(target) else LATER

    def _attribute(self, reference: str, path: str) -> Any:
        owner, _, name = reference.rpartition(".")
        found = self.build(owner)
        if not hasattr(found, name) or name.startswith("_"):
            raise RecipeError(f"{path}: the {type(found).__name__} at {owner!r} has no part {name!r}.")
        return getattr(found, name)

    def _value(self, node: Any, path: str) -> Any:
        if isinstance(node, ListConfig):
            return tuple(self._child(node, index, f"{path}[{index}]") for index in range(len(node)))
        if not isinstance(node, DictConfig):
            return node
        unknown = {key for key in node if re.fullmatch(r"_\w+_", str(key))} - CONTROL_KEYS
        if unknown:
            raise RecipeError(f"{path}: unknown control key {sorted(unknown)}, expected one of {sorted(CONTROL_KEYS)}.")
        values = {key: self._child(node, key, f"{path}.{key}") for key in node if key not in CONTROL_KEYS}
        if "_target_" not in node:
            return values
        target = locate(node["_target_"], path)
        positional = self._child(node, "_args_", f"{path}._args_") if "_args_" in node else ()
        is_partial = node.get("_partial_", False)
        check_arguments(target, positional, values, path, is_partial, _name_sources(node, path))
        if path == self._held_back:
            return partial(_call, target, positional, values, path)
        built = partial(target, *positional, **values) if is_partial else _call(target, positional, values, path)
        self.objects[path] = built
        return built


def _reference(parent: DictConfig | ListConfig, key: Any) -> re.Match[str] | None:
    """What a value refers to, if it is a reference and nothing else."""
    if not OmegaConf.is_interpolation(parent, key):
        return None
    return REFERENCE.match(OmegaConf.to_container(parent, resolve=False)[key])


def _name_sources(node: DictConfig, path: str) -> dict[str, str]:
    """Argument -> the key that sets it: its own, or the one that it refers to."""
    references = {key: _reference(node, key) for key in node}
    return {key: found[2] if found and not found[1] else f"{path}.{key}" for key, found in references.items()}


def _is_plain(value: Any) -> bool:
    """Whether nothing in a value is still to be built."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, tuple) else value is not LATER


def instantiate(config: DictConfig, **given: Any) -> Any:
    """Build one config on its own; keyword arguments join those of its `_target_`."""
    root = OmegaConf.create({"node": config})
    root.node.update(dict.fromkeys(given))
    return Assembly(root, {f"node.{name}": value for name, value in given.items()}).build("node")


def iterate_targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, target) of every node with a `_target_` in plain containers."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, value in node.items():
            yield from iterate_targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from iterate_targets(value, f"{path}[{index}]")


def check_target(target: Any, path: str = "config") -> None:
    """Refuse a target by its name alone, without importing anything.

    Raises:
        RecipeError: not a dotted public name under an allowed root.
    """
    allowed = (*_own_roots(), *CLASS_ROOTS)
    words = target.split(".") if isinstance(target, str) else []
    is_dotted = len(words) > 1 and all(word.isidentifier() and not word.startswith("_") for word in words)
    if not is_dotted or not any(target == root or target.startswith(f"{root}.") for root in allowed):
        raise RecipeError(
            f"{path}: _target_ {target!r} is not allowed. Expected a public name under one of {', '.join(allowed)}. "
            "Next: for a package of your own start the command with PLAIT_IMPORT_ROOTS=<its name>."
        )


def locate(target: str, path: str = "config") -> Any:
    """Import what an allowed name stands for.

    Raises:
        RecipeError: nothing has that name, or it was only imported there and belongs to somebody else.
    """
    check_target(target, path)
    found = _import(target, path)
    owner = getattr(found, "__module__", None) or ""
    is_own = _under(target, _own_roots())
    # A class re-exported by its own package keeps its private module (torch.optim.adamw.AdamW): compare top-level names there.
    belongs = _under(owner, _own_roots()) if is_own else inspect.isclass(found) and owner.split(".")[0] == target.split(".")[0]
    if not callable(found) or inspect.ismodule(found) or not belongs:
        kind = "class, function or class method defined" if is_own else "class defined"
        raise RecipeError(
            f"{path}: _target_ {target!r} is {found!r}, expected a {kind} in that package. Next: name where it is defined."
        )
    return found


def _import(target: str, path: str) -> Any:
    words = target.split(".")
    for length in range(len(words) - 1, 0, -1):
        name = ".".join(words[:length])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                continue
            raise RecipeError(
                f"{path}: _target_ {target!r} needs the package {error.name!r}, which is not installed. Next: install it."
            ) from error
        for word in words[length:]:
            if not hasattr(found, word):
                where = found.__name__ if hasattr(found, "__name__") else name
                close = get_close_matches(word, dir(found), n=1)
                hint = f"did you mean {where}.{close[0]}?" if close else f"look into {where} for its names."
                raise RecipeError(
                    f"{path}: _target_ {target!r}: {where} has no {word!r}. Expected something defined there. Next: {hint}"
                )
            found = getattr(found, word)
        return found
    raise RecipeError(
        f"{path}: _target_ {target!r}: there is no module {words[0]!r}. Expected an importable package. Next: install it, or "
        "correct the name."
    )


def _call(target: Any, positional: tuple[Any, ...], values: dict[str, Any], path: str) -> Any:
    try:
        return target(*positional, **values)
    except PlaitError as error:
        error.add_note(f"while building {path} ({target.__module__}.{target.__qualname__})")
        raise


def spell_missing(path: str | None, reason: object) -> str:
    """A value that OmegaConf does not find, in words."""
    first_line = str(reason).split("\n")[0].rstrip(".")
    if named := UNSET.search(first_line):
        return (
            f"{named[1]} is not set. Expected a value. Next: set {named[1]}=<value> on the command line or in the experiment."
        )
    return (
        f"{path or 'the config'}: {first_line}. Expected a value in the config. "
        f"Next: set {f'{path}=<value>' if path else 'it'} on the command line or in the experiment."
    )


def extra_roots() -> tuple[str, ...]:
    """The packages that the environment of this process adds."""
    return tuple(name.strip() for name in os.environ.get("PLAIT_IMPORT_ROOTS", "").split(",") if name.strip())


def _own_roots() -> tuple[str, ...]:
    return (*OWN_ROOTS, *extra_roots())


def _under(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)
