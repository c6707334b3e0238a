"""How often does the comparison name a winner between two equal systems (A/A), and between two that are not?

    python -m benchmarks.measure_verdicts

Simulated runs: 6 columns of 90 items, each item with a difficulty of its own that all runs meet, clusters of three items with a share
of their luck in common, and seeds of which one is better than another in all columns at once. A comparison calls a winner if any of its
columns does: that is what must stay at 5 % or below.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from plait.evaluation.comparison import TOO_FEW, UNDECIDED, compare

NUM_ITEMS, NUM_SIMULATIONS = 90, 200
COLUMNS = [f"val/column_{number}" for number in range(6)]
PROTOCOL = {
    "sampler_image": "cold",
    "guidance": [],
    "n": NUM_ITEMS,
    "seed": 0,
    "data": "one",
    "rejected_beyond": {"worst": 0.17},
}


def draw_runs(
    shares: Mapping[str, float],
    num_seeds: int,
    spread: float,
    generator: np.random.Generator,
    columns: Sequence[str] = COLUMNS,
    num_items: int = NUM_ITEMS,
) -> dict:
    """row -> seed -> items. Rows with equal shares are equal systems: they differ in luck alone.

    Args:
        shares: of right items, roughly.
        spread: standard deviation over seeds, roughly in shares of right items.
    """
    difficulty = generator.normal(0, 1.5, (len(columns), num_items))
    runs: dict = {name: {} for name in shares}
    for name, share in shares.items():
        for seed in range(1, num_seeds + 1):
            shift = np.log(share / (1 - share)) * 1.4 + generator.normal(0, spread * 8)
            luck = np.repeat(generator.normal(0, 0.7, (len(columns), num_items // 3)), 3, axis=1)
            right = generator.random(difficulty.shape) < 1 / (1 + np.exp(-(shift - difficulty + luck)))
            runs[name][seed] = {column: list_items(row) for column, row in zip(columns, right.tolist(), strict=True)}
    return runs


def list_items(right: Sequence[float]) -> list[dict]:
    """Judged items, three to a cluster."""
    return [{"expected": str(i), "cluster": str(i // 3), "scores": {"all": float(value)}} for i, value in enumerate(right)]


def share_of_winners(
    num_simulations: int,
    num_seeds: int,
    spread: float,
    shares: tuple[float, float] = (0.7, 0.7),
    columns: Sequence[str] = COLUMNS,
    num_items: int = NUM_ITEMS,
) -> float:
    """Share of comparisons in which a column names a winner."""
    called = 0
    for number in range(num_simulations):
        generator = np.random.default_rng([number, num_seeds])
        runs = draw_runs({"one": shares[0], "other": shares[1]}, num_seeds, spread, generator, columns, num_items)
        protocols = {name: dict.fromkeys(seeds, PROTOCOL) for name, seeds in runs.items()}
        found = compare(runs, protocols, "other", columns)["one"]
        called += any(found[column]["minus_reference"]["verdict"] not in (UNDECIDED, TOO_FEW) for column in columns)
    return called / num_simulations


def main() -> None:
    """Print the shares."""
    print("| right items | seeds each | spread of seeds | comparisons with a winner |\n| --- | --- | --- | --- |")
    for one, other in ((0.7, 0.7), (0.97, 0.97), (0.85, 0.7)):
        for num_seeds, spread in ((1, 0.0), (3, 0.05)):
            found = share_of_winners(NUM_SIMULATIONS, num_seeds, spread, (one, other))
            print(f"| {one}, {other} | {num_seeds} | {spread} | {found:.3f} of {NUM_SIMULATIONS} |", flush=True)


if __name__ == "__main__":
    main()
