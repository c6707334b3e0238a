"""What a recipe asks of the machine, checked before anything is built."""

import torch

from plait.errors import RecipeError


def check_accelerator(accelerator: str) -> None:
    """Refuse a GPU where there is none.

    Raises:
        RecipeError: see above; says what was found.
    """
    if accelerator not in ("gpu", "cuda") or torch.cuda.is_available():
        return
    if accelerator == "gpu" and torch.backends.mps.is_available():
        return
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    raise RecipeError(
        f"trainer.accelerator={accelerator}, but no GPU was found: torch {torch.__version__} is {build} and sees "
        f"{torch.cuda.device_count()} CUDA devices. Next: trainer=cpu trains on this machine; on one with a GPU, look at "
        "nvidia-smi, CUDA_VISIBLE_DEVICES and the build of torch."
    )
