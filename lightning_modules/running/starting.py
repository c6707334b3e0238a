"""`from=<folder>`: whatever a run trained or named is handed over to the recipe that starts from it, with its architecture.

A folder is a finished run or a saved model. Of a model that the recipe builds too all weights are taken, with the parts that it names
and does not hold (its vision tokenizer); of a language model, a vision tokenizer or another single part that part. The nodes that build
them come along, so that nobody repeats their sizes: where a scale or an option says others, the base's hold and this is said. Wording,
data, loss and schedule are the recipe's own. What is handed over then stands in the config as if it had been written there.
"""

import json
import logging
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from lightning_modules.composing.config_checks import MENTION, collect_nodes
from lightning_modules.composing.instantiate import REFERENCE, Assembly
from lightning_modules.composing.recipes import flatten, is_saved_model, read_recipe
from lightning_modules.composing.stored import check_stored
from lightning_modules.folders.records import (
    CONFIG_FILE,
    JOB_FILE,
    LAST,
    find_neighbours,
    last_checkpoint,
    read_config,
    read_job,
)
from plait.checkpoints import list_parts
from plait.errors import RecipeError

OWN = ("template", "world", "objective", "seed", "paths", "facts", "base")
"""Nodes that a part may refer to and that stay the recipe's."""
SINGLE = ("backbone", "vision_tokenizer", "vision", "pixels")
"""Parts that a model of another kind can be asked for, where it has no other of them."""
SAVED = "saved"
log = logging.getLogger(__name__)


def start_from(config: DictConfig) -> None:
    """Fill what `config.from` hands over, and take the word out: a config that is read again says it all.

    Raises:
        RecipeError: there is no finished run or saved model in a folder, or it has nothing that this recipe can take.
    """
    named = config.get("from")
    if named is None:
        return
    folders = [named] if isinstance(named, str) else list(named) if isinstance(named, ListConfig) else [named]
    if not all(isinstance(folder, str) for folder in folders):
        raise RecipeError(f"from={named}: expected a folder, or a list of folders. Next: from=[<run folder>,<run folder>].")
    with open_dict(config):
        for folder in folders:
            _hand_over(config, folder)
        config["from"] = None


def read_model(folder: str, key: str) -> DictConfig:
    """The config of a finished run, or the recipe of a saved model, checked.

    Args:
        key: under which the folder was given, for messages.

    Raises:
        RecipeError: see `start_from`; or its config is not one that is opened (stored.py).
    """
    if is_saved_model(folder):
        return read_recipe(folder)
    record = read_job(folder)
    if record is None or not (Path(folder) / CONFIG_FILE).is_file():
        raise RecipeError(
            f"{key}={folder} is no run folder: expected {CONFIG_FILE} and {JOB_FILE} in it. Next: check the path, or train one "
            "(plait-train --help)."
        )
    if record["state"] != "finished":
        raise RecipeError(f"{key}={folder} is {record['state']}, expected a finished run. Next: go on with it, or wait.")
    stored = read_config(folder)
    if "model" not in stored or "run" in stored:
        inside = [path.parent.parent for path in Path(folder).glob(f"*/{LAST}")]
        inside.sort(key=lambda place: (read_job(place) or {}).get("started", 0.0))  # the last stage is what the others led to
        meant = stored.get("run") or (inside[-1] if inside else None)
        raise RecipeError(
            f"{key}={folder} is of {stored.get('name', 'a job')} and holds no model of its own. Expected that of a training. Next: "
            + (f"did you mean {key}={meant}?" if meant else "check the path.")
        )
    check_stored(OmegaConf.to_container(stored, resolve=False), folder)
    for name, found in find_neighbours(stored, folder).items():
        log.info("%s is not here, found beside the run: %s", name, found)
    return stored


