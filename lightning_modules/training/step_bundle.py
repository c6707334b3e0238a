"""A bundle: what it takes to compute one training step again, in a folder of safetensors and JSON (no pickle).

    weights/            the model before the step, a checkpoint (rank 0; left out where the weights are broken themselves)
    rank-<n>/           state.safetensors, step.json: the micro-batches of that rank, its random numbers, the factor of every loss term

`replay` computes the losses and gradients of one rank's micro-batches again and says what is not finite first. It does not know which
model that is: whoever replays builds it from the config.yaml of the run. What other ranks added to the gradient is in their folders.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from plait.atomic import replace_folder
from plait.checkpoints import load_weights
from plait.document import ImageSpan
from plait.errors import CheckpointError
from plait.flattening import flatten_state, restore_state
from plait.records import Layout
from plait.sequence.batch import DocumentPlace, ImagePlace, SequenceBatch

STATE, STEP, WEIGHTS = "state.safetensors", "step.json", "weights"
RECORDS = {kind.__name__: kind for kind in (SequenceBatch, ImagePlace, DocumentPlace, Layout, ImageSpan)}
"""records that a batch may be made of; anything else is plain or refused"""
RECORD, FIELDS = "__record__", "fields"
DTYPES = {"bf16": torch.bfloat16, "16": torch.float16}


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch of a step: what the model was given, and the loss terms it made (sums, detached), with the whole loss."""

    batch: Any
    sums: Mapping[str, Tensor]
    loss: Tensor


def find_broken(tensors: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """The first tensor with values that are not finite, and how many it has."""
    for name, value in tensors.items():
        if value.is_floating_point() and value.element_size() > 1 and not bool(value.isfinite().all()):
            return name, int((~value.isfinite()).sum())
    return None


def find_broken_input(held: Sequence[MicroBatch]) -> tuple[int, str, str] | None:
    """(micro-batch, what, how it is) of the first thing that went in or came out of the losses and is not finite: a tensor of a batch, a
    loss term, or the weighted loss."""
    for index, micro in enumerate(held):
        if found := find_broken(flatten_state(_to_plain(micro.batch))[1]):
            return index, f"the tensor {found[0].replace('/' + FIELDS, '')!r} of the batch", f"{found[1]} values are not finite"
        for name, value in {**micro.sums, "": micro.loss}.items():
            if not math.isfinite(float(value)):
                return index, f"the loss term {name!r}" if name else "the weighted loss", str(float(value))
    return None


def write_bundle(
    folder: Path, held: Sequence[MicroBatch], random: Mapping[str, Any], facts: Mapping[str, Any], **own: Any
) -> None:
    """Write one rank's part.

    Args:
        folder: of this rank.
        held: its micro-batches, in order.
        random: states of torch's generators before the first of them: "torch", and "device" on an accelerator.
        facts: JSON-able; for `replay` at least `precision` and `factors` (per micro-batch: term -> factor of its sum in the loss).

    Raises:
        CheckpointError: a batch holds something that cannot be written, or the folder cannot.
    """
    tree, tensors = flatten_state({"batches": [_to_plain(micro.batch) for micro in held], "random": dict(random)})
    with replace_folder(folder, STEP) as beside:
        save_file({name: value.cpu() for name, value in tensors.items()}, beside / STATE)
        (beside / STEP).write_text(json.dumps({**facts, **own, "state": tree}), encoding="utf-8")


def replay(bundle: str | Path, model: nn.Module, rank: int = 0) -> dict[str, Any]:
    """Compute a recorded step of one rank again.

    Args:
        bundle: the folder of the step, such as <run>/not_finite/step-000731.
        model: the model of the run, as training had it (in training mode, frozen parts at rest), for example
            `Assembly(read_config(run)).build("model").train()`; its weights are replaced by those of the bundle.

    Returns:
        {"step", "what": the first thing that is not finite, or None, "losses": per micro-batch the weighted loss}.

    Raises:
        CheckpointError: there is no such bundle, or the model is another one.
    """
    place = Path(bundle) / f"rank-{rank}"
    if not (place / STEP).is_file():
        raise CheckpointError(
            f"{place} holds no step: expected {STEP} and {STATE}. Next: name a folder <run>/not_finite/step-<n>."
        )
    facts = json.loads((place / STEP).read_text(encoding="utf-8"))
    state = restore_state(facts["state"], load_file(place / STATE))
    if (Path(bundle) / WEIGHTS).is_dir():
        load_weights(model, Path(bundle) / WEIGHTS)
    device = next(model.parameters()).device
    torch.set_rng_state(state["random"]["torch"])
    if "device" in state["random"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["random"]["device"], device)
    model.zero_grad(set_to_none=True)
    held = []
    for plain, factors in zip(state["batches"], facts["factors"], strict=True):
        batch = _move(_from_plain(plain), device)
        with _precision(facts["precision"], device):
            sums = model.loss(batch).sums
            loss = sum(sums[name] * factor for name, factor in factors.items())
        loss.backward()
        held.append(MicroBatch(batch, {name: value.detach() for name, value in sums.items()}, loss.detach()))
    found = find_broken_input(held)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    what = found[1] if found else f"the gradient of {broken[0]}" if (broken := find_broken(gradients)) else None
    return {"step": facts["step"], "what": what, "losses": [float(micro.loss) for micro in held]}


def _precision(name: str, device: torch.device) -> Any:
    kind, _, how = str(name).partition("-")
    return torch.autocast(device.type, DTYPES[kind]) if how == "mixed" and kind in DTYPES else nullcontext()


def _to_plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: _to_plain(getattr(value, field.name)) for field in fields(value)}
        return {RECORD: type(value).__name__, FIELDS: content}
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_plain(item) for item in value)
    return value


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict) and RECORD in value:
        if value[RECORD] not in RECORDS:
            raise CheckpointError(
                f"The bundle holds a {value[RECORD]!r}, expected one of {', '.join(RECORDS)}: another version wrote it. "
                "Next: replay it with that one."
            )
        return RECORDS[value[RECORD]](**_from_plain(value[FIELDS]))
    if isinstance(value, dict):
        return {key: _from_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_from_plain(item) for item in value)
    return value


def _move(batch: Any, device: torch.device) -> Any:
    if hasattr(batch, "to"):
        return batch.to(device)
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
