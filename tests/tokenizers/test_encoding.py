"""Encoding in shards: the cache is the same to the bit however many processes made it and however often they were killed."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from plait.errors import CheckpointError
from plait.tokenizers.encoding import write_codes
from tests.malformed.standard import contents
from tests.tokenizers.test_codes import load_pictures, load_tiles, make

IDS = [f"scene/{index}" for index in range(23)]
SIZES = {"batch_size": 2, "batches_per_shard": 2, "data_fingerprint": "a world"}


def run_ranks(ranks: int, folder: Path, load: Callable, num_workers: int = 0) -> list[int]:
    """Exit codes of so many processes that encode together."""
    context = multiprocessing.get_context("fork")

    def work(rank: int) -> None:
        torch.set_num_threads(1)
        write_codes(folder, make(), IDS, load, share=(rank, ranks), num_workers=num_workers, **SIZES)

    processes = [context.Process(target=work, args=(rank,)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize(("ranks", "num_workers"), [(1, 2), (3, 0), (7, 1)])
@pytest.mark.parametrize("load", [load_pictures, load_tiles])
def test_ranks_and_workers_change_no_bit(tmp_path: Path, load: Callable, ranks: int, num_workers: int) -> None:
    write_codes(tmp_path / "alone" / "codes", make(), IDS, load, **SIZES)
    assert run_ranks(ranks, tmp_path / "shared" / "codes", load, num_workers) == [0] * ranks
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_a_killed_encoding_goes_on_where_it_was(tmp_path: Path) -> None:
    write_codes(tmp_path / "alone" / "codes", make(), IDS, load_pictures, **SIZES)
    folder, loaded = tmp_path / "killed" / "codes", []

    def kill_at(name: str) -> Callable[[Sequence[str]], torch.Tensor]:
        def load(names: Sequence[str]) -> torch.Tensor:
            loaded.extend(names)
            if name in names:
                os.kill(os.getpid(), signal.SIGKILL)
            return load_pictures(names)

        return load

    assert run_ranks(1, folder, kill_at("scene/9")) == [-signal.SIGKILL]
    assert run_ranks(1, folder, kill_at("scene/17")) == [-signal.SIGKILL]
    assert not folder.exists()
    write_codes(folder, make(), IDS, kill_at("nobody"), **SIZES)
    assert loaded == IDS[16:], "what was whole was not made again"
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_another_tokenizer_does_not_go_on_with_it_and_damage_is_named(tmp_path: Path) -> None:
    def stop(names: Sequence[str]) -> torch.Tensor:
        if "scene/5" in names:
            raise KeyboardInterrupt
        return load_pictures(names)

    with pytest.raises(KeyboardInterrupt):
        write_codes(tmp_path / "codes", make(), IDS, stop, **SIZES)
    (left,) = tmp_path.glob("codes.encoding-*/*")
    write_codes(tmp_path / "codes", make(seed=1), IDS, load_pictures, **SIZES)
    left.write_bytes(left.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"000000000000\.safetensors is damaged: .* delete this file and encode again"):
        write_codes(tmp_path / "codes", make(), IDS, load_pictures, overwrite=True, **SIZES)
