"""Train a recipe or a curriculum: `plait-train experiment=liquid/pretraining`, `plait-train curriculum=demo`."""

from typing import Any

import hydra
from omegaconf import DictConfig

from lightning_modules.launch import run_command


@hydra.main(version_base="1.3", config_path="pkg://plait.conf", config_name="train")
def main(config: DictConfig) -> Any:
    """The job of conf/train.yaml."""
    return run_command(config)


if __name__ == "__main__":
    main()
