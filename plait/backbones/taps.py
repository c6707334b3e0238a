"""Taps: modules that add to the residual stream inside chosen decoder layers, between attention and feed-forward.

A layer x + attention, then x + feed-forward becomes x + attention, then x + tap(x), then x + feed-forward (MM-Interleaved, arXiv
2401.10208, section 3.2, where a tap looks at the pictures that a token may see). transformers has no place for it, so two modules of
the layer do it between them: the norm before the feed-forward reads x + tap(x), and the feed-forward adds tap(x) to what it gives, which
brings it to the residual. Both keep their names and weights; a tap is `layers.<i>.tap`. Neither holds anything: what goes from one to
the other belongs to the call (plait.backbones.call).

Names prove nothing here either: layers that run attention and feed-forward side by side, or that norm what a feed-forward gives, may
have the same ones. So a minute copy of the architecture is compared with the layer written out. What a tap computes is its own matter.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from plait.axes import Hidden, Tensor
from plait.backbones.call import CALL, let_read, put_over
from plait.backbones.causal_lm import CausalLM
from plait.backbones.proof import TOKENS, TOLERANCE, build_small, distance, shrink
from plait.errors import LayoutError, RecipeError
from plait.records import Side

LENGTH = 7


class TappedNorm:
    """Over the norm before the feed-forward: the tap of the layer comes before it."""

    def forward(self, hidden: Hidden) -> Hidden:
        """Norm of what the feed-forward is to read.

        Raises:
            LayoutError: outside of a call with a record, or the tap gives another shape.
        """
        if CALL.side is None:
            raise LayoutError(
                "A layer with a tap got no record of the call, expected side=Side(...). Call it through CausalLM."
            )
        carried = CALL.layer.tap(hidden, CALL.side)
        if carried.shape != hidden.shape:
            raise LayoutError(
                f"A tap gave {tuple(carried.shape)} for hidden states {tuple(hidden.shape)}, expected the same shape: one per token."
            )
        CALL.carried = carried
        return super().forward(hidden + carried)


class CarryingFeedForward:
    """Over the feed-forward: it brings what the tap gave to the residual."""

    def forward(self, hidden: Hidden) -> Hidden:
        """Output of the feed-forward and of the tap."""
        carried, CALL.carried = CALL.carried, None
        return super().forward(hidden) + carried


def add_taps(backbone: CausalLM, taps: Mapping[int, nn.Module]) -> CausalLM:
    """Give decoder layers a tap each and return the same backbone. Every call then needs `side`.

    Vision experts come before taps (see plait.backbones.experts).

    Args:
        taps: index of a layer -> its tap (a module behind `plait.protocols.Tap`).

    Raises:
        RecipeError: no such layer, a layer that has a tap already, or an architecture whose layers are built otherwise.
    """
    _prove(json.dumps(shrink(backbone.config), sort_keys=True, default=str))
    layers = backbone.decoder.layers
    absent = sorted(index for index in taps if not 0 <= index < len(layers))
    if absent or not taps:
        raise RecipeError(
            f"Taps were given for the layers {sorted(taps)}, expected some of the layers 0 to {len(layers) - 1} of the backbone "
            f"{backbone.config.model_type!r}. Choose among them."
        )
    if taken := sorted(index for index in taps if hasattr(layers[index], "tap")):
        raise RecipeError(f"The layers {taken} have a tap already, expected none: give each layer one tap, once.")
    _put_in({layers[index]: tap for index, tap in taps.items()})
    let_read(backbone.model, (layers[index] for index in taps), "taps")
    return backbone


def _put_in(taps: Mapping[nn.Module, nn.Module]) -> None:
    for layer, tap in taps.items():
        layer.tap = tap
        put_over(layer.post_attention_layernorm, TappedNorm)
        put_over(layer.mlp, CarryingFeedForward)


class _WrittenOut(nn.Module):
    """A decoder layer with a tap, written out: what the pair of replacements is held to."""

    def __init__(self, layer: nn.Module, tap: nn.Module) -> None:
        super().__init__()
        self.layer, self.tap = layer, tap

    def forward(self, hidden: Hidden, *args: Any, side: Side | None = None, **kwargs: Any) -> Hidden:
        """Hidden states after the layer."""
        layer = self.layer
        hidden = hidden + layer.self_attn(layer.input_layernorm(hidden), *args, side=side, **kwargs)[0]
        hidden = hidden + self.tap(hidden, side)
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


class _Probe(nn.Module):
    """A tap that no layout can hide: it bends its input."""

    def forward(self, hidden: Tensor, _: Side | None) -> Tensor:
        return 2.0 * torch.sin(hidden.roll(1, dims=-1))


@lru_cache(maxsize=64)
def _prove(description: str) -> None:
    settings = json.loads(description)
    name = settings["model_type"]
    tested = "Tested are llama, qwen2, qwen3, mistral and gemma."
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
            torch.manual_seed(0)
            decoder = build_small(settings).get_decoder().train()  # with dropout: some layers have one behind the feed-forward
            ids, layers = torch.randint(TOKENS, (1, LENGTH)), decoder.layers
            decoder.layers = nn.ModuleList(_WrittenOut(layer, _Probe()) for layer in layers)
            expected = _run(decoder, ids)
            decoder.layers = layers
            _put_in({layer: _Probe() for layer in layers})
            let_read(decoder, layers, "taps")
            difference = distance([_run(decoder, ids)], [expected])
    except Exception as error:  # whatever a foreign architecture throws is a reason to refuse it by name
        raise RecipeError(
            f"The backbone {name!r} takes no taps: its layers have no residual stream between `self_attn` and "
            f"`post_attention_layernorm`, `mlp` ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). {tested}"
        ) from error
    if not difference < TOLERANCE:
        raise RecipeError(
            f"The backbone {name!r} takes no taps: its layers are not x + attention(norm(x)), then x + feed-forward(norm(x)), from which "
            f"they differ by {difference:.2g} of their spread. {tested}"
        )


def _run(decoder: nn.Module, ids: Tensor) -> Tensor:
    torch.manual_seed(1)
    return decoder(ids, use_cache=False, side=Side(torch.zeros_like(ids, dtype=torch.bool))).last_hidden_state[0]
