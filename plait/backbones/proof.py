"""Proof at construction that an architecture gives the same hidden states packed, cached and alone.

Names prove nothing: an architecture may ignore the attention function, carry state from one document into the next (state-space
and linear-attention layers), share keys between layers, or learn absolute positions that ignore ours. So a minute copy of the
architecture (a few layers, one per kind, windows shorter than the test documents, random weights that make attention sharp) is
run three ways against transformers' own eager code, document by document. It takes some tens of milliseconds once per kind of
config. Not covered: the values of released weights, numerics of other dtypes, and kernels of other devices.
"""

import json
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from plait.axes import Tensor
from plait.backbones.attention import NAME, DocumentScope
from plait.backbones.cache import RowCache
from plait.errors import PlaitError, RecipeError
from plait.records import Layout

LENGTHS = (7, 2, 5, 7)
TOLERANCE = 1e-3
"""relative to the spread of the hidden states; a token that sees one key too many is off by more than 0.05"""
TOKENS = 16
WINDOW = 3
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "head_dim": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
STATELESS = {"full_attention", "sliding_attention"}
TIED_TO_NEIGHBOURS = ("dynamic", "longrope")


def prove(config: PreTrainedConfig) -> None:
    """Check that a causal language model of this config can be packed per document and cached per row.

    Raises:
        RecipeError: it cannot, or a small copy cannot be built to find out; the message names the architecture and the reason.
    """
    text = config.get_text_config()
    stateful = set(getattr(text, "layer_types", None) or ()) - STATELESS
    if stateful:
        raise RecipeError(
            f"The backbone {config.model_type!r} is not supported: it has layers of kind {', '.join(sorted(stateful))}, which "
            "cannot be packed per document or cached per row. Expected full_attention and sliding_attention only."
        )
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in TIED_TO_NEIGHBOURS:
        raise RecipeError(
            f"The backbone {config.model_type!r} uses {rope!r} rotary positions, whose frequencies depend on the longest "
            "sequence of the call: a packed document would depend on its neighbours. Expected default, linear, llama3 or yarn."
        )
    _prove(json.dumps(shrink(config), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _prove(description: str) -> None:
    settings = json.loads(description)
    name = settings["model_type"]
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            model = build_small(settings)
            worst = _compare(model)
    except PlaitError as error:
        raise RecipeError(f"The backbone {name!r} is not supported: {error}") from error
    except Exception as error:  # whatever a foreign architecture throws is a reason to refuse it by name
        raise RecipeError(
            f"The backbone {name!r} is not supported: a small copy of it could not be run packed and cached "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Tested are llama, qwen3, gemma and gemma2."
        ) from error
    for way, (difference, advice) in worst.items():
        if not difference < TOLERANCE:
            raise RecipeError(
                f"The backbone {name!r} is not supported: its {way} differ from transformers' own by {difference:.2g} of their "
                f"spread, expected less than {TOLERANCE}. {advice} Tested are llama, qwen3, gemma and gemma2."
            )


def shrink(config: PreTrainedConfig) -> dict:
    """Settings of a minute model of the same architecture: a layer of each kind."""
    text = config.get_text_config()
    settings = {k: v for k, v in text.to_dict().items() if k not in ("dtype", "transformers_version", "architectures")}
    own_name = {**{key: key for key in SMALL}, **type(text).attribute_map}  # GPT-2 calls hidden_size n_embd
    small = {own_name[key]: value for key, value in SMALL.items() if settings.get(own_name[key]) is not None}
    kinds = list(dict.fromkeys(settings.get("layer_types") or ()))
    if kinds:
        small["layer_types"] = kinds if len(kinds) > 1 else kinds * 2
    small[own_name.get("num_hidden_layers", "num_hidden_layers")] = max(2, len(kinds))
    if settings.get("num_key_value_heads") is not None:
        grouped = settings["num_key_value_heads"] < text.num_attention_heads
        small["num_key_value_heads"] = 2 if grouped else SMALL["num_attention_heads"]
    if settings.get("sliding_window") is not None:
        small["sliding_window"] = WINDOW
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    return settings | small | ids | {"vocab_size": TOKENS, "model_type": text.model_type}


def build_small(settings: dict) -> PreTrainedModel:
    """A model with the settings of `shrink` in transformers' own eager code, with random weights that make attention sharp."""
    settings = dict(settings)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # sharp attention: with the usual 0.02 every rule of it would look alike
                nn.init.normal_(parameter, std=1.5 * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@torch.no_grad()
def _compare(model: PreTrainedModel) -> dict[str, tuple[float, str]]:
    documents = [torch.randint(TOKENS, (length,)) for length in LENGTHS]
    alone = [model(ids[None], output_hidden_states=False, use_cache=False) for ids in documents]
    decoder, table = model.get_decoder(), model.get_input_embeddings()
    hidden = [decoder(ids[None], use_cache=False).last_hidden_state[0] for ids in documents]
    scores = [_scores(model, states) for states in hidden]
    model.set_attn_implementation(NAME)
    packed = _run_packed(decoder, table, documents)
    cached = _run_cached(decoder, table, documents, model.config.num_hidden_layers)
    state = "Does it keep state between tokens outside of attention, or hide the attention function from its keyword arguments?"
    return {
        "packed hidden states": (distance(packed, hidden), state),
        "cached hidden states": (distance(cached, hidden), state),
        "logits": (
            distance(scores, [output.logits[0] for output in alone]),
            "Expected hidden @ weight.T with an optional final soft cap: no bias and no further factor.",
        ),
    }


def _scores(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    logits = functional.linear(hidden, model.get_output_embeddings().weight)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _run_packed(decoder: nn.Module, table: nn.Module, documents: list[Tensor]) -> list[Tensor]:
    total = sum(LENGTHS)
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)[:-1].tolist()
    groups: dict[int, list[Tensor]] = {}
    for start, length in zip(starts, LENGTHS, strict=True):
        groups.setdefault(length, []).append(torch.arange(start, start + length))
    owners = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    scope = DocumentScope.of(Layout(positions[None], owners[None], tuple(torch.stack(members) for members in groups.values())))
    output = decoder(
        inputs_embeds=table(torch.cat(documents))[scope.order][None],
        position_ids=positions[scope.order][None],
        use_cache=False,
        scope=scope,
    ).last_hidden_state[0]
    rows = torch.empty_like(output).index_copy(0, scope.order, output)
    return list(rows[:total].split(list(LENGTHS)))


def _run_cached(decoder: nn.Module, table: nn.Module, documents: list[Tensor], layers: int) -> list[Tensor]:
    # two ragged calls, the second in another row order: 1 token of every document, then the rest
    cache = RowCache(len(documents), max(LENGTHS), layers)
    parts: list[list[Tensor]] = [[] for _ in documents]
    for begin, end, rows in ((0, 1, range(len(documents))), (1, max(LENGTHS), reversed(range(len(documents))))):
        rows = list(rows)
        feeds = [documents[row][begin:end] for row in rows]
        layout = cache.append(torch.tensor(rows), torch.tensor([len(feed) for feed in feeds]))
        ids = nn.utils.rnn.pad_sequence(feeds, batch_first=True)
        output = decoder(
            inputs_embeds=table(ids), position_ids=layout.positions, use_cache=False, scope=cache.take(layout)
        ).last_hidden_state
        for states, row, feed in zip(output, rows, feeds, strict=True):
            parts[row].append(states[: len(feed)])
    return [torch.cat(pieces) for pieces in parts]


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference between hidden states (n d), in spreads of those that are expected."""
    spread = torch.cat(expected).std()
    return float((torch.cat(found) - torch.cat(expected)).abs().max() / spread)
