"""The one check of what is read back from a folder: the config of a run and the recipe of a saved model name code to be run, and
may have been written by anybody. They are read here as data, before anything that they name is imported.

What may be named is declared by conf/: a stored run may name what the shipped configs name in the same place, and parts of a model
(`PARTS`). What trains or writes (`TRAINING`) is never reached when a run is opened, only when it is trained further. A reference reads
nodes of the config itself, never the environment; what writes does so below the folders of this process; nothing is downloaded.

A run that does more is the user's own or it is refused: `PLAIT_IMPORT_ROOTS` (own packages) and `PLAIT_TRUSTED_RUNS` (folders whose runs
are taken as they are) are set by the person who starts the process. It does not know what a node is for, nor any system.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name

from lightning_modules.composing.config_checks import collect_nodes
from lightning_modules.composing.instantiate import extra_roots
from plait.errors import RecipeError
from plait.worlds.wordnet.archive import is_at_hand

TRUSTED = "PLAIT_TRUSTED_RUNS"
TRAINING = ("job", "stage", "trainer", "loaders", "callbacks", "logger", "gallery")
"""Nodes of a run that train, write or send."""
OPENED = ("model", "world", "codes", "tiling", "vision")
"""Nodes that opening a run builds."""
PARTS = re.compile(
    r"plait\.(systems\.\w+\.(build|[A-Z]\w*)|(tokenizers|vision|heads|decoders)\.\w+\.[A-Z]\w*(\.from_config)?"
    r"|backbones\.\w+\.[A-Z]\w*\.(from_folder|load)|tiling\.Tiling)"
)
"""Builders, parts and readers of a folder: all that a saved model may name, besides the packages of PLAIT_IMPORT_ROOTS."""
UNFINISHED = re.compile(r"plait\.(vision|heads|decoders)\.\w+\.[A-Z]\w*")
"""Parts that the builder of a saved model may finish, as it knows their widths: they may be `_partial_`."""
PLAIN = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
RESOLVED = re.compile(r"\$\{\w+:[^${}]*\}")
CLOCK = re.compile(r"\$\{now:[%\w-]*\}")
"""The time, as runs of before named their group: it tells nothing of this machine."""
ESCAPING = re.compile(r"[/~]|[A-Za-z]:[\\/]|(?:.*[/\\])?\.\.(?:[/\\]|$)", re.DOTALL)
READ_FROM = (
    "path",
    "folder",
    "name_or_folder",
    "saved",
    "text_base",
    "stamps",
    "gimp_help",
    "archive",
    "run",
    "checkpoint",
    "release",
)
"""Keys under which a run names places that it reads: weights, codes, rows, pictures."""
RELEASE_KEYS = {"_target_", "name_or_folder", "gradient_checkpointing", "bos", "markers", "revision", "subfolder", "gguf_file"}
"""What a node says of a release: other options of transformers run code of a repository, or say where files go."""
PLACES = ("paths", "base", "base_command", "facts")
MOST = {"nodes": 20_000, "levels": 40, "characters": 20_000, "number": 2**32}


@dataclass
class Shipped:
    """What the shipped configs name: top node -> targets, target or path -> keys, target -> key -> how a place of the process is written
    (`${paths...}`, `${facts...}`), the top nodes that are always built, and the targets and references of special kinds."""

    targets: dict[str, set[str]] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    places: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    built: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    references: set[str] = field(default_factory=set)


def check_stored(nodes: Mapping[str, Any], origin: str | Path, *, is_model: bool = False, trains: bool = False) -> None:
    """Refuse a stored config that would run, write, send or fetch what opening it does not call for.

    Args:
        nodes: plain containers, references as they are written in the file.
        origin: the folder that it was read from.
        is_model: it is the recipe of a saved model, which names parts and nothing else.
        trains: it is to be trained further, so that `TRAINING` counts as well.

    Raises:
        RecipeError: what was found, where, and how to open a run of one's own that needs it.
    """
    if is_trusted(origin):
        return
    try:
        _Check(nodes, is_model, trains).run()
    except _Finding as finding:
        remedy = finding.remedy or (
            f"If you made it yourself, say so: {TRUSTED}=<its folder> before the command (PLAIT_IMPORT_ROOTS=<name> for a package of "
            "your own)."
        )
        raise RecipeError(f"{origin}: {finding}. Next: {remedy}") from None


def is_trusted(origin: str | Path) -> bool:
    """Whether the environment of this process names the folder or one above it."""
    named = [Path(name.strip()).expanduser().resolve() for name in os.environ.get(TRUSTED, "").split(",") if name.strip()]
    return any(Path(origin).resolve().is_relative_to(folder) for folder in named)


class _Finding(Exception):
    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


class _Check:
    def __init__(self, nodes: Mapping[str, Any], is_model: bool, trains: bool) -> None:
        self.nodes, self.is_model, self.trains = nodes, is_model, trains
        self.what = "a saved model" if is_model else "a stored run"
        self.shipped = Shipped() if is_model else _read_shipped()
        self.counted = 0

    def run(self) -> None:
        self._bases()
        for name in sorted(self.shipped.built & self.nodes.keys()):
            if not isinstance(node := self.nodes[name], Mapping) and not PLAIN.fullmatch(str(node)):
                raise _Finding(f"{name} is {node!r}, expected what builds it, a node with a _target_")
        for name, node in self.nodes.items():
            self._walk(node, str(name), str(name), 1)
        if not self.is_model:
            start = [*self.nodes] if self.trains else [*OPENED, *self.nodes.get("base", {})]
            for name in sorted(collect_nodes(self.nodes, start, () if self.trains else TRAINING)):
                self._at_hand(self.nodes[name], name)

    def _walk(self, node: Any, path: str, key: str, level: int) -> None:
        self.counted += 1
        if self.counted > MOST["nodes"] or level > MOST["levels"]:
            raise _Finding(
                f"{path}: {self.what} of more than {MOST['nodes']:,} values or {MOST['levels']} levels is none of plait"
            )
        top = re.split(r"[.\[]", path, maxsplit=1)[0]
        if isinstance(node, Mapping):
            if "_target_" in node:
                self._target(node, path, top)
            for name, value in node.items():
                self._text(name, path, top, "")
                if re.fullmatch(r"_\w+_", str(name)):
                    self._control(node, str(name), path, top)
                self._walk(value, f"{path}.{name}", str(name), level + 1)
        elif isinstance(node, list | tuple):
            for index, value in enumerate(node):
                self._walk(value, f"{path}[{index}]", key, level + 1)
        elif isinstance(node, str):
            self._text(node, path, top, key)
        elif node is not None and not isinstance(node, bool | int | float):
            raise _Finding(f"{path} is a {type(node).__name__}, expected text, a number, a list or a mapping")
        elif isinstance(node, int) and abs(node) > MOST["number"]:
            raise _Finding(f"{path} is a number of {len(str(abs(node)))} digits, expected at most {MOST['number']:,}")

    def _bases(self) -> None:
        base = self.nodes.get("base", {})
        if not isinstance(base, Mapping):
            raise _Finding(f"base is {base!r}, expected a folder for each part")
        for part, where in base.items():
            if part in TRAINING or not isinstance(where, str | None):
                raise _Finding(f"base.{part} is {where!r}, expected the folder of a part of the model")

    def _control(self, node: Mapping[str, Any], name: str, path: str, top: str) -> None:
        target = node.get("_target_")
        is_shipped = isinstance(target, str) and bool(
            target in self.shipped.partial or UNFINISHED.fullmatch(target) or _is_own(target)
        )
        if name == "_target_" or (name == "_partial_" and node[name] in (True, False) and is_shipped):
            return
        raise _Finding(f"{path} has the control key {name}={node[name]!r}, which {self.what} may not have there")

    def _target(self, node: Mapping[str, Any], path: str, top: str) -> None:
        target = node["_target_"]
        if isinstance(target, str) and _is_own(target):
            return
        if top in TRAINING and not (self.is_model or self.trains):
            return  # nothing that is opened may refer to it (see `_refer`)
        declared = self.shipped.targets
        named = (
            declared.get(top, set())
            if top in TRAINING
            else set().union(*(declared[one] for one in declared if one not in TRAINING))
        )
        if not isinstance(target, str) or not (target in named or (top not in TRAINING and PARTS.fullmatch(target))):
            whose = "the recipe" if self.is_model else "its config"
            raise _Finding(
                f"{path} of {whose} has the _target_ {target!r}, which {self.what} may not name: expected "
                f"{'a builder of plait.systems or a part of plait' if self.is_model else 'what a shipped config names there, or a part'}"
            )
        known = RELEASE_KEYS if "name_or_folder" in node else self._keys_of_function(target, path)
        if known and (further := sorted({*map(str, node)} - known)):
            raise _Finding(
                f"{path}.{further[0]} is {node.get(further[0])!r}: {target} of {self.what} has {', '.join(sorted(known))} alone"
            )
        for key, written in self.shipped.places.get(target, {}).items():
            if node.get(key) is not None and str(node[key]) not in written:
                raise _Finding(f"{path}.{key} is {node[key]!r}, where {target} writes: expected {' or '.join(sorted(written))}")

    def _keys_of_function(self, target: str, path: str) -> set[str]:
        """A class of parts or data is built of its arguments; a function does something with them."""
        if any(word[0].isupper() for word in target.split(".")[-2:]) or PARTS.fullmatch(target):
            return set()
        return {"_target_", "_partial_"}.union(*(self.shipped.keys.get(name, ()) for name in (target, path)))

    def _text(self, text: Any, path: str, top: str, key: str) -> None:
        if not isinstance(text, str):
            return
        if len(text) > MOST["characters"] or any((ord(one) < 32 and one not in "\n\t") or one == "\x7f" for one in text):
            raise _Finding(
                f"{path} is {text[:40]!r}, {len(text):,} characters: expected at most {MOST['characters']:,}, none a control"
            )
        self._interpolations(text, path, top)
        if top in TRAINING and not self.trains:
            return
        if "://" in text:
            raise _Finding(f"{path} is {text[:80]!r}, an address: expected files of this machine")
        if ESCAPING.match(text) and top not in PLACES and (self.is_model or key not in READ_FROM):
            raise _Finding(f"{path} is {text[:80]!r}, a place outside of its folder")

    def _interpolations(self, text: str, path: str, top: str) -> None:
        rest = text if self.is_model else CLOCK.sub("", text)
        rest = RESOLVED.sub(lambda found: "" if found[0] in self.shipped.references else found[0], rest)
        for word in PLAIN.findall(text):
            self._refer(word, path, top)
        while not self.is_model and rest != (rest := PLAIN.sub("x", rest)):
            pass  # ${budget.${job_type}.max_steps} is a reference to its own nodes as well
        if "${" in PLAIN.sub("", rest):
            raise _Finding(f"{path} holds {text[:200]!r}. Expected references to its own nodes only")

    def _refer(self, word: str, path: str, top: str, depth: int = 0) -> None:
        """What is opened may read a plain value of what trains (`trainer.max_steps`), and no object."""
        if top in TRAINING or word.partition(".")[0] not in TRAINING:
            return
        value = _look_up(self.nodes, word)
        if value is None or isinstance(value, Mapping | list) or depth > MOST["levels"]:
            raise _Finding(
                f"{path} refers to {word}, which trains or writes: expected a part of the model or of its data there"
            )
        for further in PLAIN.findall(value) if isinstance(value, str) else ():
            if isinstance(_look_up(self.nodes, further), Mapping | list):
                raise _Finding(f"{path} refers to {word} and so to {further}, expected a plain value")
            self._refer(further, path, top, depth + 1)

    def _at_hand(self, node: Any, path: str) -> None:
        """Nothing is fetched on behalf of a stored run: what it reads by name has to be on this machine already."""
        if isinstance(node, list):
            for index, value in enumerate(node):
                self._at_hand(value, f"{path}[{index}]")
        if not isinstance(node, Mapping):
            return
        target = node.get("_target_")
        if target == "plait.worlds.wordnet.archive.open_wordnet" and node.get("archive") is None and not is_at_hand():
            raise _Finding(f"{path} is WordNet, which is not on this machine", "fetch it yourself: plait-fetch what=wordnet")
        for key, value in node.items():
            kind = {"name_or_folder": "model", "path": "dataset"}.get(key)
            if kind and isinstance(value, str):
                name = _spell(self.nodes, value)
                if not name or not (Path(name).exists() or is_cached(name, kind)):
                    fetching = f"hf download {name}" + (" --repo-type dataset" if kind == "dataset" else "")
                    raise _Finding(
                        f"{path}.{key} is {name!r}, which is neither here nor in the Hub's cache of this machine",
                        f"start where the run was made, or fetch it yourself ({fetching}).",
                    )
            self._at_hand(value, f"{path}.{key}")


def is_cached(name: str, kind: str) -> bool:
    """Whether the Hub's cache of this machine holds a repository: somebody has asked for it before."""
    return (Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)).is_dir()


