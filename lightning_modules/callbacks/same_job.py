"""The last look before step 1: the ranks that will train together are about one job."""

from collections.abc import Mapping
from typing import Any

import lightning

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.processes.ranks import compare_training_ranks


class SameJob(Quiet):
    """Compares job id and config hash of all ranks once they are joined (lightning_modules/processes/ranks.py says why).

    Args:
        identity: job_id and config_hash, as the launcher agreed on them.
    """

    def __init__(self, identity: Mapping[str, str]) -> None:
        self.identity = identity

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Compare.

        Raises:
            RecipeError: two ranks are about different jobs.
        """
        compare_training_ranks(self.identity)
