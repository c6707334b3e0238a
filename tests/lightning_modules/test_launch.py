"""The real thing at scale=tiny: every experiment trains, resumes and hands over; what a run leaves behind is whole."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from

import pytest
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf, open_dict
from wandb.proto.wandb_internal_pb2 import Record

from lightning_modules.folders.records import read_job
from lightning_modules.loops.curriculum import compose_job, run_stage
from lightning_modules.running.launch import launch, run_command
from plait.checkpoints import read_checkpoint, read_manifest
from plait.errors import CheckpointError, PlaitError, RecipeError
from plait.ledger import digest
from plait.runs import Run
from plait.tokenizers.codes import CodeCache
from tests.malformed.standard import contents

STAGES = ["tokenizer", "pretraining", "instruction"]


@pytest.mark.parametrize("name", STAGES)
def test_a_finished_stage_proves_itself(small_run, name):
    folder = small_run / name
    run = Run(folder)
    assert run.is_complete
    assert run.ledger.proof.is_kept
    assert run.passport["state"] == "finished"
    assert run.passport["config"]["trainer"]["max_steps"] == 2
    assert run.metrics.last("train/loss") > 0
    manifest = read_manifest(run.checkpoint)
    assert manifest.is_complete
    assert manifest.step == 2
    # safetensors and JSON only
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file() and "wandb" not in path.parts}
    assert not kinds & {".pt", ".pth", ".pkl", ".bin"}


def test_stages_hand_over_by_manifest(small_run):
    identity = {name: read_manifest(small_run / name / "checkpoints" / "last.ckpt").identity for name in STAGES}
    assert read_job(small_run / "pretraining")["parents"] == {"vision_tokenizer": identity["tokenizer"]}
    assert read_job(small_run / "instruction")["parents"] == {
        "vision_tokenizer": identity["tokenizer"],
        "model": identity["pretraining"],
    }
    assert len(set(identity.values())) == 3


def test_the_codes_are_those_of_the_tokenizer(small_run, tmp_path):
    cache = CodeCache(small_run / "codes" / "codes")
    assert len(cache) > 1000
    # an untrained tokenizer speaks other codes
    overrides = ["experiment=liquid/pretraining", "scale=tiny", f"codes.folder={cache.folder}", "logger=none"]
    config = compose_job("train", [*overrides, f"paths.folder={tmp_path}"])
    with pytest.raises(CheckpointError, match=r"tokenizer_hash is .* expected"):
        launch(config)


class StopAfter(Callback):
    """Press Ctrl-C after a step, once."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            self.step = -1
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stage_that_was_stopped_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    """Ctrl-C after 2 of 4 steps, then the same command again: as if nothing had happened."""
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")
    before = signal.getsignal(signal.SIGINT)

    def config(folder: Path, stops: bool):
        made = compose_job(
            "train",
            ["experiment=liquid/tokenizer", "scale=tiny", "trainer.max_steps=4", f"paths.folder={folder}", "logger=none"],
        )
        if stops:
            with open_dict(made):
                made.callbacks.stop = {"_target_": f"{__name__}.StopAfter", "step": 2}
        return made

    try:
        with pytest.raises(SystemExit):
            run_stage(config(tmp_path / "stopped", True), tmp_path / "stopped", "key")
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_job(tmp_path / "stopped")["state"] == "interrupted"
    assert read_manifest(tmp_path / "stopped" / "checkpoints" / "last.ckpt").step == 2
    before = contents(tmp_path / "stopped")
    for changes, words in (
        ({"checkpoint": "last", "seed": 5}, r"(?s)step 2.*- seed: 1 -> 5.*resume\.changes=\[seed"),
        ({"checkpoint": "last", "resume": {"changes": ["stage.rate"]}}, "neither the run nor this config has such a key"),
        ({"checkpoint": None}, "interrupted: it is never overwritten.*checkpoint=last"),
    ):
        with pytest.raises(RecipeError, match=words):
            launch(OmegaConf.merge(config(tmp_path / "stopped", True), changes))
    assert contents(tmp_path / "stopped") == before, "a refused restart leaves the folder as it was"
    job = run_stage(config(tmp_path / "stopped", False), tmp_path / "stopped", "key")
    assert (job["state"], job["from_step"], [start["state"] for start in job["starts"]]) == ("finished", 2, ["interrupted"])
    assert job["duration_s"] > job["starts"][0]["duration_s"] > 0, "the cost is that of all starts"
    passport = json.loads((tmp_path / "stopped" / "passport.json").read_text())
    assert (passport["state"], passport["from_step"], passport["starts"][0]["step"]) == ("finished", 2, 2)
    run_stage(config(tmp_path / "straight", False), tmp_path / "straight", "key")
    stopped, straight = (Run(tmp_path / name) for name in ("stopped", "straight"))
    assert stopped.metrics.series("train/loss") == straight.metrics.series("train/loss")
    assert read_manifest(stopped.checkpoint).identity == read_manifest(straight.checkpoint).identity


