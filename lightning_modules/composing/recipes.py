"""The recipe of a saved model: the nodes of a config that build it, with files in the place of what came from training data.

A recipe from somewhere else is data that asks for code to be run: what it may name is checked in stored.py. It knows no system.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_modules.composing.config_checks import collect_nodes
from lightning_modules.composing.stored import check_stored
from plait.checkpoints import MANIFEST, read_manifest
from plait.errors import CheckpointError, RecipeError

RECIPE = "recipe"
NESTED = re.compile(r"\$\{[^${}]*\$\{")
"""A reference that depends on another one: ${published_stage.${job_type}.lr}."""
_EVALUATION = (
    "job",
    "n",
    "tuning_n",
    "seed",
    "evaluation",
    "text_policy",
    "prose_policy",
    "image_policy",
    "image_policies",
    "kept_of",
    "device",
    "dtype",
)
_PLACES = (
    "run",
    "name",
    "tags",
    "group",
    "paths",
    "base",
    "from",
    "text_base",
    "saved",
    "base_command",
    "codes",
    "checkpoint",
    "facts",
    "logger",
    "callbacks",
)
NO_SETTINGS = (*_EVALUATION, *_PLACES)
"""Nodes of an evaluation's config that say nothing about the model."""


def is_saved_model(folder: str | Path) -> bool:
    """Whether a folder holds a checkpoint with a recipe."""
    return (Path(folder) / MANIFEST).is_file() and RECIPE in read_manifest(folder).config


def read_recipe(folder: str | Path) -> DictConfig:
    """The recipe of a saved model, checked, with `folder` and the bases of its parts filled in.

    Raises:
        CheckpointError: the folder holds no saved model.
        RecipeError: see `lightning_modules.composing.stored.check_stored`.
    """
    manifest = read_manifest(folder)
    recipe = manifest.config.get(RECIPE)
    if not isinstance(recipe, dict) or not all(isinstance(recipe.get(name), dict) for name in ("model", "text_tokenizer")):
        raise CheckpointError(
            f"{folder} is a checkpoint of {manifest.model or 'a model'} and no saved model: it has no recipe. Expected a folder "
            "written by save_pretrained. Next: plait-export run=<its run folder> target=<folder>."
        )
    check_stored(recipe, folder, is_model=True)
    base = {name: str(Path(folder) / name) for name in ("vision_tokenizer",) if name in recipe} | {"model": str(folder)}
    return OmegaConf.create({**recipe, "folder": str(folder), "base": base})


def make_recipe(config: DictConfig, files: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """The nodes that `model` refers to, with those replaced that are read from files (node -> (its object, how it is read)), and how the
    pictures of its data were fitted, so that those of others are too."""
    nodes = OmegaConf.to_container(config, resolve=False)
    for name, (part, reader) in files.items():
        kind = type(part)
        if not hasattr(kind, reader):
            raise RecipeError(
                f"A {kind.__name__} cannot be read back from a folder: it has no {reader!r} for the {name} of the recipe."
            )
        nodes[name] = {"_target_": f"{kind.__module__}.{kind.__qualname__}.{reader}", "folder": f"${{folder}}/{name}"}
    for name in collect_nodes(nodes, ["model"]):
        if isinstance(nodes[name], dict):  # a saved model has plain references: what depends on another one is written out
            nodes[name] |= {
                key: config[name][key] for key, value in nodes[name].items() if isinstance(value, str) and NESTED.search(value)
            }
    names = collect_nodes(nodes, ["model"]) - {"folder"}
    missing = sorted({"model", *files} - names)
    if missing:
        raise RecipeError(
            f"The model of this recipe does not refer to the node {missing[0]!r}, so it could not be replaced by a file. Expected the "
            f"nodes model, {', '.join(files)}."
        )
    fitting = {"tiling": nodes["tiling"]} if nodes.get("tiling") else {}
    if isinstance(data := nodes.get("data"), Mapping) and "fit" in data:
        fitting["data"] = {"fit": data["fit"]}
    return {name: nodes[name] for name in sorted(names)} | fitting


def list_settings(config: DictConfig) -> dict[str, Any]:
    """What an evaluated model was trained with, as dotted name -> value with references unresolved: the config of an evaluation without
    what is the evaluation's own, and without names, places and weights."""
    raw = OmegaConf.to_container(config, resolve=False)
    return dict(flatten({key: value for key, value in raw.items() if key not in NO_SETTINGS}))


def flatten(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of plain containers."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flatten(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node
