"""The jobs of `plait-convert` and `plait-export`: a release becomes a saved model, and a run a saved model or a release."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_modules.composing.arguments import checked_by
from lightning_modules.composing.recipes import is_saved_model
from lightning_modules.folders.records import read_config
from lightning_modules.folders.targets import check_target
from lightning_modules.pretrained import check_unified, save_pretrained, save_text_tokenizer, write_folder
from lightning_modules.reporting.card import write_card
from plait.adapters.internlm2 import read_internlm2
from plait.adapters.liquid import to_released, to_unified
from plait.adapters.shards import read_shards, write_shards
from plait.adapters.vqgan import read_vqgan
from plait.atomic import replace_folder
from plait.backbones.causal_lm import CausalLM
from plait.checkpoints import MANIFEST, assign_weights, check_weights, read_manifest, save_checkpoint
from plait.errors import RecipeError

log = logging.getLogger(__name__)
VISION = "vision_tokenizer.safetensors"


def check_conversion(*, target: str, vqgan: str | None = None) -> None:
    """Refuse a target that is something else than an older saved model."""
    check_target(target, is_saved_model, [vqgan])


def check_export(*, run: str, target: str, layout: str = "plait", evaluation: str | None = None) -> None:
    """Refuse a target that is something else than an older export in this layout."""
    check_target(target, is_saved_model if layout == "plait" else is_release, [run, evaluation])


def is_release(folder: Path) -> bool:
    """Whether a folder holds a model as `write_release` writes it."""
    return (folder / VISION).is_file() and (folder / "config.json").is_file()


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a part that was converted from a release, and no model."""
    return (folder / MANIFEST).is_file() and not is_saved_model(folder) and _names_release(read_manifest(folder).parents)


def _names_release(parents: Sequence[Any]) -> bool:
    return any(isinstance(parent, Mapping) and parent.get("part") == "release" for parent in parents)


@checked_by(check_conversion)
def convert(*, release: Path, vqgan: str, model: Any, target: str, folder: str) -> str:
    """Write a released Liquid as a saved model.

    Args:
        release: folder with config, tokenizer and weights in shards.
        vqgan: the file of its vision tokenizer (see `plait.adapters.vqgan`).
        model: built by the recipe of this job; its backbone lies on the meta device, as only its names and shapes are needed.
        target: the folder to write.
        folder: of this job; the recipe is read there.

    Raises:
        CheckpointError: weights of the release are missing, unexpected or of another shape.
    """
    segments = model.builder.vocabulary.segments
    weights = to_unified(read_shards(release), [segment.size for segment in segments], model.backbone.is_tied)
    check_weights(model, weights, str(release))
    assign_weights(model.vision_tokenizer, read_vqgan(vqgan), vqgan)
    write_folder(target, model, read_config(folder), weights, parents=[{"part": "release", "identity": str(release)}])
    _log_summary(model, target)
    log.info("go on from it: backbone=saved base.model=%s base.vision_tokenizer=%s/vision_tokenizer", target, target)
    log.info("draw with it: plait-generate run=%s prompt='...'", target)
    return target


@checked_by(lambda target: check_target(target, is_converted))
def convert_vision_tokenizer(*, release: Path, weights: Mapping[str, Tensor], vision_tokenizer: nn.Module, target: str) -> str:
    """Write a released vision tokenizer as a base of recipes.

    Args:
        release: where it lies, for errors and lineage.
        weights: its tensors under the names of ours.
        vision_tokenizer: built by the recipe of this job, with its sizes.
        target: the folder to write.

    Raises:
        CheckpointError: weights of the release are missing, unexpected or of another shape.
    """
    assign_weights(vision_tokenizer, weights, str(release))
    save_checkpoint(target, vision_tokenizer, parents=[{"part": "release", "identity": str(release)}])
    log.info("%s: %s parameters", target, f"{sum(p.numel() for p in vision_tokenizer.parameters()):,}")
    log.info("go on from it: base.vision_tokenizer=%s, with the tokenizer of this command", target)
    return target


