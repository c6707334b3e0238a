"""Checkpoint folders: exact, atomic, strict, and without pickle."""

import json
import math
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plait import atomic
from plait.checkpoints import bounded_by, load_weights, read_checkpoint, read_manifest, save_checkpoint
from plait.errors import CheckpointError
from plait.flattening import flatten_state, restore_state


class Tied(nn.Module):
    def __init__(self, rows: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows, 3)
        self.head = nn.Linear(3, rows, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3)


def test_round_trip_with_ties(tmp_path: Path) -> None:
    """Tied tensors are stored once, named in the manifest, and come back under both names."""
    model, other = Tied(), Tied()
    saved = save_checkpoint(tmp_path / "a", model, config={"rows": 5}, parents=["x"], step=3)
    assert saved.aliases == {"head.weight": "embed.weight"}
    assert load_weights(other, tmp_path / "a") == read_manifest(tmp_path / "a") == saved
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert (saved.config, saved.parents, saved.step, len(saved.identity)) == ({"rows": 5}, ["x"], 3, 64)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"model.safetensors", "manifest.json"}


def test_views_and_odd_strides(tmp_path: Path) -> None:
    """Tensors that share memory without being the same are stored as what they show."""
    whole = torch.arange(12.0).reshape(3, 4)
    weights = {"whole": whole, "row": whole[1], "turned": whole.t(), "twin": whole, "none": torch.empty(0, 4)}
    manifest = save_checkpoint(tmp_path / "a", weights, model="views")
    read = read_checkpoint(tmp_path / "a").weights
    assert manifest.aliases == {"twin": "whole"}
    assert all(torch.equal(value, read[name]) for name, value in weights.items())


def test_state_round_trip(tmp_path: Path) -> None:
    """What optimisers, schedulers, loops and generators hold."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "python": random.getstate(),
        "numpy": list(np.random.get_state()),  # noqa: NPY002
        "odd": {1: None, (2, "x"): [True, 1.5, "w"], None: -math.inf},
        "a": {"b": torch.ones(1)},
        "a/b": torch.zeros(1),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "kind": torch.float16,
        "scalar": np.float64(0.1),
    }
    save_checkpoint(tmp_path / "a", {}, model="none", state=state)
    read = read_checkpoint(tmp_path / "a", with_state=True).state
    assert read["python"] == state["python"]
    assert read["odd"] == state["odd"]
    assert read["kind"] is torch.float16
    assert read["scalar"] == 0.1
    assert (float(read["a"]["b"]), float(read["a/b"])) == (1.0, 0.0)
    assert read["half"].dtype == torch.bfloat16
    assert np.array_equal(read["numpy"][1], state["numpy"][1])
    assert read["numpy"][1].dtype == state["numpy"][1].dtype
    other = torch.optim.AdamW([nn.Parameter(torch.ones(2))], lr=0.5)
    other.load_state_dict(read["optimizer"])
    assert other.param_groups[0]["lr"] == 0.1
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], state["optimizer"]["state"][0]["exp_avg"])


def test_floats_are_exact() -> None:
    values = [random.Random(n).uniform(-1, 1) * 10.0**n for n in range(-300, 300, 7)]
    tree, tensors = flatten_state({"values": values, "nan": math.nan})
    read = restore_state(json.loads(json.dumps(tree)), tensors)
    assert read["values"] == values
    assert math.isnan(read["nan"])


def test_an_unknown_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds a torch.nn.modules.linear.Linear at 'callbacks/x/0'"):
        save_checkpoint(tmp_path / "a", {}, model="none", state={"callbacks": {"x": [nn.Linear(1, 1)]}})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="plain JSON"):
        save_checkpoint(tmp_path / "a", {}, model="none", config={"x": object()})


def damage(folder: Path, kind: str) -> None:
    file = folder / "model.safetensors"
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:-4])
    elif kind == "flipped":
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    elif kind == "gone":
        file.unlink()
    elif kind == "manifest":
        (folder / "manifest.json").write_text("{")
    elif kind == "format":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "format": "plait-checkpoint-9"}))
    elif kind == "no manifest":
        (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "is damaged: its sha256"),
        ("flipped", "is damaged: its sha256"),
        ("gone", "model.safetensors is missing"),
        ("manifest", "manifest.json is damaged"),
        ("format", "format 'plait-checkpoint-9', this version reads 'plait-checkpoint-1'"),
        ("no manifest", "has no manifest.json"),
    ],
)
def test_damage_is_found(tmp_path: Path, kind: str, message: str) -> None:
    model = Tied()
    save_checkpoint(tmp_path / "a", model)
    damage(tmp_path / "a", kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, tmp_path / "a")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_cut_without_verification(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", Tied())
    damage(tmp_path / "a", "cut")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_weights(Tied(), tmp_path / "a", verify=False)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_manifest(tmp_path / "none")
    save_checkpoint(tmp_path / "a", Tied())
    with pytest.raises(CheckpointError, match="weights only"):
        read_checkpoint(tmp_path / "a", with_state=True)


def test_strict_by_default(tmp_path: Path) -> None:
    """Every difference is counted; loosely, what fits is taken, but never another shape."""
    save_checkpoint(tmp_path / "a", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    other = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"2 of 5 tensors are missing \(2.weight, 2.bias\); 1 are unexpected \(0.bias\)"):
        load_weights(other, tmp_path / "a")
    load_weights(other, tmp_path / "a", is_strict=False)
    assert torch.equal(other[1].weight, read_checkpoint(tmp_path / "a").weights["1.weight"])
    with pytest.raises(CheckpointError, match=r"1 have another shape \(0.weight: \(2, 2\) saved, \(3, 2\) here"):
        load_weights(nn.Sequential(nn.Linear(2, 3, bias=False)), tmp_path / "a", is_strict=False)


def test_a_part_is_taken_out_of_the_model_that_it_was_trained_in(tmp_path: Path) -> None:
    whole = nn.ModuleDict({"vision": nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    save_checkpoint(tmp_path / "whole", whole)
    save_checkpoint(tmp_path / "alone", whole["vision"])
    for folder in ("whole", "alone"):
        part = nn.Linear(3, 4)
        load_weights(part, tmp_path / folder, part="vision")
        assert torch.equal(part.weight, whole["vision"].weight), folder
    with pytest.raises(CheckpointError, match=r"2 of 2 tensors are missing .* 4 are unexpected"):
        load_weights(nn.Linear(3, 4), tmp_path / "whole", part="pixels")


def test_torn_ties(tmp_path: Path) -> None:
    """Weights of an untied model do not slip into a tied one, where the last name would win."""
    model = Tied()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["head.weight"] += 1
    save_checkpoint(tmp_path / "a", weights, model="untied")
    with pytest.raises(CheckpointError, match=r"1 tensors are tied here but saved with different values \(head.weight = embed"):
        load_weights(model, tmp_path / "a")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_failure_at_any_point_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    """Every flush is made to fail in turn; the target reads as before, and nothing is left beside it."""
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    save_checkpoint(tmp_path / "a", {"x": torch.zeros(3)}, model="old")
    flush, calls = atomic._flush, 0

    def fail_at(number: int) -> Any:
        def failing(path: Path) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError("no space left on device")
            flush(path)

        return failing

    for number in range(1, 4):
        calls = 0
        monkeypatch.setattr(atomic, "_flush", fail_at(number))
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(tmp_path / "a", {"x": torch.ones(3)}, model="new")
        assert read_checkpoint(tmp_path / "a").manifest.model == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.setattr(atomic, "_flush", flush)
    save_checkpoint(tmp_path / "a", {"x": torch.ones(3)}, model="new")
    assert read_checkpoint(tmp_path / "a").manifest.model == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def save_forever(folder: Path, has_saved: Any) -> None:
    torch.set_num_threads(1)  # a fork does not inherit the threads of its parent's pool
    for step in range(10**6):
        save_checkpoint(folder, {"x": torch.full((200_000,), float(step))}, model="m", step=step, state={"step": step})
        has_saved.set()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_kill_9_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Killed at eight random moments: what is read is whole and of one step; some of the kills came in the middle of a save."""
    folder, hits = tmp_path / "last.ckpt", 0
    draw, context = random.Random(0), multiprocessing.get_context("fork")
    for _ in range(8):
        has_saved = context.Event()
        process = context.Process(target=save_forever, args=(folder, has_saved), daemon=True)
        process.start()
        assert has_saved.wait(timeout=60)
        time.sleep(draw.uniform(0.0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        checkpoint = read_checkpoint(folder, with_state=True)
        assert checkpoint.state["step"] == checkpoint.manifest.step == int(checkpoint.weights["x"][0])
        assert checkpoint.weights["x"].unique().numel() == 1
        hits += any(path.suffix == ".tmp" for path in tmp_path.iterdir())
    assert hits > 0
    save_checkpoint(folder, {"x": torch.zeros(1)}, model="m")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file where a folder"):
        save_checkpoint(tmp_path / "a", {}, model="none")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64])
