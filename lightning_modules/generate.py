"""Draw and write with a finished run: `plait-generate run=<run folder> prompt="a red car"`."""

from typing import Any

import hydra
from omegaconf import DictConfig

import lightning_modules.instantiate  # noqa: F401 (teaches OmegaConf the references that configs use)
from lightning_modules.refusals import command


@command
@hydra.main(version_base="1.3", config_path="pkg://plait.conf", config_name="generate")
def main(config: DictConfig) -> Any:
    """The job of conf/generate.yaml."""
    from lightning_modules.launch import run_command  # here, so that --help and --cfg answer without loading torch

    return run_command(config)


if __name__ == "__main__":
    main()
