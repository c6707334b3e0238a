"""`hydra/launcher=gpus`: the jobs of a multirun side by side, one per visible device, the rest waiting.

Why ours: no released launcher gives a job a device. joblib's (hydra-joblib-launcher 1.2.0) only limits how many run at once, and
submitit's local executor (1.5.4) starts all jobs at once and shows each the same first `gpus_per_node` devices; Hydra's maintainers
leave placement to launchers of others (hydra-ecosystem/hydra issues 2757, 3002). How jobs are placed, stopped and counted is in
`lightning_modules.processes.device_queue`; here is only what Hydra wants of a launcher.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from lightning_modules.processes.device_queue import Job, find_devices, find_failure, run_queue


class GpuLauncher(Launcher):
    """Runs the jobs of a multirun through a queue of devices.

    Args:
        devices: ids as CUDA_VISIBLE_DEVICES takes them; one that stands twice takes two jobs at a time. None takes all visible ones.
    """

    def __init__(self, devices: Sequence[int | str] | None = None) -> None:
        self.devices = devices

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a job needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs to their end.

        Returns:
            One result per job; reading that of a failed one raises a `FailedJobsError`, which names all that failed.

        Raises:
            RecipeError: there is no device.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        devices = find_devices() if self.devices is None else [str(device) for device in self.devices]
        jobs = [self._job(list(overrides), initial_job_idx + index) for index, overrides in enumerate(job_overrides)]
        outcomes = run_queue(jobs, devices)
        error = find_failure(jobs, outcomes)
        return [
            JobReturn(
                overrides=list(overrides),
                status=JobStatus.FAILED if outcome.exit_code else JobStatus.COMPLETED,
                _return_value=error if outcome.exit_code else outcome.value,
            )
            for overrides, outcome in zip(job_overrides, outcomes, strict=True)
        ]

    def _job(self, overrides: list[str], number: int) -> Job:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        title = " ".join(filter_overrides(overrides))
        return Job(number, title, partial(self._run, config), Path(self.config.hydra.sweep.dir) / f"{number}.log")

    def _run(self, config: DictConfig) -> Any:
        """One job, in its own process."""
        result = run_job(
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=self.hydra_context,
        )
        return result.return_value


def register() -> None:
    """Make the launcher known: Hydra looks through folders, and an editable install is found without one."""
    Plugins.instance().register(GpuLauncher)
