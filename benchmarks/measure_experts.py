"""Vision experts by gather and scatter, against both feed-forwards everywhere and against a backbone without experts.

python benchmarks/measure_experts.py
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from side_by_side import Arm, Report, format_median, read_options
from torch import Tensor, nn

from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts
from plait.records import Layout, Side

# conf/backbone/small.yaml
SIZES = {
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "layer_types": ("sliding_attention", "full_attention"),
    "use_sliding_window": True,
    "sliding_window": 8,
    "max_position_embeddings": 1024,
}
DOCUMENTS, LENGTH, PICTURE = 16, 96, 64
"""64 of 96 tokens are a picture: a grid of 8 x 8 tokens and a caption"""


class Blended(nn.Module):
    """How Mono-InternVL does it, in our words: both feed-forwards on every token, and a sum weighed by the 0/1 mask."""

    def __init__(self, text: nn.Module, vision: nn.Module) -> None:
        super().__init__()
        self.text, self.vision = text, vision
        self.mask: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        return self.vision(hidden) * self.mask + self.text(hidden) * (1 - self.mask)


def main() -> None:
    options = read_options(__doc__)
    torch.manual_seed(0)
    plain = CausalLM.from_config("qwen3", **SIZES)
    routed = add_vision_experts(deepcopy(plain))
    with torch.no_grad():
        for layer in routed.decoder.layers:
            for parameter in layer.mlp.vision.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    blended = deepcopy(plain)
    for ours, theirs in zip(blended.decoder.layers, routed.decoder.layers, strict=True):
        ours.mlp = Blended(deepcopy(theirs.mlp.text), deepcopy(theirs.mlp.vision))

    is_visual = torch.zeros(DOCUMENTS, LENGTH, dtype=torch.bool)
    is_visual[:, 8 : 8 + PICTURE] = True
    flat = torch.arange(is_visual.numel()).view(DOCUMENTS, LENGTH)
    layout = Layout(torch.arange(LENGTH).expand(DOCUMENTS, -1), torch.zeros_like(flat), (flat,))
    embeddings = torch.randn(DOCUMENTS, LENGTH, SIZES["hidden_size"])

    def call(backbone: CausalLM, kinds: Tensor) -> Tensor:
        for layer in blended.decoder.layers:
            layer.mlp.mask = kinds.reshape(1, -1, 1).float()
        # a record per call, as in training: finding the routes is part of the time
        return backbone(embeddings, layout, Side(kinds) if backbone is routed else None)

    def train(backbone: CausalLM, kinds: Tensor) -> Tensor:
        backbone.zero_grad()
        hidden = call(backbone, kinds)
        hidden.square().mean().backward()
        return hidden.detach()

    def look(backbone: CausalLM, kinds: Tensor) -> Tensor:
        with torch.no_grad():
            return call(backbone, kinds)

    report = Report("experts", "Vision experts: gather and scatter against both feed-forwards everywhere", options)
    hidden, expected = train(routed, is_visual), train(blended, is_visual)
    theirs = dict(blended.named_parameters())
    gradients = [
        float((parameter.grad - theirs[name].grad).abs().max() / theirs[name].grad.abs().max())
        for name, parameter in routed.named_parameters()
        if parameter.grad is not None
    ]
    largest = max(float((hidden - expected).abs().max() / expected.abs().max()), *gradients)
    report.text(
        f"The demo's backbone (6 layers of width 128, feed-forward 384), {DOCUMENTS} documents of {LENGTH} tokens, of which {PICTURE} "
        f"are a picture. Largest difference between gather and blend, of hidden states and of all {len(gradients)} gradients, relative "
        f"to the largest entry of each: {largest:.1e}. A load above {options.threads} says that others used the machine meanwhile.",
        largest_relative_difference=largest,
    )
    report.bar("values and gradients equal to 1e-4 relative", largest <= 1e-4)

    def arms(work: Callable[[CausalLM, Tensor], Tensor], kinds: Tensor, repeats: int) -> list[Arm]:
        def arm(name: str, backbone: CausalLM, description: str) -> Arm:
            def once(number: int) -> float:
                for _ in range(repeats):
                    work(backbone, kinds)
                return repeats * DOCUMENTS * LENGTH

            return Arm(name, description, once)

        return [
            arm("blend", blended, "both feed-forwards on every token, summed under the mask (Mono-InternVL)"),
            arm("gather", routed, "`plait.backbones.experts`: each token through its own"),
            arm("plain", plain, "no experts: the backbone as it was"),
        ]

    both = report.measure("Forward and backward, pictures with captions", arms(train, is_visual, 4), unit="token")
    faster = both.speed_up("gather")
    report.bar(f"training with gather faster than with blend; measured {format_median(faster)}", faster.low > 1)
    report.measure("Forward, pictures with captions", arms(look, is_visual, 10), unit="token")
    none = torch.zeros_like(is_visual)
    report.measure("Forward, text alone", arms(look, none, 10), unit="token")
    report.close()


if __name__ == "__main__":
    main()
