"""Muon (Jordan et al. 2024) in fp32, weights of one shape together; kernels as matrices of (output channels, everything else), as there.

The update of a weight is its momentum, orthogonalised by five Newton-Schulz steps, scaled to the size of an AdamW
update (Moonlight, arXiv:2502.16982, section 2.2). torch.optim.Muon does the same in bfloat16, one matrix after the other, which is
slower on a processor without bfloat16 units (about three times, reports/benchmarks/muon.md). Here matrices of equal shape run as one
batched product in the type of the gradient.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from plait.axes import Float, Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""of the quintic a x + b x^3 + c x^5 that pulls singular values towards 1 (Jordan et al. 2024)"""


def orthogonalise(matrices: Float[Tensor, "n h w"], num_steps: int = 5) -> Float[Tensor, "n h w"]:
    """The nearly orthogonal factor of each matrix: singular values come out between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(num_steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if is_tall else x


class Muon(Optimizer):
    """Momentum with orthogonal updates for matrices and kernels.

    Args:
        params: parameters of two axes or more, or groups of them.
        lr: base learning rate, on the scale of AdamW's.
        weight_decay: decoupled.
        momentum: of the gradient average (Nesterov).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for parameters in shapes.values():
                self._step_shape(parameters, group)
        return loss

    def _step_shape(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        nesterov = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            average = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
            nesterov.append(parameter.grad.lerp(average, group["momentum"]))
        updates = orthogonalise(torch.stack([update.flatten(1) for update in nesterov]))
        scale = 0.2 * max(updates.shape[1:]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                update.view(parameter.shape), alpha=-group["lr"] * scale
            )
