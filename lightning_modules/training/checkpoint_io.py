"""Lightning's checkpoints in our folder format: safetensors and JSON, atomic, hashed; no pickle.

A resumable checkpoint and a base for the next stage are the same folder: the weights lie under the model's own names, so
`plait.checkpoints.load_weights(model, "last.ckpt")` reads them without Lightning. The folder's name must end in `.ckpt`, else
Lightning does not find it for `ckpt_path="last"`.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from plait.checkpoints import check_finite, read_checkpoint, save_checkpoint
from plait.errors import CheckpointError

PREFIX = "model."
"""what Lightning puts before the names of `Stage.model`"""


class FolderCheckpointIO(CheckpointIO):
    """Writes and reads checkpoint folders for the Trainer (`Trainer(plugins=[FolderCheckpointIO(...)])`).

    Args:
        config: what builds the model again, for the manifest.
        parents: the checkpoints that this run started from, for the manifest.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, parents: Sequence[Any] = ()) -> None:
        super().__init__()
        self.config = dict(config or {})
        self.parents = list(parents)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the folder; an older one of the same name stays whole until the new one is, and where weights or moments of the optimiser
        are not finite for good."""
        if storage_options is not None:
            raise CheckpointError(f"storage_options={storage_options!r} has no meaning for checkpoint folders: leave it out.")
        if Path(path).suffix != ".ckpt":
            raise CheckpointError(f"{path}: a checkpoint folder must end in '.ckpt', else Lightning does not find it again.")
        state = dict(checkpoint)
        weights: dict[str, Tensor] = {name.removeprefix(PREFIX): value for name, value in state.pop("state_dict").items()}
        check_finite(dict(_iterate_training(state)), f"{path} is not written: the training state that is to be saved")
        save_checkpoint(
            path,
            weights,
            state=state,
            model=state.get("model_class", ""),
            config=self.config,
            parents=self.parents,
            step=state.get("global_step"),
            is_complete=state.get("is_complete", False),
        )

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the folder into the dict that Lightning expects (on the CPU; Lightning moves it)."""
        checkpoint = read_checkpoint(path, with_state=True)
        restored = dict(checkpoint.state)
        restored["state_dict"] = {PREFIX + name: value for name, value in checkpoint.weights.items()}
        if isinstance(map_location, str | torch.device):
            restored["state_dict"] = {name: value.to(map_location) for name, value in restored["state_dict"].items()}
        return restored

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the folder."""
        if Path(path).exists():
            shutil.rmtree(path)


def _iterate_training(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that training goes on with besides the weights of the model: the optimiser's, and the weights behind an average."""
    yield from state.get("current_model_state", {}).items()
    for optimizer in state.get("optimizer_states", ()):
        for number, moments in optimizer["state"].items():
            yield from (
                (f"{name} of parameter {number}", value) for name, value in moments.items() if isinstance(value, Tensor)
            )