def open_internlm2(release: Path) -> CausalLM:
    """A released InternLM2 as a backbone, a llama whose weights are those of the files in their own precision; to be written, not run.

    Raises:
        CheckpointError: see `plait.adapters.internlm2.read_internlm2`; or config and weights disagree.
    """
    settings, weights = read_internlm2(release)
    with torch.device("meta"):  # nothing is drawn only to be overwritten
        backbone = CausalLM.from_config("llama", **settings)
    check_weights(backbone.model, weights, str(release))
    backbone.model.load_state_dict(weights, assign=True)
    backbone.model.tie_weights()
    return backbone


@checked_by(check_conversion)
def convert_language_model(*, release: Path, model: Any, target: str, folder: str) -> str:
    """Write a released language model as a saved model, which systems start from.

    Args:
        release: where it lies, for the lineage.
        model: built by the recipe of this job, with the weights of the release; rows of markers that its text tokenizer lacks begin as new
            rows do.
        target: the folder to write.
        folder: of this job; the recipe is read there.
    """
    write_folder(target, model, read_config(folder), parents=[{"part": "release", "identity": str(release)}])
    log.info("%s: %s parameters", target, f"{sum(p.numel() for p in model.backbone.parameters()):,}")
    log.info("go on from it: backbone=saved saved=%s base.backbone=%s", target, target)
    return target


@checked_by(check_export)
def export(
    *, run: str, model: Any, target: str, layout: Literal["plait", "released"] = "plait", evaluation: str | None = None
) -> str:
    """Write the model of a finished run for use elsewhere, with its card (README.md).

    Args:
        run: its folder. A saved model may stand for it; it has no passport, so there is no card.
        evaluation: folder of an evaluation of this run, for the card.
        model: the model of the run.
        target: the folder to write; an older export is replaced as a whole.
        layout: a saved model (lightning_modules/pretrained.py), or plain transformers files as Liquid was released.

    Raises:
        CheckpointError: the released layout has no place for a part of the model, or the target is something else (`check_target`).
        RecipeError: an unknown layout.
    """
    if layout == "plait":
        save_pretrained(run, target, model)
    elif layout == "released":
        write_release(model, target)
    else:
        raise RecipeError(f"layout={layout}: expected plait or released.")
    if (Path(run) / "passport.json").is_file():
        log.info("the card of the model: %s", write_card(run, Path(target), evaluation))
    _log_summary(model, target)
    return target


def write_release(model: Any, target: str | Path) -> None:
    """Write a model as Liquid was released: config, tokenizer and shards of transformers, with the ids of the vocabulary, and beside
    them the weights of the vision tokenizer."""
    check_unified(model)
    if model.vision_tokenizer is None:
        raise RecipeError("layout=released is for a model with a vision tokenizer, and this one has none. Next: layout=plait.")
    weights, vocabulary = to_released(model.state_dict()), model.builder.vocabulary
    roles = {"pad": "pad_token_id", "begin_document": "bos_token_id", "end_document": "eos_token_id"}
    with replace_folder(target, VISION) as beside:
        write_shards(beside, weights)
        ids = {name: vocabulary.specials[role] for role, name in roles.items()}
        model.backbone.save_config(beside, vocab_size=vocabulary.size, **ids)
        save_text_tokenizer(model, beside)
        save_file({name: value.contiguous() for name, value in model.vision_tokenizer.state_dict().items()}, beside / VISION)


def _log_summary(model: Any, target: str) -> None:
    rows = ", ".join(f"{segment.size:,} {segment.name}" for segment in model.builder.vocabulary.segments)
    language, vision = (sum(p.numel() for p in part.parameters()) if part else 0 for part in (model, model.vision_tokenizer))
    log.info("%s: %s parameters (rows: %s), and %s of the vision tokenizer", target, f"{language:,}", rows, f"{vision:,}")