def test_numbers_of_another_kind_are_no_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    """Copying would cast them without a word."""
    module = torch.nn.Linear(2, 2)
    save_checkpoint(tmp_path / "c", {"weight": torch.ones(2, 2, dtype=dtype), "bias": torch.ones(2)}, model="Linear")
    before = module.weight.clone()
    with pytest.raises(
        CheckpointError, match=rf"numbers of another kind in 1 of 2 tensors \(weight: {dtype} saved, torch.float32 here"
    ):
        load_weights(module, tmp_path / "c")
    assert module.weight.equal(before)
    save_checkpoint(tmp_path / "c", {"weight": torch.ones(2, 2, dtype=torch.bfloat16), "bias": torch.ones(2)}, model="Linear")
    load_weights(module, tmp_path / "c")  # a float of another width is the same kind


def test_a_type_of_a_state_is_one_of_a_list_and_no_name_of_torch(tmp_path: Path) -> None:
    assert restore_state({"dtype": "bfloat16"}, {}) is torch.bfloat16
    for name in ("load", "nn", "hub", "__class__", "float8"):
        with pytest.raises(CheckpointError, match="an entry of unknown kind 'dtype'"):
            restore_state({"dtype": name}, {})


def test_a_model_out_of_proportion_to_its_weights_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "small", nn.Linear(2, 2))
    for size in (200_000, 10_000_000):  # 160 GB, and more than any machine has
        with (
            pytest.raises(CheckpointError, match=r"small: .* and the weights hold 6.*Next: correct the sizes"),
            bounded_by(tmp_path / "small"),
        ):
            nn.Linear(size, size)
    with bounded_by(tmp_path / "small"):
        nn.Linear(200, 200)
    nn.Linear(2, 2)
