"""A model and data of a few lines: the machinery of training is tested without any real network."""

import functools
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_model
from torch import nn
from torch.utils.data import Dataset

from lightning_modules.callbacks.last_checkpoint import LastCheckpoint
from lightning_modules.stage import Stage
from lightning_modules.tracking.loggers import JsonlLogger
from lightning_modules.training import schedules
from lightning_modules.training.checkpoint_io import FolderCheckpointIO
from lightning_modules.training.data import DataModule
from plait.freezing import FreezePlan
from plait.records import LossTerms


class Model(nn.Module):
    """Two parts, dropout, two loss terms of which the second has a target in every second row only."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=0.5), nn.Dropout(dropout))
        self.layers = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"body": self.body, "hidden": nn.ModuleDict({"layers": self.layers}), "head": self.head}

    def loss(self, batch: dict[str, Any]) -> LossTerms:
        out = self.head(self.layers(self.body(batch["x"]))) ** 2
        rows, drawn = len(batch["x"]), batch["is_drawn"]
        sums = {"text": out[:, 0].sum(), "image": out[drawn, 1].sum()}
        return LossTerms(sums, {"text": float(rows), "image": float(drawn.sum())}, {"rows": (float(rows), 1.0)})


class Numbers(Dataset):
    """Batch k holds rows k*size .. of an endless table; a pure function of k."""

    def __init__(self, batches: int, size: int = 4, accumulate: int = 1, rank: int = 0, num_ranks: int = 1) -> None:
        self.batches, self.size, self.accumulate, self.rank, self.num_ranks = batches, size, accumulate, rank, num_ranks
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, k: int) -> dict[str, Any]:
        self.asked.append(k)
        rows = range(k * self.size, (k + 1) * self.size)
        x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(row)) for row in rows])
        is_drawn = torch.tensor([row % 4 != 1 for row in rows])
        first = k - k % self.accumulate
        step = range(first * self.size, (first + self.accumulate) * self.size)
        mine = slice(self.rank, None, self.num_ranks)
        return {
            "x": x[mine],
            "is_drawn": is_drawn[mine],
            "counts": {"text": float(len(step)), "image": float(sum(row % 4 != 1 for row in step))},
        }


def make_stage(max_steps: int = 12, dropout: float = 0.1, seed: int = 0, **changes: Any) -> Stage:
    torch.manual_seed(seed)
    settings = {
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-2),
        "schedule": functools.partial(schedules.cosine, warmup_steps=3),
        "freeze_plan": FreezePlan(),
    }
    return Stage(Model(dropout), max_steps=max_steps, **{**settings, **changes})


def make_trainer(folder: Path, max_steps: int = 12, callbacks: tuple = (), loggers: tuple = (), **changes: Any) -> Any:
    settings = {
        "max_epochs": -1,
        "accelerator": "cpu",
        "devices": 1,
        "log_every_n_steps": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return lightning.Trainer(
        max_steps=max_steps,
        callbacks=list(callbacks),
        logger=[JsonlLogger(folder), *loggers],
        plugins=[FolderCheckpointIO(config={"stub": True})],
        default_root_dir=folder,
        **{**settings, **changes},
    )


def train(
    folder: Path, stage: Stage, data: DataModule, *, every_n_steps: int = 0, ckpt_path: Any = None, **changes: Any
) -> Any:
    callbacks = (*changes.pop("callbacks", ()), LastCheckpoint(folder, every_n_steps))
    trainer = make_trainer(folder, callbacks=callbacks, **changes)
    trainer.fit(stage, datamodule=data, ckpt_path=ckpt_path)
    return trainer


class SaveWeights(Callback):
    """Writes the weights of each rank to `folder`/rank-<n>.safetensors when training ends."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        save_model(pl_module.model, str(self.folder / f"rank-{trainer.global_rank}.safetensors"))
