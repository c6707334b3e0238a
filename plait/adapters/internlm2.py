"""InternLM2 and Mono-InternVL (arXiv 2410.08202) <-> a llama of transformers, without vision experts and with them.

What is said of them here was read in OpenGVLab's public `modeling_internlm2.py` and `modeling_internlm2_ve.py`. The architecture is
that of llama under other names, with one map for queries, keys and values: its rows are grouped by key head, each group holding the
queries that share the head, then its key, then its value. Splitting it into thirds would run and be wrong. Mono-InternVL adds a
feed-forward for visual tokens beside that of text (`feed_forward_ve`), here the experts of plait.backbones.experts. Both directions
move rows and round nothing, so there and back is exact. Names and shapes only: whether the weights fit a model says
`plait.checkpoints.check_weights`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plait.adapters.shards import read_shards
from plait.errors import CheckpointError

PREFIX = "language_model."
"""before every name where the model is part of a larger one"""
INPUT, OUTPUT = "model.tok_embeddings.weight", "output.weight"
TABLES = {INPUT: "model.embed_tokens.weight", OUTPUT: "lm_head.weight", "model.norm.weight": "model.norm.weight"}
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
MAPS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
TEXT, VISION = "feed_forward", "feed_forward_ve"
GROUPED, SEPARATE = "attention.wqkv", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
LAYER = re.compile(r"model\.layers\.(\d+)\.")
DEFAULTS = {
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
"""what a config that leaves a setting out means, where llama has the setting under the same name"""


def read_internlm2(folder: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A release of InternLM2 as a llama: its settings (see `read_settings`) and its weights (see `to_llama`).

    Args:
        folder: with config.json and weights in safetensors; no code of it is run.

    Raises:
        CheckpointError: the folder holds another model or none, or see `to_llama`.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"No InternLM2 in {folder}: expected config.json and safetensors, as in internlm/internlm2-chat-1_8b."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}. Expected JSON. Fetch the release again.") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "internlm2":
        raise CheckpointError(
            f"{path} has model_type {kind!r}, expected 'internlm2'. A language model that transformers knows needs no converting: "
            "backbone=hub backbone.name_or_folder=<folder>."
        )
    settings = read_settings(config)
    heads = {name: settings[name] for name in ("num_attention_heads", "num_key_value_heads")}
    return settings, to_llama(read_shards(folder), **heads, is_tied=settings["tie_word_embeddings"])


def read_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a llama (for `CausalLM.from_config("llama", **settings)`) that computes what a config of InternLM2 describes.

    `dynamic` rotary positions become ordinary ones: they begin to differ beyond max_position_embeddings, where a backbone of plait
    takes no document. Token ids are left out: row `pad_token_id` is a row like any other.

    Raises:
        CheckpointError: a size is missing, or the rotary positions are of a kind that InternLM2 does not have.
    """
    sizes = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    missing = [name for name in sizes if name not in config]
    if missing:
        raise CheckpointError(f"The config of InternLM2 lacks {', '.join(missing)}, expected all of {', '.join(sizes)}.")
    scaling = config.get("rope_scaling") or {"type": "dynamic"}
    if scaling.get("type") not in ("linear", "dynamic"):
        raise CheckpointError(f"The config of InternLM2 has rope_scaling={scaling}, expected type linear or dynamic, or none.")
    rope = {"rope_type": "linear", "factor": scaling["factor"]} if scaling["type"] == "linear" else {"rope_type": "default"}
    return {
        **{name: config[name] for name in sizes},
        **{name: config.get(name, default) for name, default in DEFAULTS.items()},
        "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "attention_bias": config.get("bias", True),
        "rope_parameters": rope | {"rope_theta": float(config.get("rope_theta", 10_000))},
    }


def to_llama(
    released: Mapping[str, Tensor], *, num_attention_heads: int, num_key_value_heads: int, is_tied: bool = False
) -> dict[str, Tensor]:
    """A state dict of InternLM2 under the names of a llama of transformers (what `CausalLM.model` holds).

    Args:
        released: all names with `language_model.` before them, or none.
        num_attention_heads: heads of the queries.
        num_key_value_heads: heads of keys and values.
        is_tied: whether input and output share the table; then `output.weight` may be missing.

    Raises:
        CheckpointError: names are missing or unknown, the rows of a `wqkv` do not divide into the heads, or a tied output differs.
    """
    has_prefix = any(name.startswith(PREFIX) for name in released)
    weights = {name.removeprefix(PREFIX) if has_prefix else name: value for name, value in released.items()}
    if has_prefix:
        outside = [name for name in released if not name.startswith(PREFIX)]
        _refuse("InternLM2", [], outside, "Hand over the language model alone")
    if is_tied and OUTPUT not in weights and INPUT in weights:
        weights[OUTPUT] = weights[INPUT]
    names = _names(weights, experts=f".{VISION}.", bias=f"{GROUPED}.bias")
    _compare("InternLM2", weights, [name for name, _ in names])
    if is_tied and weights[OUTPUT] is not weights[INPUT] and not torch.equal(weights[OUTPUT], weights[INPUT]):
        raise CheckpointError(f"{OUTPUT} differs from {INPUT}, but the config ties them (tie_word_embeddings).")
    llama: dict[str, Tensor] = {}
    for name, ours in names:
        parts = [weights[name]] if isinstance(ours, str) else split(weights[name], num_attention_heads, num_key_value_heads)
        llama |= zip([ours] if isinstance(ours, str) else ours, parts, strict=True)
    return llama


