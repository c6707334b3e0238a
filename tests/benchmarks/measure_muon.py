"""Muon here against torch.optim.Muon, one step on the hidden matrices of the demo's backbone. Not a test: it asserts no time.

    python tests/benchmarks/measure_muon.py > reports/benchmarks/muon.md

Arms run interleaved A B A B in one process, with an A/A arm that must lie in 0.90-1.10 or the run is void.
"""

import platform
import statistics
import subprocess
import time

import torch

from lightning_modules.muon import Muon

SHAPES = 24 * [(256, 256)] + 12 * [(768, 256)] + 6 * [(256, 768)]
ROUNDS = 15


def make(kind: type) -> torch.optim.Optimizer:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return kind(parameters, lr=1e-3)


def main() -> None:
    arms = {"plait": make(Muon), "plait again": make(Muon), "torch.optim.Muon": make(torch.optim.Muon)}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, optimizer in arms.items():
            start = time.perf_counter()
            optimizer.step()
            times[name].append(time.perf_counter() - start)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    print("# One Muon step, 42 matrices of a 5 M-parameter backbone\n")
    print("Command: `python tests/benchmarks/measure_muon.py > reports/benchmarks/muon.md`")
    print(
        f"Commit {commit}, torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {ROUNDS} rounds.\n"
    )
    print("| arm | median s | ratio to plait, median [min] |\n|---|---|---|")
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, times["plait"], strict=True)]
        print(f"| {name} | {statistics.median(values):.3f} | {statistics.median(ratios):.2f} [{min(ratios):.2f}] |")


if __name__ == "__main__":
    main()
