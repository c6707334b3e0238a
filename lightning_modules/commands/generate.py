"""Ask a finished run: `plait-generate run=<run folder> prompt='a red car'`, or image=<file> with question= or edit=, or document=<file>."""

import sys
from typing import Any

import hydra
from omegaconf import DictConfig

import lightning_modules.composing.instantiate  # noqa: F401 (teaches OmegaConf the references that configs use)
from lightning_modules.desk.words import read_words
from lightning_modules.running.refusals import command


@hydra.main(version_base="1.3", config_path="pkg://plait.conf", config_name="generate")
def run(config: DictConfig) -> Any:
    """The job of conf/generate.yaml."""
    from lightning_modules.running.launch import run_command  # here, so that --help and --cfg answer without loading torch

    return run_command(config)


@command
def main() -> None:
    """Texts as they were typed, then Hydra."""
    sys.argv[1:] = read_words(sys.argv[1:])
    run()


if __name__ == "__main__":
    main()