def test_an_unfinished_base_is_refused(small_run, tmp_path):
    base = tmp_path / "unfinished.ckpt"
    source = small_run / "tokenizer" / "checkpoints" / "last.ckpt"
    base.mkdir()
    for path in source.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((base / "manifest.json").read_text())
    (base / "manifest.json").write_text(json.dumps({**manifest, "is_complete": False}))
    overrides = [
        "experiment=liquid/pretraining",
        "scale=tiny",
        f"base.vision_tokenizer={base}",
        f"paths.folder={tmp_path / 'run'}",
    ]
    with pytest.raises(RecipeError, match=r"has not finished \(step 2\), expected .*Next: plait-train experiment=liquid/tok"):
        launch(compose_job("train", overrides))
    assert not (tmp_path / "run").exists()


def test_a_base_fills_its_part(small_run):
    """What the instruction stage started from is, tensor for tensor, what the pretraining ended with."""
    ended = read_checkpoint(small_run / "pretraining" / "checkpoints" / "last.ckpt").weights
    started = Run(small_run / "instruction").ledger.digests
    assert set(started.values()) == {digest(tensor) for tensor in ended.values()}


def test_generation_takes_its_recipe_from_the_run(small_run, tmp_path):
    drawn = launch(
        compose_job(
            "generate",
            [f"run={small_run / 'instruction'}", "prompt='a red car'", "num_samples=2", f"paths.folder={tmp_path / 'drawn'}"],
        )
    )
    assert len([path for path in drawn if path.endswith(".png")]) >= 2
    assert all(Path(path).is_file() for path in drawn)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run={small}/instruction", "prompt='a red carr'"], "Unknown word 'carr'.*'car'"),
        (["prompt='a red car'"], "Which model"),
        (["run={small}", "prompt='a red car'"], r"holds no model.*instruction"),
        (["run=nowhere", "prompt='a red car'"], "run=nowhere is no run folder"),
    ],
)
def test_an_impossible_request_gets_a_clear_word(small_run, tmp_path, overrides, message):
    config = compose_job("generate", [*(item.format(small=small_run) for item in overrides), f"paths.folder={tmp_path / 'x'}"])
    with pytest.raises(PlaitError, match=message):
        run_command(config)


def wandb_records(path: Path) -> Iterator[Record]:
    """The records of an offline W&B file (LevelDB's log format)."""
    data, at, block, parts = path.read_bytes(), 7, 32768, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, size, kind = unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_a_multirun_is_two_finished_wandb_runs_in_one_group(tmp_path):
    """Acceptance: plait-train -m experiment=liquid/pretraining seed=1,2 scale=tiny."""
    command = [
        sys.executable,
        "-m",
        "lightning_modules.commands.train",
        "-m",
        "experiment=liquid/pretraining",
        "seed=1,2",
        "scale=tiny",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    jobs = sorted(tmp_path.glob("outputs/liquid/pretraining/*/*/job.json"))
    assert [json.loads(path.read_text())["state"] for path in jobs] == ["finished", "finished"]
    seeds = [Run(path.parent).config["seed"] for path in jobs]
    assert seeds == [1, 2]
    facts = []
    for job in jobs:
        (file,) = job.parent.glob("wandb/offline-run-*/*.wandb")
        records = list(wandb_records(file))
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
        (end,) = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
        facts.append((run.run_group, run.job_type, run.run_id, end))
    groups, kinds, ids, ends = map(set, zip(*facts, strict=True))
    assert (len(groups), kinds, len(ids), ends) == (1, {"pretraining"}, 2, {0})