def _is_own(target: str) -> bool:
    return any(target.startswith(f"{root}.") for root in extra_roots())


def _look_up(nodes: Any, word: str) -> Any:
    for step in word.split("."):
        try:
            nodes = nodes[int(step) if isinstance(nodes, list) else step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return nodes


def _spell(nodes: Mapping[str, Any], text: str, depth: int = 0) -> str:
    """A text with its references written out, as far as they lead to text."""
    if depth > MOST["levels"]:
        return text
    return PLAIN.sub(lambda found: _spell(nodes, str(_look_up(nodes, found[1]) or ""), depth + 1), text)


@cache
def _read_shipped() -> Shipped:
    """What the groups of conf/train.yaml name."""
    folder, shipped = Path(str(files("plait.conf"))), Shipped()
    composed = yaml.load((folder / "train.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    groups = [next(iter(item)).removeprefix("optional ") for item in composed["defaults"] if isinstance(item, Mapping)]
    texts = {folder / "train.yaml": ""}
    for group in sorted({*groups} - {"curriculum", "hparams_search"}):
        texts |= dict.fromkeys(sorted((folder / group).rglob("*.yaml")), group)
    plain: set[str] = set()
    for path, group in texts.items():
        text = path.read_text(encoding="utf-8")
        package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        content = yaml.load(text, yaml.CSafeLoader) or {}
        is_global = not group or (package and package[1] == "_global_")
        for place, node in (content if is_global else {package[1] if package else group: content}).items():
            top = place.partition(".")[0]
            if top not in ("hydra", "defaults"):
                _note(shipped, node, top, place)
                if place == top and isinstance(node, Mapping) and "_target_" in node:
                    shipped.built.add(top)
                elif place == top and not isinstance(node, Mapping) and not PLAIN.fullmatch(str(node)):
                    plain.add(top)
    shipped.built -= {*plain, *TRAINING}
    return shipped


def _note(shipped: Shipped, node: Any, top: str, path: str) -> None:
    if isinstance(node, str):
        shipped.references.update(RESOLVED.findall(node))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _note(shipped, value, top, f"{path}[{index}]")
    elif isinstance(node, Mapping):
        target = node.get("_target_")
        shipped.keys.setdefault(path, set()).update(node)  # a file that changes a node of another one does not say its target
        if target is not None:
            shipped.targets.setdefault(top, set()).add(target)
            shipped.keys.setdefault(target, set()).update(node)
        if "_partial_" in node:
            shipped.partial.add(target)
        for key, value in node.items():
            if isinstance(value, str) and value.startswith(("${paths.", "${facts.")):
                shipped.places.setdefault(target, {}).setdefault(key, set()).add(value)
            _note(shipped, value, top, f"{path}.{key}")
