"""A config of transformers from a name and sizes, where a misspelt size is an error and no token id is special by accident."""

from difflib import get_close_matches
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from plait.errors import RecipeError

TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")


def build_config(architecture: str | type[PreTrainedConfig], **sizes: Any) -> PreTrainedConfig:
    """The config of an architecture with the given settings.

    Token ids default to None: a class default such as Gemma's pad_token_id = 0 would freeze row 0 of the table at zero,
    whatever word our own tokenizer put there.

    Args:
        architecture: model type ("llama") or config class.
        sizes: settings of that class. `layer_types` may be a pattern, which is repeated to the number of layers.

    Raises:
        RecipeError: unknown architecture or setting, or a combination that the class refuses.
    """
    known = _known_settings(architecture)
    for name in sizes:
        if name not in known:
            close = get_close_matches(name, known, n=3) or sorted(known)[:8]
            raise RecipeError(
                f"The backbone {_name(architecture)!r} has no setting {name!r}: did you mean {', '.join(close)}? "
                f"Expected one of its {len(known)} settings."
            )
    # transformers tells lists from tuples (`layer_types`), a config file does not
    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
    if "layer_types" in sizes and "num_hidden_layers" in sizes:
        sizes["layer_types"] = _repeat(sizes["layer_types"], sizes["num_hidden_layers"])
    settings = {name: None for name in TOKEN_IDS if name in known} | sizes
    try:
        config = AutoConfig.for_model(architecture, **settings) if isinstance(architecture, str) else architecture(**settings)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise RecipeError(
            f"The backbone {_name(architecture)!r} refuses {sizes}: {error} Expected settings that go together; change them."
        ) from error
    heads, key_heads = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    if heads and key_heads and heads % key_heads:
        raise RecipeError(
            f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {key_heads}, which it has to be. "
            f"Set backbone.num_key_value_heads to a divisor of {heads}."
        )
    return config


def check_attention(config: PreTrainedConfig) -> None:
    """Refuse an attention that transformers would fetch as a repository of compiled code ("owner/kernel").

    Raises:
        RecipeError: naming it.
    """
    for own in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        named = getattr(own, "_attn_implementation", None)
        if "/" in str(named):
            raise RecipeError(
                f"config.json names the attention {named!r}, code of a repository, expected none: no code of a release is run. "
                "Next: take that key out."
            )


def _repeat(pattern: list[str], num_layers: Any) -> list[str]:
    if not isinstance(num_layers, int) or not pattern or num_layers % len(pattern):
        raise RecipeError(
            f"num_hidden_layers is {num_layers!r}, expected a multiple of the {len(pattern)} entries of layer_types. "
            "Change one of them."
        )
    return pattern * (num_layers // len(pattern))


def _known_settings(architecture: str | type[PreTrainedConfig]) -> set[str]:
    try:
        default = AutoConfig.for_model(architecture) if isinstance(architecture, str) else architecture()
    except (ValueError, KeyError) as error:
        raise RecipeError(
            f"transformers knows no architecture {architecture!r}: expected a model type such as llama, qwen3, gemma or gemma2."
        ) from error
    return set(default.to_dict()) | {name for name in vars(default) if not name.startswith("_")} | set(TOKEN_IDS)


def _name(architecture: str | type[PreTrainedConfig]) -> str:
    return architecture if isinstance(architecture, str) else architecture.__name__
