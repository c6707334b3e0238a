"""The lineage of a run: from its tokenizer over its base to itself, by identities."""

import json
from pathlib import Path

import torch

from lightning_modules.folders.lineage import trace_parents, trace_weights, write_lineage
from plait.checkpoints import save_checkpoint


def make(folder: Path, value: float, **bases: Path) -> Path:
    """A run that starts from the checkpoints of others; returns its own."""
    parents = trace_parents(bases)
    job = {"id": f"job-{folder.name}", "config_hash": f"hash-{folder.name}"}
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(job))
    write_lineage(folder, job, parents)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    facts = [{"part": part["part"], "identity": part["identity"]} for part in parents]
    save_checkpoint(checkpoint, {"w": torch.tensor([value])}, model="m", step=int(value), parents=facts)
    write_lineage(folder, job, parents)
    return checkpoint


def test_three_stages_are_one_tree(tmp_path: Path) -> None:
    tokenizer = make(tmp_path / "tokenizer", 1)
    base = make(tmp_path / "base", 2, vision_tokenizer=tokenizer)
    make(tmp_path / "instruction", 3, vision_tokenizer=tokenizer, model=base)
    found = json.loads((tmp_path / "instruction" / "lineage.json").read_text())
    assert (found["job"], found["config_hash"], found["step"]) == ("job-instruction", "hash-instruction", 3)
    parts = {parent["part"]: parent for parent in found["parents"]}
    assert parts["model"]["job"] == "job-base"
    assert parts["model"]["config_hash"] == "hash-base"
    (grandparent,) = parts["model"]["parents"]
    assert grandparent["identity"] == parts["vision_tokenizer"]["identity"] == trace_weights(tokenizer)["identity"]


def test_a_parent_whose_record_is_gone_keeps_its_identity(tmp_path: Path) -> None:
    tokenizer = make(tmp_path / "tokenizer", 1)
    base = make(tmp_path / "base", 2, vision_tokenizer=tokenizer)
    for name in ("job.json", "lineage.json"):
        (tmp_path / "base" / name).unlink()
    node = trace_weights(base)
    assert (node["job"], node["step"]) == (None, 2)
    assert [(parent["part"], parent["job"]) for parent in node["parents"]] == [("vision_tokenizer", None)]


def test_a_lineage_of_older_weights_is_not_taken(tmp_path: Path) -> None:
    tokenizer = make(tmp_path / "tokenizer", 1)
    base = make(tmp_path / "base", 2, vision_tokenizer=tokenizer)
    save_checkpoint(base, {"w": torch.tensor([9.0])}, model="m", step=9)
    assert trace_weights(base)["parents"] == []


def test_a_job_without_weights_has_no_lineage(tmp_path: Path) -> None:
    write_lineage(tmp_path, {"id": "a", "config_hash": "b"}, [])
    assert not (tmp_path / "lineage.json").exists()