def find_differences(config: DictConfig, nodes: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """key -> (its value in some nodes, its value in the config), where they differ."""
    theirs, ours = (dict(flatten(part)) for part in (nodes, {name: _raw(config.get(name)) for name in nodes}))
    keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    return {key: (theirs.get(key), ours.get(key)) for key in keys}


def spell(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The first few of them in words."""
    words = [f"{key} is {theirs} there and {ours} here" for key, (theirs, ours) in list(differences.items())[:4]]
    return ", ".join(words) + (f", and {len(differences) - 4} more" if len(differences) > 4 else "")


def _hand_over(config: DictConfig, folder: str) -> None:
    stored = read_model(folder, "from")
    raw = _raw(stored)
    part = _find_part(config, raw, folder)
    # a word may refer to what stays behind (`text_base: ${base.backbone}`): it is written out
    nodes = {name: stored[name] if isinstance(raw[name], str) else raw[name] for name in collect_nodes(raw, [part], OWN)}
    if part == "backbone" or is_saved_model(folder):
        nodes = {name: node for name, node in nodes.items() if name != "folder"} | _saved_language_model(folder)
    elif part == "model":
        _check_words(config, stored, folder)
    if "backbone" in nodes and "gradient_checkpointing" in (config.get("backbone") or {}):
        nodes["backbone"] = nodes["backbone"] | {"gradient_checkpointing": config.backbone.gradient_checkpointing}
    if differences := find_differences(config, {name: node for name, node in nodes.items() if isinstance(node, dict)}):
        log.info("from=%s brings its architecture: %s.", folder, spell(differences))
    for name, node in nodes.items():
        config[name] = node
    config.base[part] = folder
    if part == "model":
        held = list_parts(last_checkpoint(folder))
        config.base.update({name: "random" for name in config.base if name in held})  # their weights come with the model
        config.base.update({name: where for name, where in stored.base.items() if name not in {*held, "model"}})
    if OmegaConf.select(stored, "codes.folder") and "codes" in config and raw["world"] == _raw(config.world):
        config.codes.folder = config.codes.folder or stored.codes.folder


def _find_part(config: DictConfig, raw: Mapping[str, Any], folder: str) -> str:
    """What of a stored model this recipe takes."""
    model, wanted = raw["model"], _raw(config.get("model"))
    if isinstance(model, str):
        part = REFERENCE.match(model)[2]
    elif isinstance(wanted, dict) and model["_target_"] == wanted["_target_"]:
        part = "model"
    else:
        single = [name for name in SINGLE if name in model]
        part = single[0] if len(single) == 1 else None
    if part is None:
        raise RecipeError(
            f"from={folder} is a model of {model['_target_']}, and this recipe builds one of {(wanted or {}).get('_target_')}: expected "
            "the same system, a language model or a tokenizer. Next: single parts go by name, base.vision_tokenizer=<its tokenizer>."
        )
    if part not in collect_nodes(_raw(config), ["job"]):
        raise RecipeError(
            f"from={folder} hands over a {part}, and the job of {config.name} builds none. Expected a recipe that starts from one; the "
            "stages of a curriculum say themselves what they start from. Next: leave `from` out."
        )
    return part


def _saved_language_model(folder: str) -> dict[str, Any]:
    """The nodes that read a language model and its text tokenizer from a saved model, or from the one that a run keeps."""
    option = "saved" if is_saved_model(folder) else "text_base"
    if option == "text_base" and not is_saved_model(Path(folder) / SAVED):
        raise RecipeError(
            f"from={folder} has trained a language model and keeps no folder {SAVED}, expected a run of experiment=base/text. "
            f"Next: plait-export run={folder} target=<folder>, then from=<folder>."
        )
    nodes = _raw(OmegaConf.load(str(files("plait.conf") / "backbone" / f"{option}.yaml")))
    return {name: nodes[name] for name in ("backbone", "text_tokenizer")} | {option: folder}


def _check_words(config: DictConfig, stored: DictConfig, folder: str) -> None:
    """Refuse a recipe whose data or wording would give other words to the ids of the base."""
    learned_of = MENTION.findall(json.dumps(_raw(stored)["text_tokenizer"]))
    data = [one.world._target_ for one in (stored, config)] if "world" in learned_of else []
    if len({*data}) > 1:
        raise RecipeError(
            f"from={folder} has the words of {data[0]}, and this recipe reads {data[1]}: expected data of one vocabulary. Next: take the "
            "data of the base, or a base with a text tokenizer of subwords."
        )
    if "template" in learned_of:
        theirs, ours = ({*Assembly(one).build("template").texts()} for one in (stored, config))
        if theirs != ours:
            raise RecipeError(
                f"from={folder} was worded with {sorted(theirs - ours)} and without {sorted(ours - theirs)} of this recipe: its words "
                "would have other ids. Expected one wording. Next: set the node `template` as the base has it."
            )


def _raw(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
