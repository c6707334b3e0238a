"""What a step of `Stage` with its callbacks costs beyond a bare Lightning step that computes and logs the same.

python benchmarks/measure_overhead.py

The model is a few hundred parameters, so that a step is nearly all machinery.
"""

import contextlib
import functools
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from side_by_side import CLOCKS, Arm, Report, read_options
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_modules.callbacks.last_checkpoint import LastCheckpoint
from lightning_modules.callbacks.ledger import LedgerFile
from lightning_modules.callbacks.passport import PassportFile
from lightning_modules.callbacks.progress import Progress
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.stage import Stage
from lightning_modules.tracking.loggers import JsonlLogger
from lightning_modules.training.checkpoint_io import FolderCheckpointIO
from lightning_modules.training.data import DataModule
from lightning_modules.training.schedules import trapezoid
from plait.records import LossTerms

STEPS, SKIPPED, LOG_EVERY = 300, 20, 20


class Model(nn.Module):
    """Two linear maps and two loss terms."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """For the freeze plan."""
        return {"body": self.body, "head": self.head}

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Two sums."""
        out = self.head(self.body(batch["images"])) ** 2
        count = float(len(out))
        return LossTerms({"text": out[:, 0].sum(), "image": out[:, 1].sum()}, {"text": count, "image": count})


class Batches(Dataset):
    """The same batches for both arms, made before."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(STEPS, 4, 8, generator=generator)
        self.batches = [{"images": batch, "counts": {"text": 4.0, "image": 4.0}} for batch in images]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.batches[number]


class Bare(lightning.LightningModule):
    """The least that computes the same numbers and hands them to the same logger at the same steps."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss and, where it is due, a row of the log."""
        terms = self.model.loss(batch)
        means = {name: value / batch["counts"][name] for name, value in terms.sums.items()}
        loss = sum(means.values())
        self.row = None
        if self.global_step == 0 or (self.global_step + 1) % LOG_EVERY == 0:
            self.row = {"train/loss": loss.detach()} | {f"train/{k}_loss_nats": v.detach() for k, v in means.items()}
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradient norm of a step that is logged."""
        if self.row is not None:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters()])
            self.row |= {"train/gradient_norm": norm, "train/learning_rate": optimizer.param_groups[0]["lr"]}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hand it over."""
        if self.row is not None:
            self.logger.log_metrics(self.row, self.global_step - 1)

    def configure_optimizers(self) -> dict[str, Any]:
        """The same optimiser and schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        scheduler = trapezoid(optimizer, max_steps=STEPS, warmup_steps=30)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Steps(lightning.Callback):
    """The time of the steps between the first few and the last; start and end of a fit are not its steps."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Note the beginning of the first step that counts, and of the last."""
        if trainer.global_step == SKIPPED:
            self.start = self.clock()
        if trainer.global_step == STEPS - 1:
            self.duration_s = (self.clock() - self.start) / (STEPS - 1 - SKIPPED)


def trainer(folder: Path, callbacks: list[lightning.Callback], **settings: Any) -> lightning.Trainer:
    """As conf/trainer/cpu.yaml has it."""
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        max_epochs=-1,
        gradient_clip_val=1.0,
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        logger=[JsonlLogger(folder)],
        callbacks=callbacks,
        default_root_dir=folder,
        **settings,
    )


def fit_stage(folder: Path, steps: Steps) -> None:
    """plait: `Stage`, every callback of conf/callbacks/default.yaml, the data module, the checkpoint format."""
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)
    stage = Stage(Model(), max_steps=STEPS, optimizer=optimizer, schedule=functools.partial(trapezoid, warmup_steps=30))
    callbacks = [steps, PassportFile(folder, config={}), LedgerFile(folder), LastCheckpoint(folder), Throughput(), Progress()]
    trainer(folder, callbacks, plugins=[FolderCheckpointIO()]).fit(stage, datamodule=DataModule(Batches()))


def fit_bare(folder: Path, steps: Steps) -> None:
    """Lightning alone: no checkpoints and no progress bar (its own draws at every batch and would flatter the comparison)."""
    loader = DataLoader(Batches(), batch_size=None, collate_fn=lambda batch: batch)
    trainer(folder, [steps], enable_checkpointing=False, enable_progress_bar=False).fit(Bare(), loader)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """The bar writes, and nobody watches."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def main() -> None:
    options = read_options(__doc__, rounds=15)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")  # Lightning's advice on workers

    def arm(name: str, fit: Callable[[Path, Steps], None], description: str) -> Arm:
        def run(number: int) -> tuple[float, float]:
            steps = Steps(CLOCKS[options.clock])
            with tempfile.TemporaryDirectory() as folder, silence():
                fit(Path(folder), steps)
            return 1, steps.duration_s

        return Arm(name, description, run)

    arms = [
        arm("Lightning", fit_bare, "a bare `Trainer` and a module of three hooks, which computes and logs the same numbers"),
        arm("plait", fit_stage, "`Stage`, its data module, the callbacks of conf/callbacks/default.yaml with the progress bar"),
    ]
    report = Report("overhead", "A step of Stage against a bare Lightning step", options)
    heading = f"{STEPS - 1 - SKIPPED} steps of a model of 178 parameters, a row in metrics.jsonl every {LOG_EVERY}"
    added = report.measure(heading, arms, unit="step").difference_s("plait")
    values = [f"{value * 1e3:.3f}" for value in (added.value, added.low, added.high)]
    report.text(
        f"plait adds {values[0]} [{values[1]}, {values[2]}] ms per step (median of the differences inside a round). Counted are "
        f"steps {SKIPPED} to {STEPS - 1} of a fit; W&B runs in neither arm.",
        added_ms_per_step=vars(added),
    )
    report.bar("at most 0.3 ms per step more", added.value <= 0.3e-3)
    report.close()


if __name__ == "__main__":
    main()
