"""The ledger: what a run set out to train, written before step 1, and the proof afterwards of what moved and what did not.

Per part it states parameters, trainable or frozen, learning rate and weight decay as the built optimiser holds them. The proof
compares a digest of every tensor: frozen tensors must be equal bit for bit (buffers of wholly frozen parts included, so running
statistics of a frozen part count as movement), every trainable tensor must have moved. It does not know why a tensor stayed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plait.errors import CheckpointError
from plait.freezing import PlannedTensor


@dataclass(frozen=True)
class LedgerRow:
    """Parameters of one part that share a fate; rates are those at the base of the schedule, None where frozen."""

    part: str
    parameters: int
    tensors: int
    is_trainable: bool
    learning_rate: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None


@dataclass(frozen=True)
class Proof:
    """What the tensors say after training: names of frozen tensors that changed and of trainable ones that did not."""

    steps: int
    frozen: int
    trainable: int
    changed_frozen: tuple[str, ...] = ()
    unmoved_trainable: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether everything went as the ledger announced."""
        return not self.changed_frozen and not self.unmoved_trainable


@dataclass(frozen=True)
class Ledger:
    """The rows, the digests of all tensors before step 1 and, after training, the proof."""

    rows: tuple[LedgerRow, ...]
    digests: Mapping[str, str] = field(default_factory=dict)
    proof: Proof | None = None

    @classmethod
    def open(cls, model: nn.Module, planned: Sequence[PlannedTensor], optimizer: Optimizer | None = None) -> "Ledger":
        """Write down the plan and the state of every tensor. With the optimiser, the rates are the ones it really holds."""
        held = {
            id(tensor): (group.get("initial_lr", group["lr"]), group.get("weight_decay"), group.get("algorithm"))
            for group in (optimizer.param_groups if optimizer is not None else ())
            for tensor in group["params"]
        }
        kind = type(optimizer).__name__ if optimizer is not None else None
        totals: dict[tuple, list[int]] = {}
        for item in planned:
            rates: tuple = (None, None, None)
            if item.is_trainable:
                lr, decay, algorithm = held.get(id(item.tensor), (item.learning_rate, item.weight_decay, None))
                rates = (float(lr), None if decay is None else float(decay), algorithm or kind)
            total = totals.setdefault((item.part, item.is_trainable, *rates), [0, 0])
            total[0] += item.tensor.numel()
            total[1] += 1
        rows = tuple(
            LedgerRow(part, parameters, tensors, trains, lr, decay, name)
            for (part, trains, lr, decay, name), (parameters, tensors) in totals.items()
        )
        return cls(rows, {name: digest(tensor) for name, (tensor, _) in _watched(model, planned).items()})

    def close(self, model: nn.Module, planned: Sequence[PlannedTensor], steps: int) -> "Ledger":
        """The ledger with the proof after `steps` optimiser steps."""
        watched = _watched(model, planned)
        if set(watched) != set(self.digests):
            strange = sorted(set(watched) ^ set(self.digests))
            raise CheckpointError(
                f"The ledger was opened on other tensors: {len(strange)} differ ({', '.join(strange[:3])}). "
                "Close it on the model it was opened on, or delete ledger.json and start the run anew."
            )
        moved = {name: digest(tensor) != self.digests[name] for name, (tensor, _) in watched.items()}
        proof = Proof(
            steps,
            sum(not trains for _, trains in watched.values()),
            sum(trains for _, trains in watched.values()),
            tuple(name for name, (_, trains) in watched.items() if not trains and moved[name]),
            tuple(name for name, (_, trains) in watched.items() if trains and not moved[name]),
        )
        return replace(self, proof=proof)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable_parameters(self) -> int:
        """Parameters that train."""
        return sum(row.parameters for row in self.rows if row.is_trainable)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `Ledger.from_json` is the inverse."""
        return {
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "rows": [asdict(row) for row in self.rows],
            "proof": None if self.proof is None else {**asdict(self.proof), "is_kept": self.proof.is_kept},
            "digests": dict(self.digests),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Ledger":
        """Read what `to_json` wrote."""
        proof = data.get("proof")
        if proof is not None:
            lists = {name: tuple(proof[name]) for name in ("changed_frozen", "unmoved_trainable")}
            proof = Proof(proof["steps"], proof["frozen"], proof["trainable"], **lists)
        return cls(tuple(LedgerRow(**row) for row in data["rows"]), data["digests"], proof)

    def write(self, path: Path | str) -> None:
        """Write JSON; the file is replaced as a whole."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        beside.replace(path)

    @classmethod
    def read(cls, path: Path | str) -> "Ledger":
        """Read a ledger.json."""
        return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))

    def table(self) -> str:
        """The ledger for a terminal."""
        head = ("part", "parameters", "tensors", "state", "learning rate", "weight decay", "optimizer")
        body = [
            (
                row.part,
                f"{row.parameters:,}",
                str(row.tensors),
                "trains" if row.is_trainable else "frozen",
                "-" if row.learning_rate is None else f"{row.learning_rate:.2e}",
                "-" if row.weight_decay is None else f"{row.weight_decay:g}",
                row.optimizer or "-",
            )
            for row in self.rows
        ]
        body.append(("total", f"{self.parameters:,}", "", f"{self.trainable_parameters:,} train", "", "", ""))
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *body)]
        lines.insert(1, "-" * len(lines[0]))
        if self.proof is not None:
            lines.append(_verdict(self.proof))
        return "\n".join(line.rstrip() for line in lines)


def digest(tensor: Tensor) -> str:
    """16 hexadecimal digits over the bytes of a tensor (any dtype), so that -0.0 and 0.0 or two NaNs are told apart."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)
    return hashlib.blake2b(data.numpy().data, digest_size=8).hexdigest()


def _watched(model: nn.Module, planned: Sequence[PlannedTensor]) -> dict[str, tuple[Tensor, bool]]:
    """Name -> (tensor, trains): every parameter, and the buffers of parts in which nothing trains."""
    watched: dict[str, tuple[Tensor, bool]] = {item.name: (item.tensor, item.is_trainable) for item in planned}
    alive = {item.part for item in planned if item.is_trainable}
    for part, module in model.parts.items():
        if part not in alive:
            watched.update({f"{part}.{name}": (buffer, False) for name, buffer in module.named_buffers()})
    return watched


def _verdict(proof: Proof) -> str:
    words = [f"after {proof.steps} steps:"]
    if proof.changed_frozen:
        words.append(f"{len(proof.changed_frozen)} of {proof.frozen} frozen tensors CHANGED ({proof.changed_frozen[0]} ...),")
    else:
        words.append(f"{proof.frozen} frozen tensors bit-equal,")
    if proof.unmoved_trainable:
        stayed = ", ".join(proof.unmoved_trainable[:5])
        words.append(f"{len(proof.unmoved_trainable)} of {proof.trainable} trainable tensors did NOT move ({stayed})")
    else:
        words.append(f"{proof.trainable} trainable tensors all moved")
    return " ".join(words)
