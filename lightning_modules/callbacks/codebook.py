"""The health of a codebook, measured on the validation pictures: how many codes are used, and how evenly.

Perplexity is exp of the entropy of the code frequencies: the number of codes that are used as if evenly. Both are bounded by
the number of codes seen, which is logged beside them. It knows `encode` and `code_sizes` of a VisionTokenizer and nothing else.
"""

from typing import Any

import lightning
import torch
from torch import Tensor

from lightning_modules.callbacks.quiet import Quiet
from plait.axes import Int
from plait.errors import RecipeError


class Codebook(Quiet):
    """Logs val/codebook_usage (share of codes seen at least once) and val/codebook_perplexity, per level if there are several.

    Args:
        max_batches: validation batches of all ranks that are encoded (encoding costs as much as the validation itself).
    """

    def __init__(self, max_batches: int = 8) -> None:
        self.max_batches = max_batches
        self._counts: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Forget the last validation."""
        if not hasattr(pl_module.model, "encode"):
            raise RecipeError(f"{type(pl_module.model).__name__} has no `encode`: Codebook watches tokenizers only.")
        sizes = pl_module.model.code_sizes
        self._counts = [torch.zeros(size, dtype=torch.int64, device=pl_module.device) for size in sizes]

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the codes of one batch; ranks take turns over them."""
        if batch is not None and batch_idx * trainer.world_size + trainer.global_rank < self.max_batches:
            for counts, grid in zip(self._counts, pl_module.model.encode(batch["images"]), strict=True):
                counts += torch.bincount(grid.flatten(), minlength=len(counts))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Log over all batches and ranks."""
        values = {}
        for level, counts in enumerate(self._counts):
            counts = trainer.strategy.reduce(counts, reduce_op="sum")
            suffix = f"_{level}" if len(self._counts) > 1 else ""
            health = measure_codebook(counts)
            values |= {f"val/codebook_{name}{suffix}": value for name, value in health.items()}
        pl_module.log_dict(values, batch_size=1)


def measure_codebook(counts: Int[Tensor, "k"]) -> dict[str, float]:
    """Usage, perplexity and number of codes seen, from how often each code was seen."""
    seen = counts.double()
    total = seen.sum().clamp(min=1)
    shares = seen / total
    entropy = -(shares * shares.clamp(min=1e-300).log()).sum()
    return {
        "usage": float((counts > 0).double().mean()),
        "perplexity": float(entropy.exp()),
        "positions": float(seen.sum()),
    }
