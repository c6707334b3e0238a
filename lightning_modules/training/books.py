"""The book of a stage: sums and counts of loss terms and metrics, kept on the device until a mean is asked for.

It does not know weights, units or when something is logged. Means are taken once, over everything that was added, so a mean
over micro-batches or ranks of different size is the mean over their targets.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from plait.records import LossTerms


@dataclass
class StepBook:
    """Adds up `LossTerms`; `close` gives totals and opens a new page."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, list[tuple[float | Tensor, float | Tensor]]] = field(default_factory=dict)
    loss: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added since the last `close`."""
        return not self.counts

    def add(self, terms: LossTerms, loss: Tensor | None = None) -> None:
        """Add the terms of one batch and, in training, its weighted share of the step's loss."""
        for name, value in terms.sums.items():
            self.sums[name] = value.detach() + self.sums.get(name, 0.0)
            self.counts[name] = terms.counts[name] + self.counts.get(name, 0.0)
        for name, metric in terms.metrics.items():
            self.metrics.setdefault(name, []).append(metric)
        if loss is not None:
            self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()

    def close(self) -> "Totals":
        """The totals of all ranks (every rank must call), with one wait for the device."""
        values = [(f"sums/{name}", value) for name, value in self.sums.items()]
        values += [(f"counts/{name}", count) for name, count in self.counts.items()]
        for name, added in self.metrics.items():  # added up on the host, where numbers have more digits
            values += [
                pair for value, count in added for pair in ((f"metrics/{name}", value), (f"metric_counts/{name}", count))
            ]
        if self.loss is not None:
            values.append(("loss/", self.loss))
        own: dict[str, float] = {}
        for key, value in zip((key for key, _ in values), _read([value for _, value in values]), strict=True):
            own[key] = own.get(key, 0.0) + value
        totals = Totals()
        for rank in gather_ranks(own):
            for key, value in rank.items():
                kind, _, name = key.partition("/")
                if kind == "loss":
                    totals.loss += value
                else:
                    page = getattr(totals, kind)
                    page[name] = page.get(name, 0.0) + value
        self.__init__()
        return totals


@dataclass
class Totals:
    """Plain numbers of a closed book."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    metric_counts: dict[str, float] = field(default_factory=dict)
    loss: float = 0.0

    def means(self, unit: str | None) -> dict[str, float]:
        """Log key (without prefix) -> mean, of everything that has a count."""
        suffix = f"_{unit}" if unit else ""
        means = {f"{name}_loss{suffix}": total / self.counts[name] for name, total in self.sums.items() if self.counts[name]}
        counted = {name: count for name, count in self.metric_counts.items() if count}
        return means | {name: self.metrics[name] / count for name, count in counted.items()}


def _read(values: list[float | Tensor]) -> list[float]:
    tensors = [value.detach().reshape(()).float() for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(read) if isinstance(value, Tensor) else float(value) for value in values]


def gather_ranks(own: Any) -> list[Any]:
    """What every rank has, in rank order (every rank must call)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    gathered: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, own)
    return gathered
