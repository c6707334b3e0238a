"""Where golden numbers lie and how a test asks for a family of them: every file, shapes and settings read from the file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(os.environ.get("PLAIT_GOLDENS", Path(__file__).parents[1] / ".." / "shared" / "goldens"))


def family(*patterns: str) -> list[Any]:
    """Parameters for a test that takes a path: one per file with its stem as id, or one that is skipped where there is none."""
    files = sorted({path for pattern in patterns for path in FOLDER.glob(f"{pattern}.npz")})
    absent = pytest.mark.skip(f"no {' or '.join(patterns)} in {FOLDER}: set PLAIT_GOLDENS to the goldens")
    return [pytest.param(path, id=path.stem) for path in files] or [pytest.param(None, id="absent", marks=absent)]


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def tensor(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor."""
    return torch.from_numpy(np.asarray(array))


def weights(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state dict that a file holds under `w.`."""
    return {name[2:]: tensor(value) for name, value in golden.items() if name.startswith("w.")}