def to_internlm2(
    weights: Mapping[str, Tensor], *, num_attention_heads: int, num_key_value_heads: int, prefix: str = ""
) -> dict[str, Tensor]:
    """The state dict of a llama, with vision experts or without, in the layout of InternLM2; the way back of `to_llama`.

    Args:
        weights: what `CausalLM.model` holds.
        num_attention_heads: heads of the queries.
        num_key_value_heads: heads of keys and values.
        prefix: what stands before every name (`PREFIX`, or nothing).

    Raises:
        CheckpointError: names are missing, or have no place in the layout.
    """
    names = _names(weights, experts=".mlp.vision.", bias=f"{SEPARATE[0]}.bias")
    flat = [name for _, ours in names for name in ([ours] if isinstance(ours, str) else ours)]
    _compare("A llama", weights, flat)
    released: dict[str, Tensor] = {}
    for name, ours in names:
        value = weights[ours] if isinstance(ours, str) else join([weights[part] for part in ours], num_key_value_heads)
        released[prefix + name] = value
    return released


def split(grouped: Tensor, num_attention_heads: int, num_key_value_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of a grouped map -> rows of the maps of queries, keys and values.

    Args:
        grouped: its first axis counts rows, [queries of the group, key, value] for every key head.

    Raises:
        CheckpointError: there are not as many rows as the heads need.
    """
    queries, left = divmod(num_attention_heads, num_key_value_heads)
    width, rest = divmod(len(grouped), num_attention_heads + 2 * num_key_value_heads)
    if left or rest or not width:
        raise CheckpointError(
            f"A wqkv of {len(grouped)} rows was asked for {num_attention_heads} heads of queries and {num_key_value_heads} of keys, "
            "expected a multiple of the queries plus twice the keys. Take the heads from the config of the release."
        )
    groups = grouped.unflatten(0, (num_key_value_heads, queries + 2, width))
    return tuple(part.flatten(0, 2) for part in (groups[:, :queries], groups[:, -2:-1], groups[:, -1:]))


def join(separate: list[Tensor], num_key_value_heads: int) -> Tensor:
    """Rows of the maps of queries, keys and values -> rows of the grouped map; the way back of `split`.

    Raises:
        CheckpointError: keys and values differ in shape, or the rows do not divide into so many heads.
    """
    query, key, value = separate
    if key.shape != value.shape or len(key) % num_key_value_heads or len(query) % len(key):
        raise CheckpointError(
            f"Maps of {len(query)}, {len(key)} and {len(value)} rows make no groups of {num_key_value_heads} key heads. "
            "Take the heads from the config of the model."
        )
    groups = [part.unflatten(0, (num_key_value_heads, -1)) for part in separate]
    return torch.cat(groups, dim=1).flatten(0, 1)


def _names(weights: Mapping[str, Tensor], experts: str, bias: str) -> list[tuple[str, str | tuple[str, ...]]]:
    """(name in InternLM2, name or names in llama) of every tensor of a model with the layers, experts and biases that are found."""
    num_layers = 1 + max((int(match[1]) for name in weights if (match := LAYER.match(name))), default=-1)
    has_experts = any(experts in name for name in weights)
    kinds = ["weight", "bias"] if any(name.endswith(bias) for name in weights) else ["weight"]
    names: list[tuple[str, str | tuple[str, ...]]] = list(TABLES.items())
    for index in range(num_layers):
        layer = f"model.layers.{index}."
        for kind in kinds:
            names.append((f"{layer}{GROUPED}.{kind}", tuple(f"{layer}{part}.{kind}" for part in SEPARATE)))
            names.append((f"{layer}attention.wo.{kind}", f"{layer}self_attn.o_proj.{kind}"))
        forwards = {TEXT: "mlp.text", VISION: "mlp.vision"} if has_experts else {TEXT: "mlp"}
        for theirs, ours in forwards.items():
            names += [(f"{layer}{theirs}.{a}.weight", f"{layer}{ours}.{b}.weight") for a, b in MAPS.items()]
        names += [(f"{layer}{theirs}.weight", f"{layer}{ours}.weight") for theirs, ours in NORMS.items()]
    return names


def _compare(whose: str, weights: Mapping[str, Tensor], expected: list[str]) -> None:
    missing, unknown = set(expected) - set(weights), set(weights) - set(expected)
    _refuse(whose, sorted(missing), sorted(unknown), "Expected every tensor of the model, under its name, and no other")


def _refuse(whose: str, missing: list[str], unknown: list[str], advice: str) -> None:
    found = [
        f"{len(names)} names are {what} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown))
        if names
    ]
    if found:
        raise CheckpointError(f"{whose}: {' and '.join(found)}. {advice}.")
