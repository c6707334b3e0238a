"""Write the model of a finished run for use elsewhere: `plait-export run=<run folder> target=<folder>`."""

from typing import Any

import hydra
from omegaconf import DictConfig

import lightning_modules.composing.instantiate  # noqa: F401 (teaches OmegaConf the references that configs use)
from lightning_modules.running.refusals import command


@command
@hydra.main(version_base="1.3", config_path="pkg://plait.conf", config_name="export")
def main(config: DictConfig) -> Any:
    """The job of conf/export.yaml."""
    from lightning_modules.running.launch import run_command  # here, so that --help and --cfg answer without loading torch

    return run_command(config)


if __name__ == "__main__":
    main()
