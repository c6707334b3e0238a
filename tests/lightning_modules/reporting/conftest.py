"""A multirun of four small run folders as a training command leaves them, and two evaluations; nothing is trained."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lightning_modules.folders.lineage import trace_parents, write_lineage
from plait.checkpoints import save_checkpoint
from plait.document import Document, ImageSpan, TextSpan
from plait.ledger import Ledger, LedgerRow, Proof
from plait.rendering import write_samples
from plait.samples import Sample

WORLD = {"batches": {"_target_": "plait.worlds.emoji.world.EmojiWorld"}, "name": "pretraining", "tags": ["liquid"]}
MACHINE = {"device": "cpu", "threads": 1, "python": "3.11.7", "packages": {"torch": "2.13.0"}}


def write_job(folder: Path, id: str) -> dict:
    folder.mkdir(parents=True)
    job = {"id": id, "config_hash": f"hash-{id}", "state": "finished", "duration_s": 12.5}
    (folder / "job.json").write_text(json.dumps(job))
    return job


def write_run(folder: Path, id: str, seed: int, base: Path | None = None) -> Path:
    """A finished run with 20 steps, one page of samples, a checkpoint and its lineage."""
    job = write_job(folder, id)
    (folder / "hydra").mkdir()
    (folder / "hydra" / "overrides.yaml").write_text(yaml.safe_dump(["experiment=liquid/pretraining", f"seed={seed}"]))
    code = {"commit": "c0ffee" * 6, "is_dirty": False}
    passport = {
        "state": "finished",
        "stage": "PretrainingStage",
        "started": "2026-01-01",
        "config": WORLD,
        "config_hash": "ab" * 32,
    }
    passport |= {"seeds": {"global": seed}, "code": code, "environment": MACHINE, "data": None, "step": 20}
    (folder / "passport.json").write_text(json.dumps(passport))
    rows = [{"step": i, "train/loss": 5.0 / (i + seed), "train/text_loss_nats": 1.0 / (i + 1) + seed / 7} for i in range(20)]
    rows.append({"step": 19, "perf/rate_tokens_per_s": 100.0, "perf/step_duration_s": 0.5, "val/loss": 0.1 * seed})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Ledger((LedgerRow("head", 12, 2, True, 0.01, 0.0, "AdamW"),), {}, Proof(20, 0, 2)).write(folder / "ledger.json")
    document = Document((TextSpan("a red car"), ImageSpan("i")), id=f"d{seed}")
    sample = Sample(document, {"i": Image.new("RGB", (8, 8), "red")}, {"right": True}, seed, given=1)
    write_samples([sample] * 6, folder / "samples" / "step-0000020.html")
    parents = {} if base is None else {"vision_tokenizer": base / "checkpoints" / "last.ckpt"}
    named = [{"part": node["part"], "identity": node["identity"]} for node in trace_parents(parents)]
    weights = {"w": torch.full((2,), float(seed))}
    save_checkpoint(folder / "checkpoints" / "last.ckpt", weights, model="m", step=20, parents=named)
    write_lineage(folder, job, trace_parents(parents))
    return folder


def write_evaluation(folder: Path, id: str, rights: list[int]) -> Path:
    """An evaluation of one figure, with the items behind it."""
    write_job(folder, id)
    value = sum(rights) / len(rights)
    figure = {
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "n": len(rights),
        "gap_closed": 0.5,
        "gap_from": "majority",
    }
    figure |= {
        "baselines": {"majority": 0.25, "copy_input": 0.125, "slot_lookup": 1.0},
        "lookup": "slot_lookup",
        "exceeds_lookup": False,
    }
    results = {"val/two_objects": figure, "val/two_objects_colours": {**figure, "baselines": {}}}
    tuning = {"chosen": "plain", "val_shares": {"plain": 0.75}}
    (folder / "evaluation.json").write_text(json.dumps({"results": results, "facts": {"tuning": tuning}, "cost": {}}))
    (folder / "summary.json").write_text(json.dumps({"val/two_objects": value}))
    scored = [{"all": float(right), "colours": 1.0} for right in rights]
    items = [{"expected": f"e{i}", "found": "", "cluster": f"c{i}", "scores": scores} for i, scores in enumerate(scored)]
    (folder / "items.json").write_text(json.dumps({"val/two_objects": items}))
    (folder / "sheets").mkdir()
    Image.new("RGB", (64, 32), "blue").save(folder / "sheets" / "val-two_objects.png")
    document = Document((TextSpan("a red car"), ImageSpan("drawn")))
    shown = Sample(document, {"drawn": Image.new("RGB", (8, 8), "red")}, {"right": True}, 2**60, 1, "val/two_objects")
    write_samples([shown] * 3, folder / "samples" / "val-two_objects.html")
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_run(tmp_path / "tokenizer", "70ce21", seed=9)


@pytest.fixture
def multirun(tmp_path: Path, tokenizer: Path) -> Path:
    """Four seeds of one recipe over one tokenizer, as `plait-train -m` leaves them."""
    for number in range(4):
        write_run(tmp_path / "sweep" / str(number), f"a{number}b{number}c{number}", seed=number + 1, base=tokenizer)
    (tmp_path / "sweep" / "multirun.yaml").write_text("hydra: {}\n")
    return tmp_path / "sweep"


@pytest.fixture
def evaluations(tmp_path: Path) -> Path:
    """Two seeds of one configuration, examined on the same four items."""
    for seed, rights in ((1, [1, 1, 0, 1]), (2, [1, 0, 0, 1])):
        write_evaluation(tmp_path / "study" / f"seed-{seed}" / "evaluation", f"e{seed}", rights)
    return tmp_path / "study"
