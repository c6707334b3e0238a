"""The one place where a job runs: folder, passport, seeds, bases, the job itself, and a word about how it ended.

A job is the node `job` of a config: building it runs it. This file does not know what a job does (see `jobs.py` and
`loops/curriculum.py`) nor which system it is about.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from lightning_modules.instantiate import Assembly
from plait.checkpoints import load_weights, read_manifest
from plait.errors import CheckpointError, RecipeError
