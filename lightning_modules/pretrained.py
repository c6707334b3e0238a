"""A model as one folder that stands by itself, and the model back from it: `from_pretrained("outputs/mine")`.

    manifest.json, model.safetensors   a checkpoint (plait.checkpoints), so the folder is a base for further training as well;
                                       the recipe is in the manifest (lightning_modules/composing/recipes.py)
    backbone/config.json               architecture of the language model, without weights
    text_tokenizer/                    its files, with the chat template where it is one of transformers
    vision_tokenizer/                  a checkpoint of its own; a plain language model has none

Safetensors and JSON, besides the chat template. It knows no system.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.composing.recipes import RECIPE, is_saved_model, make_recipe, read_recipe
from lightning_modules.composing.stored import check_stored
from lightning_modules.folders.records import read_config
from lightning_modules.folders.targets import check_target
from lightning_modules.running.device import choose_device, choose_dtype
from lightning_modules.running.launch import adopt_run, last_checkpoint, load_bases
from plait.adapters.hub import fetch
from plait.atomic import replace_folder
from plait.backbones.text import PretrainedTokenizer
from plait.checkpoints import MANIFEST, bounded_by, load_weights, read_manifest, save_checkpoint
from plait.errors import CheckpointError, RecipeError
from plait.evaluation.features import FeatureSpace

SAVED = "saved"
"""where a run that others start from keeps its model as such a folder"""


def from_pretrained(
    source: str | Path, revision: str | None = None, *, device: str = "auto", dtype: str | torch.dtype = "auto"
) -> nn.Module:
    """The model of a folder that `save_pretrained` wrote, or of a repository of the Hub that holds one; in evaluation mode.

    Args:
        source: folder, or `owner/name` on the Hub.
        revision: branch, tag or commit on the Hub.
        device: auto (a GPU where there is one), cpu or cuda.
        dtype: of its weights (those of its vision tokenizer stay as they are): auto (on a GPU that of the checkpoint, on the CPU float32),
            a dtype or its name.

    Raises:
        CheckpointError: there is no saved model, or its files are damaged or do not belong together.
        RecipeError: the recipe names what a saved model may not name, or there is no such device or dtype.
    """
    place = choose_device(device)
    folder = fetch(source, revision)
    assembly = Assembly(read_recipe(folder))
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are overwritten: nobody's random numbers move
        with bounded_by(folder, folder / "vision_tokenizer"):
            model = assembly.build("model")
        if model.vision_tokenizer is not None:
            load_weights(model.vision_tokenizer, folder / "vision_tokenizer")
    load_weights(model, folder)
    return model.to(place, choose_dtype(dtype, place, folder)).eval()


def save_pretrained(run: str | Path, target: str | Path, model: nn.Module | None = None) -> Path:
    """Write the model of a finished run as a folder that stands by itself.

    Args:
        run: folder of the run.
        target: where the model goes; an older saved model there is replaced as a whole.
        model: the model of the run, where it is built already.

    Returns:
        The target.

    Raises:
        RecipeError: there is no finished run, or its model is made of what a saved model may not name.
        CheckpointError: the target is something else, or in the way of a run.
    """
    config = OmegaConf.create({"run": str(run)})
    adopt_run(config)
    check_target(target, is_saved_model, [run])
    if model is None:
        assembly = Assembly(config)
        load_bases(config, assembly)
        model = assembly.build("model")
    checkpoint = read_manifest(last_checkpoint(run))
    parents = [{"part": "model", "identity": checkpoint.identity}]
    return write_folder(target, model, config, parents=parents, step=checkpoint.step)


def save_at_the_end(model: nn.Module, *, folder: str, step: int) -> Path:
    """Write the model of a run that is about to finish into its subfolder `saved` (`callbacks/saved_model.py`).

    Args:
        folder: of the run.
    """
    return write_folder(Path(folder) / SAVED, model, read_config(folder), step=step)


def write_folder(
    target: str | Path, model: nn.Module, config: DictConfig, weights: Mapping[str, Tensor] | None = None, **facts: Any
) -> Path:
    """Write a model and the nodes of a config that built it.

    Args:
        weights: its state dict; None takes it from the model (which may lie on the meta device if it is given).
        facts: fields of the manifest (parents, step).

    Raises:
        RecipeError: it is no unified model, or a part of it cannot be read back from a folder.
    """
    check_unified(model)
    text, vision = model.builder.layout.text, model.vision_tokenizer
    recipe = make_recipe(config, {"backbone": (model.backbone, "from_folder"), "text_tokenizer": (text, "load")})
    check_stored(recipe, target, is_model=True)
    with replace_folder(target, MANIFEST) as beside:
        name = f"{type(model).__module__}.{type(model).__qualname__}"
        weights = model.state_dict() if weights is None else weights
        save_checkpoint(beside, weights, model=name, config={RECIPE: recipe}, **facts)
        model.backbone.save_config(beside / "backbone")
        save_text_tokenizer(model, beside / "text_tokenizer")
        if vision is not None:
            save_checkpoint(beside / "vision_tokenizer", vision)
    return Path(target)


def check_unified(model: Any) -> None:
    """Refuse a part, a vision tokenizer say, where a model is wanted.

    Raises:
        RecipeError: it reads and writes no documents.
    """
    if not hasattr(model, "builder"):
        raise RecipeError(
            f"A {type(model).__name__} is no unified model, which reads and writes documents: only such a model is examined, or saved as a "
            "whole. Next: name the run of one, as outputs/demo/instruction. The run of a vision tokenizer serves as it is: "
            "base.vision_tokenizer=<run folder>."
        )


def save_text_tokenizer(model: nn.Module, folder: Path) -> None:
    """Write the text tokenizer of a model; one of transformers gets the wording of the model as its chat template."""
    text, template = model.builder.layout.text, model.template
    if isinstance(text, PretrainedTokenizer) and hasattr(template, "chat_template"):
        text.save(folder, template.chat_template())
    else:
        text.save(folder)


def open_features(run: str | Path) -> FeatureSpace:
    """The encoder of a finished run of experiment=base/vision, for figures on features; named by the sha256 of its weights.

    Raises:
        RecipeError: there is no finished run with a vision encoder.
    """
    config = OmegaConf.create({"run": str(run)})
    adopt_run(config)
    with bounded_by(last_checkpoint(run)):
        encoder = Assembly(config).build("vision")
    try:
        manifest = load_weights(encoder, last_checkpoint(run), part="vision")
    except CheckpointError as error:  # every recipe has a node `vision`, few have trained it
        raise RecipeError(
            f"features.run={run} has no vision encoder: {error} Expected a run of experiment=base/vision."
        ) from error
    return FeatureSpace(f"vision base {manifest.identity[:12]}", encoder.eval())


def load_text_tokenizer(folder: str | Path) -> Any:
    """The text tokenizer of a saved model, for recipes that go on from it (conf/backbone/saved.yaml)."""
    return Assembly(read_recipe(folder)).build("text_tokenizer")
