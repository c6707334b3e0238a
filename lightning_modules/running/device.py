"""Where a job computes and in which precision, decided here for every job: the words `device` and `dtype` of its config.

A training computes where its Trainer does, in the Trainer's precision (which the word may repeat and not contradict). Every other job
gets its modules on the device that is chosen here: auto takes a GPU where there is one. Their weights are those of the checkpoint: on a
GPU in its own dtype, on the CPU in float32. Companions of a model (its vision tokenizer) go with it and keep their precision, losses,
figures and the choice of codes are computed in float32 by those who compute them. It knows no job.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.folders.records import last_checkpoint
from lightning_modules.processes.ranks import own_local_rank
from plait.checkpoints import read_dtype
from plait.errors import RecipeError

WORDS = ("auto", "cpu", "cuda")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(word: str = "auto") -> torch.device:
    """The device of a job; of several ranks on a machine each has its own.

    Raises:
        RecipeError: the word is another one, or a GPU is asked for where there is none.
    """
    if word not in WORDS:
        raise RecipeError(
            f"device={word}, expected {', '.join(WORDS[:-1])} or {WORDS[-1]}. Next: leave it out, or set one of them."
        )
    if word == "cuda":
        check_accelerator(word, "device")
    if word == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", own_local_rank() % torch.cuda.device_count())


def choose_dtype(word: str | torch.dtype, device: torch.device, checkpoint: str | Path | None) -> torch.dtype:
    """The dtype of a model that is not trained.

    Args:
        word: auto, the name of a dtype, or a dtype.
        checkpoint: that its weights come from; None where they are drawn.

    Raises:
        RecipeError: the word is another one.
    """
    if isinstance(word, torch.dtype):
        return word
    if word == "auto":
        return torch.float32 if device.type == "cpu" or checkpoint is None else read_dtype(checkpoint)
    if word not in DTYPES:
        raise RecipeError(f"dtype={word}, expected auto, {', '.join(DTYPES)}. Next: leave it out, or set one of them.")
    return DTYPES[word]


def place_parts(config: DictConfig, assembly: Assembly) -> None:
    """Move what was built for a job to the device of its config: modules, and what holds one. A job whose config has no word for it
    computes on the host."""
    if "device" not in config:
        return
    device, model = choose_device(config.device), assembly.objects.get("model")
    if "dtype" in config and hasattr(model, "to"):
        where = None if OmegaConf.is_missing(config.base, "model") else config.base.get("model")
        model.to(choose_dtype(config.dtype, device, None if where in (None, "random") else last_checkpoint(where)))
    for found in assembly.objects.values():
        if callable(getattr(found, "to", None)):
            found.to(device)


def check_trainer_device(word: str, accelerator: str) -> None:
    """Refuse a training whose Trainer computes elsewhere than `device` says, or on a GPU that is not there.

    Raises:
        RecipeError: see above.
    """
    check_accelerator(accelerator, "trainer.accelerator")
    choose_device(word)
    is_known = word != "auto" and accelerator in ("cpu", "gpu", "cuda")
    if is_known and (word == "cpu") != (accelerator == "cpu"):
        raise RecipeError(
            f"device={word} and trainer.accelerator={accelerator}, expected one place: a training computes where its trainer does. Next: "
            f"leave device out, or take trainer={'cpu' if word == 'cpu' else 'gpu'}."
        )


def check_accelerator(accelerator: str, said: str) -> None:
    """Refuse a GPU where there is none.

    Args:
        said: the key that asks for it.

    Raises:
        RecipeError: see above; says what was found.
    """
    if accelerator not in ("gpu", "cuda") or torch.cuda.is_available():
        return
    if accelerator == "gpu" and torch.backends.mps.is_available():
        return
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    instead = "device=cpu computes" if said == "device" else "trainer=cpu trains"
    raise RecipeError(
        f"{said}={accelerator}, but no GPU was found: torch {torch.__version__} is {build} and sees "
        f"{torch.cuda.device_count()} CUDA devices. Next: {instead} on this machine; on one with a GPU, look at "
        "nvidia-smi, CUDA_VISIBLE_DEVICES and the build of torch."
    )
