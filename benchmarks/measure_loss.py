"""The lean loss against the cross entropy of full logits, at the vocabulary of a real system.

python benchmarks/measure_loss.py
"""

from collections.abc import Callable

import torch
from side_by_side import Arm, Report, format_median, peak_allocated_bytes, read_options
from torch import Tensor
from torch.nn import functional

from plait.heads.rows import TextRows
from plait.heads.shared import SharedHead
from plait.objectives.next_token import summed_cross_entropy

VOCABULARY, WIDTH, POSITIONS = 40_960, 256, 2_048


def main() -> None:
    options = read_options(__doc__)
    torch.manual_seed(0)
    # one table for input and output, as tied backbones have it: the score that the shared head of a system computes
    weight = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH) * 0.02)
    hidden = torch.randn(POSITIONS, WIDTH, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (POSITIONS,))
    segments = torch.zeros_like(targets)
    head = SharedHead([TextRows(VOCABULARY, lambda ids: functional.embedding(ids, weight), lambda: weight)])

    def lean() -> Tensor:
        return summed_cross_entropy(hidden, segments, targets, head.score, head.score_parameters(), head.num_logits)

    def full() -> Tensor:
        return functional.cross_entropy(functional.linear(hidden, weight), targets, reduction="sum")

    def run(loss: Callable[[], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        value = loss() / POSITIONS
        return value.detach(), *torch.autograd.grad(value, [hidden, weight])

    report = Report("loss", "The lean loss: gradients chunk by chunk against full logits", options)
    largest = max(
        float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in zip(run(lean), run(full), strict=True)
    )
    report.text(
        f"{POSITIONS:,} positions, vocabulary {VOCABULARY:,}, width {WIDTH}, one tied table; forward and backward to the gradients "
        f"of hidden states and table. Largest difference of value and gradients, relative to their largest entry: {largest:.1e}.",
        largest_relative_difference=largest,
    )
    report.bar("gradients equal to 1e-5 relative", largest <= 1e-5)

    bytes_full, bytes_lean = (peak_allocated_bytes(lambda loss=loss: run(loss)) for loss in (full, lean))
    report.text(
        f"## Memory\n\nThe most that torch's allocator held at a time beyond what it held before, from its own record of every "
        f"allocation and release (exact; both gradients included, {4 * WIDTH * (VOCABULARY + POSITIONS) / 2**20:.0f} MiB): full "
        f"{bytes_full / 2**20:.0f} MiB, lean {bytes_lean / 2**20:.0f} MiB, ratio 1 / {bytes_full / bytes_lean:.1f}.",
        peak_bytes={"full": bytes_full, "lean": bytes_lean},
    )
    report.bar("at most 1/8 of the memory", 8 * bytes_lean <= bytes_full)

    def arm(name: str, loss: Callable[[], Tensor], description: str) -> Arm:
        def once(number: int) -> float:
            run(loss)
            return POSITIONS

        return Arm(name, description, once)

    arms = [
        arm("full", full, "`F.cross_entropy` of all logits"),
        arm("lean", lean, "`plait.objectives.next_token.summed_cross_entropy` with the score of `SharedHead`"),
    ]
    ratio = report.measure("Time, forward and backward", arms, unit="position").time_ratio("lean")
    report.bar(
        f"time ratio whose interval holds 1.00 or lies below 1.05; measured {format_median(ratio, 3)}",
        ratio.low <= 1.0 <= ratio.high or ratio.high < 1.05,
    )
    report.close()


if __name__ == "__main__":
    main()
