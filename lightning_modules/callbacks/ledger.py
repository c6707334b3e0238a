"""The ledger of a stage: written and shown before step 1, proven when training ends.

The digests of step 0 are part of the file, so a resumed run is proven from its first start. It does not know the plan itself
(plait/freezing.py) nor what the proof compares (plait/ledger.py).
"""

import logging
from pathlib import Path

import lightning

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.stage import Stage
from plait.errors import RecipeError
from plait.ledger import Ledger

log = logging.getLogger(__name__)


class LedgerFile(Quiet):
    """Writes ledger.json into the run folder.

    Args:
        folder: run folder.
        refuse_unmoved: raise if a trainable tensor did not move, instead of a warning in the log and the file. A frozen tensor
            that changed always raises.
    """

    def __init__(self, folder: str | Path, refuse_unmoved: bool = False) -> None:
        self.path = Path(folder) / "ledger.json"
        self.refuse_unmoved = refuse_unmoved
        self.ledger: Ledger | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Stage) -> None:
        """Open the ledger, or take up the one of the run that is resumed."""
        if not trainer.is_global_zero:
            return
        if trainer.global_step and self.path.is_file():
            self.ledger = Ledger.read(self.path)
            return
        self.ledger = Ledger.open(pl_module.model, pl_module.planned, trainer.optimizers[0])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.ledger.write(self.path)
        log.info("ledger of %s\n%s", type(pl_module).__name__, self.ledger.table())

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Stage) -> None:
        """Prove it.

        Raises:
            RecipeError: a frozen tensor changed, or (if asked) a trainable one did not move.
        """
        if self.ledger is None or not trainer.is_global_zero:
            return
        self.ledger = self.ledger.close(pl_module.model, pl_module.planned, trainer.global_step)
        self.ledger.write(self.path)
        proof = self.ledger.proof
        report = self.ledger.table()  # whose last line is what the proof found
        if proof.changed_frozen or (self.refuse_unmoved and proof.unmoved_trainable):
            raise RecipeError(f"What was trained is not what was planned (written to {self.path}).\n{report}")
        if proof.is_kept:  # the table was shown when training began
            log.info("proof: %s", report.splitlines()[-1])
        else:
            log.warning("proof\n%s", report)
