"""Batches for the Trainer: whole batches by number, exact on resume.

The dataset is map-style over batch numbers and returns whole batches; batch k is a pure function of (seed, k), so a resume is a
seek. It does not know the Trainer, yet each batch carries the counts of its whole optimiser step: a dataset says for how many
micro-batches per step (`accumulate`) and ranks (`num_ranks`, of which it is `rank`) it was built, and that is compared here
with what the Trainer does. Every epoch reads the same batches: a longer training asks its dataset for more batches, not for
more epochs.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from plait.errors import RecipeError


class BatchOrder(SequentialSampler):
    """Batch numbers from where training stands. The length is that of the whole epoch all the same: Lightning would restart its
    batch index at the length of a remainder.

    Args:
        size: batches in the dataset.
        first: () -> batches of this epoch that are done; asked at each pass.
        share: (rank, ranks) where ranks take turns over whole batches; (0, 1) where the dataset shares out inside each batch. All take
            the same number of steps, as DDP asks for: in the last one a number may be beyond the dataset (see `Turns`).
    """

    def __init__(self, size: int, first: Callable[[], int], share: tuple[int, int] = (0, 1)) -> None:
        self.size, self.first = size, first
        self.rank, self.ranks = share

    def __len__(self) -> int:
        return -(-self.size // self.ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank + self.first() * self.ranks, len(self) * self.ranks, self.ranks))


class Windows(Dataset):
    """Batches that a dataset makes together, as one item: what is dealt to workers, so that each window is computed once.

    Args:
        batches: dataset over batch numbers.
    """

    def __init__(self, batches: Dataset) -> None:
        self.batches = batches

    def __getitem__(self, numbers: Sequence[int]) -> list[Any]:
        return [self.batches[number] for number in numbers]


class WindowOrder(SequentialSampler):
    """Batch numbers in their order, those of one window together. (Lightning leaves a sequential order alone where it overfits.)

    Args:
        order: batch numbers.
        size: batches that are made together.
    """

    def __init__(self, order: BatchOrder, size: int) -> None:
        self.order, self.size = order, size

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[int]]:
        for _, numbers in groupby(self.order, lambda number: number // self.size):
            yield list(numbers)


class Turns(Dataset):
    """A dataset that ranks take turns over: None beyond its end, for a rank that has no batch in the last turn."""

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset, self.size = dataset, size
        self.batches_per_unit = getattr(dataset, "batches_per_unit", 1)

    def __getitem__(self, k: int) -> Any:
        return self.dataset[k] if k < self.size else None


class BatchLoader(DataLoader):
    """A DataLoader over windows that hands out their batches. It says to Lightning that it can be resumed; the position itself comes from
    the loop counters, which count micro-batches whose step is done and not what workers have fetched ahead."""

    def __iter__(self) -> Iterator[Any]:
        for window in super().__iter__():
            yield from window

    def state_dict(self) -> dict[str, int]:
        """For the record only."""
        return {"batches_done": self.sampler.order.first()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to do: `BatchOrder` asks the restored loop counters."""


class DataModule(lightning.LightningDataModule):
    """Training and validation batches.

    Args:
        train: dataset over batch numbers; has `accumulate`, `rank` and `num_ranks` where these are not 1, 0 and 1, and `batches_per_unit`
            where it makes several batches together.
        validation: dataset over batch numbers, all of which are read at each validation.
        num_workers: processes that build batches; 0 builds them in this one. What several batches are made from is dealt to one of them.
        pin_memory: for copies to a GPU.
    """

    def __init__(
        self, train: Dataset, validation: Dataset | None = None, *, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.num_workers, self.pin_memory = num_workers, pin_memory

    def setup(self, stage: str) -> None:
        """Switch validation off where there is nothing to validate on (Lightning warns of a loader that is empty or missing)."""
        if self.validation is None:
            self.trainer.limit_val_batches = 0

    def train_dataloader(self) -> DataLoader:
        """Batches of this rank from where training stands.

        Raises:
            RecipeError: dataset and Trainer disagree on the batches of an optimiser step.
        """
        self._check_step()
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return self._loader(self.train, BatchOrder(len(self.train), lambda: progress.current.processed))

    def val_dataloader(self) -> DataLoader:
        """All validation batches, which ranks take turns over; a limit in numbers (`limit_val_batches=4`) counts those of all ranks."""
        trainer, ranks = self.trainer, self.trainer.world_size
        if getattr(self.validation, "num_ranks", 1) == ranks:
            return self._loader(self.validation, BatchOrder(len(self.validation), lambda: 0))
        limit = trainer.limit_val_batches
        size = min(len(self.validation), limit) if isinstance(limit, int) else len(self.validation)
        return self._loader(Turns(self.validation, size), BatchOrder(size, lambda: 0, (trainer.global_rank, ranks)))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches that know how to move are moved by their own `to`."""
        if hasattr(batch, "to"):
            return batch.to(device, non_blocking=True)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the data says of itself (for the passport)."""
        named = {"train": self.train, "validation": self.validation}
        return {name: _describe(dataset) for name, dataset in named.items() if dataset is not None}

    def _loader(self, dataset: Dataset, order: BatchOrder) -> BatchLoader:
        return BatchLoader(
            Windows(dataset),
            sampler=WindowOrder(order, getattr(dataset, "batches_per_unit", 1)),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # a loader without one draws from the global generator at every pass
        )

    def _check_step(self) -> None:
        trainer = self.trainer
        expected = {"accumulate": trainer.accumulate_grad_batches, "num_ranks": trainer.world_size, "rank": trainer.global_rank}
        found = {name: getattr(self.train, name, 0 if name == "rank" else 1) for name in expected}
        if found != expected:
            raise RecipeError(
                f"The training data was built for {_spell(found)}, the Trainer runs with {_spell(expected)}: the counts "
                "of targets per optimiser step would be wrong. Build the dataset with the numbers of the Trainer "
                "(batches.accumulate=${trainer.accumulate_grad_batches})."
            )
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise RecipeError("Ranks are served by batch number here: set Trainer(use_distributed_sampler=False).")


def _describe(dataset: Dataset) -> dict[str, Any]:
    fingerprint = getattr(dataset, "fingerprint", None)
    fingerprint = fingerprint() if callable(fingerprint) else fingerprint
    return {"class": type(dataset).__name__, "batches": len(dataset), "fingerprint": fingerprint}


def _spell(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name}={number}" for name, number in numbers.items())


def _as_it_is(batch: Any) -> Any:
    return batch
