"""Muon here against torch.optim.Muon: one step on the hidden matrices of a backbone of 5 M parameters.

python benchmarks/measure_muon.py
"""

import torch
from side_by_side import Arm, Report, read_options

from lightning_modules.training.muon import Muon

SHAPES = 24 * [(256, 256)] + 12 * [(768, 256)] + 6 * [(256, 768)]


def arm(name: str, kind: type[torch.optim.Optimizer], description: str) -> Arm:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = kind(parameters, lr=1e-3)

    def run(number: int) -> float:
        optimizer.step()
        return 1

    return Arm(name, description, run)


def main() -> None:
    options = read_options(__doc__)
    report = Report("muon", "One Muon step, 42 matrices of a backbone of 5 M parameters", options)
    arms = [
        arm("torch", torch.optim.Muon, "`torch.optim.Muon`"),
        arm("plait", Muon, "`lightning_modules.training.muon.Muon`: matrices of one shape in one batch"),
    ]
    report.measure("One step", arms, unit="step")
    report.close()


if __name__ == "__main__":
    main()
