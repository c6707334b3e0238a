"""Low-rank adapters in a backbone (LoRA, arXiv 2106.09685), made by peft.

An adapter adds B A x * alpha / rank to a linear map, with B = 0 at the start, so that a backbone computes at first what it did
without. What trains is said elsewhere, by the freeze plan of the stage (`adapter=lora`: everything but the adapters' tensors rests in
the backbone). Rows of the text table are no linear maps: those of a vocabulary that is extended train as before.
"""

from collections.abc import Iterator, Sequence

from torch import nn

from plait.backbones.causal_lm import CausalLM
from plait.errors import RecipeError


def add_lora(
    *,
    backbone: CausalLM,
    rank: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
) -> CausalLM:
    """Put adapters beside linear maps of the decoder and return the same backbone.

    Args:
        rank: of A and B.
        alpha: the adapter's output is multiplied by alpha / rank.
        dropout: of the adapter's input.
        targets: ends of module names ("q_proj", ...), or all linear maps but the output weight.

    Raises:
        RecipeError: peft is not installed, the backbone has adapters, a target meets nothing, or a number is outside its range.
    """
    try:
        import peft
    except ImportError as error:
        raise RecipeError("LoRA needs the package peft, which is not installed. Next: pip install 'plait[lora]'.") from error
    if any(_adapted(backbone.model)):
        raise RecipeError(
            "The backbone has low-rank adapters already, expected none: leave one adapter=lora out, or merge them."
        )
    if rank < 1 or not 0 <= dropout < 1:
        raise RecipeError(f"LoRA got rank={rank} and dropout={dropout}, expected rank >= 1 and 0 <= dropout < 1. Change them.")
    names = targets if isinstance(targets, str) else list(targets)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    try:
        peft.inject_adapter_in_model(config, backbone.model)
    except ValueError as error:
        linear = sorted(
            {name.rpartition(".")[2] for name, module in backbone.decoder.named_modules() if isinstance(module, nn.Linear)}
        )
        raise RecipeError(f"LoRA's targets {names} meet nothing in the backbone: expected some of {linear}.") from error
    return backbone


def merge_lora(backbone: CausalLM) -> CausalLM:
    """Add the adapters to the weights they stand beside and take them out; the backbone is then as transformers made it.

    Raises:
        RecipeError: there are no adapters.
    """
    found = list(_adapted(backbone.model))
    if not found:
        raise RecipeError("The backbone has no low-rank adapters to merge, expected some: was it built with adapter=lora?")
    for name, module in found:
        module.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(backbone.model.get_submodule(parent), leaf, module.get_base_layer())
    return backbone


def _adapted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Linear maps with an adapter: peft's layers, known by what they can do."""
    return ((name, module) for name, module in model.named_modules() if hasattr(module, "lora_A") and hasattr(module, "merge"))
