"""Reading the codes of a picture from the code cache against parsing them from rows of JSON.

python benchmarks/measure_codes.py
"""

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from side_by_side import Arm, Report, format_median, read_options
from torch import nn

from plait.tokenizers.encoding import write_codes

PICTURES, GRID, CODES = 4_096, (16, 16), 8_192


class Drawn(nn.Module):
    """Stands for a tokenizer: its codes are given."""

    code_sizes, digit_sizes, grid_shapes = (CODES,), ((CODES,),), (GRID,)

    def __init__(self, grids: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("grids", torch.from_numpy(grids))

    def encode(self, numbers: torch.Tensor) -> tuple[torch.Tensor]:
        """The grids of pictures that are their own numbers, as shares of all (a picture lies between -1 and 1)."""
        return (self.grids[(numbers * PICTURES).long()],)


def main() -> None:
    options = read_options(__doc__)
    grids = np.random.default_rng(0).integers(0, CODES, (PICTURES, *GRID))
    names = [f"picture/{number}" for number in range(PICTURES)]
    # the released row: the codes as a string of JSON
    rows = {name: json.dumps(grid.flatten().tolist()) for name, grid in zip(names, grids, strict=True)}
    order = {number: random.Random(number).sample(names, PICTURES) for number in range(-1, options.rounds)}

    def parse(name: str) -> tuple[np.ndarray, ...]:
        return (np.array(json.loads(rows[name]), dtype=np.int64).reshape(GRID),)

    def arm(name: str, read: Callable[[str], Sequence[np.ndarray]], description: str) -> Arm:
        def run(number: int) -> float:
            for picture in order[number]:
                read(picture)
            return PICTURES

        return Arm(name, description, run)

    with tempfile.TemporaryDirectory() as folder:
        load = iter((torch.arange(PICTURES) / PICTURES).split(64))
        cache = write_codes(Path(folder) / "codes", Drawn(grids), names, lambda _: next(load))
        for name, grid in zip(names, grids, strict=True):
            assert cache[name][0].dtype == parse(name)[0].dtype == np.int64
            assert np.array_equal(cache[name][0], grid)
            assert np.array_equal(parse(name)[0], grid)
        report = Report("codes", "256 codes of a picture: code cache against JSON", options, precision="int64")
        arms = [
            arm("JSON", parse, "`json.loads` of a string of 256 ints held in memory, to an int64 grid"),
            arm(
                "plait", cache.__getitem__, "`plait.tokenizers.codes.CodeCache`: a memory map of uint16, to the same int64 grid"
            ),
        ]
        heading = f"{PICTURES:,} pictures in random order, every grid compared before"
        gain = report.measure(heading, arms, unit="picture").speed_up("plait")
        report.bar(f"at least 10 times as fast; measured {format_median(gain, 1)}", gain.value >= 10)
        report.close()


if __name__ == "__main__":
    main()
