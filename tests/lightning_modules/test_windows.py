"""What several batches are made from is made once, by whichever worker it is dealt to, and the batches are the same."""

from pathlib import Path

import pytest

from lightning_modules.training.data import DataModule
from plait.data.mixture import Mixture
from tests.data.test_mixture import mixture


class Told(Mixture):
    """Writes down each window that it computes: workers are processes of their own."""

    def _compute_window(self, window: int):
        with self.told.open("a") as file:
            file.write(f"{window}\n")
        return super()._compute_window(window)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("accumulate", [1, 8])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_forty_batches_are_ten_windows(tmp_path: Path, workers: int, accumulate: int) -> None:
    told = mixture(num_batches=40, accumulate=accumulate, kind=Told)
    told.told = tmp_path / "windows"
    data = DataModule(told, told, num_workers=workers)
    data.trainer = type("Trainer", (), {"world_size": 1, "global_rank": 0})
    batches = list(data.val_dataloader())
    assert sorted(map(int, told.told.read_text().split())) == list(range(10))
    expected = mixture(num_batches=40, accumulate=accumulate)
    assert len(batches) == len(data.val_dataloader()) == 40
    for number in (0, 3, 4, 21, 39):
        assert batches[number].ids.equal(expected[number].ids)
        assert batches[number].counts == expected[number].counts
