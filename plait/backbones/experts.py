"""Vision experts: a second feed-forward in every decoder layer, for the tokens of images (SynerGen-VL, arXiv 2412.09604, eq. 2).

FFN(x) is FFN_V(x) where `Side.is_visual` says that the token is part of an image, and FFN_T(x) elsewhere; attention and norms are
shared. Tokens are gathered by kind, each kind runs through its own feed-forward, and the results are scattered back: the work is that
of the backbone without experts, and no value of one feed-forward can reach a token of the other.

Deviations. The released code of the same group (Mono-InternVL) runs both feed-forwards everywhere and blends them with the 0/1 mask,
never copies weights, and through a cache uses that of text alone. Here FFN_V begins as a copy, as the paper says, and a cached call
routes like any other. What is visual is said by the caller: this file knows no token.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from plait.axes import Hidden
from plait.backbones.call import CALL, let_read
from plait.backbones.causal_lm import CausalLM
from plait.errors import LayoutError, RecipeError


class RoutedFeedForward(nn.Module):
    """Two feed-forwards in the place of one, routed by the record of the call (see plait.backbones.call).

    Args:
        text: for tokens of text, markers of images among them.
        vision: for tokens that are part of an image.
    """

    def __init__(self, text: nn.Module, vision: nn.Module) -> None:
        super().__init__()
        self.text, self.vision = text, vision

    def forward(self, hidden: Hidden) -> Hidden:
        """Every token (b s d) through the feed-forward of its kind.

        Raises:
            LayoutError: the call has no record, or one of another shape.
        """
        side = CALL.side
        if side is None or side.is_visual.shape != hidden.shape[:2]:
            found = "no record" if side is None else f"one of the shape {tuple(side.is_visual.shape)}"
            raise LayoutError(
                f"A layer with vision experts got {found} of which tokens are visual, expected side=Side(is_visual) with "
                f"the shape {tuple(hidden.shape[:2])}. Call it through CausalLM."
            )
        text, visual = side.routes
        # a call of one kind runs on the very tensor: bit-equal to the backbone without experts, and nothing is copied
        if visual.numel() == 0:
            return self._beside(self.vision, self.text(hidden))
        if text.numel() == 0:
            return self._beside(self.text, self.vision(hidden))
        tokens = hidden.flatten(0, 1)
        # as (1 n d): some feed-forwards of transformers count the axes
        written, seen = self.text(tokens.index_select(0, text)[None])[0], self.vision(tokens.index_select(0, visual)[None])[0]
        output = written.new_empty(tokens.shape[0], written.shape[1])
        output.index_copy_(0, text, written)
        output.index_copy_(0, visual, seen)
        return output.unflatten(0, hidden.shape[:2])

    def _beside(self, idle: nn.Module, output: Hidden) -> Hidden:
        """The output, of which the idle feed-forward is a part where several ranks train: each of them gives every parameter a gradient
        (zeros here), or the others wait for it."""
        if not (self.training and torch.distributed.is_initialized()):
            return output
        return output + idle(torch.zeros_like(output[:1, :1]))[:0].sum()


def add_vision_experts(backbone: CausalLM) -> CausalLM:
    """Give every decoder layer a second feed-forward, a copy of its own as it is now, and return the same backbone.

    Parameters are then `layers.<i>.mlp.text.*` and `layers.<i>.mlp.vision.*` (freeze plans say `*.mlp.vision.*`). Every call needs
    `side`. What the backbone computes changes with the first update only: both feed-forwards are equal.

    Raises:
        RecipeError: the backbone has experts already, taps, or no feed-forward where this looks for one.
    """
    layers = getattr(backbone.decoder, "layers", None)
    if not layers or not all(isinstance(getattr(layer, "mlp", None), nn.Module) for layer in layers):
        raise RecipeError(
            f"The backbone {backbone.config.model_type!r} has no feed-forward called layers.<i>.mlp to give vision experts to. "
            "Choose one that has: llama, qwen3, gemma or gemma2."
        )
    if any(isinstance(layer.mlp, RoutedFeedForward) for layer in layers):
        raise RecipeError("The backbone has vision experts already, expected none: add them once.")
    if any(hasattr(layer, "tap") for layer in layers):
        raise RecipeError(
            "The backbone has taps, which carry through the feed-forward as it is: add vision experts before taps."
        )
    for layer in layers:
        layer.mlp = RoutedFeedForward(layer.mlp, deepcopy(layer.mlp))
    let_read(backbone.model, layers, "vision experts")
    return backbone


def measure_distance(module: nn.Module, origin: nn.Module) -> float:
    """How far the weights of a module are from those that it began with: the norm of all differences over the norm of the origin's.

    Raises:
        RecipeError: the two have other parameters.
    """
    shapes = [{name: tuple(value.shape) for name, value in one.named_parameters()} for one in (module, origin)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            f"A module with the parameters {shapes[0]} was compared with one that has {shapes[1]}, expected the same names and shapes. "
            "Compare a feed-forward with the one it was copied from."
        )
    now, then = (parameters_to_vector(one.parameters()).detach() for one in (module, origin))
    return float((now - then).norm() / then.norm())
