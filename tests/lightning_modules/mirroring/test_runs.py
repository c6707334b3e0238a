"""The offline files of W&B of whole jobs, read record by record: a curriculum, an evaluation, a multirun of four jobs, a later sync."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_modules.tracking.mirroring.offline import OfflineRun, find_offline, read_offline
from lightning_modules.tracking.mirroring.process import drop_older
from lightning_modules.tracking.mirroring.sync import is_mirrored, sync_runs
from plait.errors import RecipeError
from plait.runs import Run
from tests.conftest import ONE_THREAD, ROOT
from tests.lightning_modules.mirroring.mirrors import check_rows, settle

SECRETS = {"SLURM_JWT": "sesame-open-1", "MY_PASSWORD": "sesame-open-2", "WHERE_IT_LIES": "sesame-open-3"}


def read_bytes(folder: Path) -> bytes:
    """Everything that lies in the folder of W&B."""
    return b"".join(path.read_bytes() for path in sorted((folder / "wandb").rglob("*")) if path.is_file())


def check_config(folder: Path, found: OfflineRun) -> None:
    """Overrides, nodes and parameter counts stand in the config, as the run has them."""
    assert found.config["overrides"]["scale"] == "tiny"
    ledger = json.loads((folder / "ledger.json").read_text())
    assert found.config["parameters"]["all"] == ledger["parameters"]
    assert found.config["parameters"]["trained"] == ledger["trainable_parameters"]
    assert set(found.config["parameters"]) == {"all", "trained", *(row["part"] for row in ledger["rows"])}
    stored = Run(folder).config
    assert found.config["trainer"]["max_steps"] == stored["trainer"]["max_steps"] == 2
    assert set(stored) <= set(found.config)
    assert found.config["code"]["commit"] == Run(folder).passport["code"]["commit"]


def test_the_stages_of_a_curriculum(small_run: Path) -> None:
    """One group, a name, type, tags and config each, parents by identity and run, samples at several steps under one key."""
    stages = ("tokenizer", "codes", "pretraining", "instruction")
    found = {stage: settle(small_run / stage) for stage in stages}
    assert {run.facts["group"] for run in found.values()} == {"small"}
    assert [run.facts["name"] for run in found.values()] == list(stages)
    assert [run.facts["job_type"] for run in found.values()] == ["tokenizer", "encoding", "pretraining", "instruction"]
    assert len({run.facts["id"] for run in found.values()}) == 4
    assert all(run.facts["notes"] for run in found.values())
    assert all(run.exit_code == 0 for run in found.values())
    assert found["codes"].summary["codes/pictures"] > 0
    for stage in ("tokenizer", "pretraining", "instruction"):
        run, folder = found[stage], small_run / stage
        check_config(folder, run)
        check_rows(folder, run)
        assert run.facts["tags"] == ["liquid", stage]
        pages = [row for row in run.rows if "samples" in row and "sample_table" in row]
        assert [row["_step"] for row in pages] == [0, 1]
        (place,) = find_offline(folder)
        shown = [(place / "files" / row["samples"]["path"]).read_text() for row in pages]
        assert shown == [(folder / "samples" / f"step-{step:07d}.html").read_text() for step in (1, 2)]
        identity = Run(folder).checkpoint / "manifest.json"
        assert f"weights-{json.loads(identity.read_text())['hashes']['model.safetensors'][:16]}" in run.artifacts
        assert run.artifacts[f"record-{run.facts['id']}"] == "record"
    parents = found["instruction"].config["parents"]
    assert {part: parent["run"] for part, parent in parents.items()} == {
        "vision_tokenizer": found["tokenizer"].facts["id"],
        "model": found["pretraining"].facts["id"],
    }
    identities = json.loads((small_run / "instruction" / "job.json").read_text())["parents"]
    assert {part: parent["identity"] for part, parent in parents.items()} == identities


def test_a_table_of_samples_holds_prompt_answer_and_thumbnail(small_run: Path) -> None:
    settle(small_run / "instruction")
    staged = [path for path in (small_run / "instruction/wandb/staging").rglob("*") if path.is_file()]
    texts = [path.read_text() for path in staged if path.read_bytes()[:1] == b"{"]
    tables = [table for table in map(json.loads, texts) if "prompt" in table.get("columns", ())]
    assert tables
    for table in tables:
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        assert all(isinstance(row["seed"], str | None) and isinstance(row["prompt"], str) for row in rows)
        pictures = [row["thumbnail"] for row in rows if row["thumbnail"]]
        assert all(picture["_type"] == "image-file" for picture in pictures)
    digests = {Path(picture["path"]).name for picture in pictures}
    assert len(digests) <= len([path for path in staged if path.read_bytes()[:4] == b"\x89PNG"])


@pytest.mark.slow
def test_an_evaluation_tells_its_figures_and_the_run_it_judged(project: Path) -> None:
    sketch_run = project / "outputs" / "demo"
    found, judged = settle(sketch_run / "evaluation"), settle(sketch_run / "instruction")
    assert (found.facts["job_type"], found.facts["name"], found.facts["group"]) == ("evaluation", "evaluation", "sketch")
    summary = json.loads((sketch_run / "evaluation" / "summary.json").read_text())
    figures = {key: value for key, value in summary.items() if isinstance(value, float)}
    assert figures
    for key, value in figures.items():
        assert found.summary[key.replace(".", "/")] == pytest.approx(value)
    assert {"val/captions", "val/captions/low", "val/captions/high", "val/captions/n"} <= found.summary.keys()
    assert found.config["judged"]["run"] == found.config["parents"]["model"]["run"] == judged.facts["id"]
    assert found.config["parameters"]["all"] > 0
    assert found.config["overrides"]["run"].endswith("instruction")
    assert {"table", "sample_table"} <= found.rows[-1].keys()
    assert any(key.startswith("sheets") for key in found.rows[-1])


@pytest.mark.slow
def test_the_jobs_of_a_multirun_can_be_told_apart(tmp_path: Path) -> None:
    """By their names, tags and configs; one group; and no value of the environment in any of their files."""
    given = [
        "experiment=liquid/tokenizer",
        "scale=tiny",
        "tags=[mine,'is-${oc.env:MY_PASSWORD}']",
        "paths.cache=${oc.env:WHERE_IT_LIES}",
    ]
    swept = ["seed=1,2", "stage.optimizer.lr=1e-3,2e-3"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lightning_modules.commands.train",
            "-m",
            *given,
            *swept,
            "+note=${oc.env:MY_PASSWORD}",
            "hydra.sweep.dir=sweep",
        ],
        cwd=tmp_path,
        env={**os.environ, **ONE_THREAD, **SECRETS, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    folders = [tmp_path / "sweep" / str(number) for number in range(4)]
    found = [settle(folder) for folder in folders]
    values = [(seed, rate) for seed in (1, 2) for rate in ("0.001", "0.002")]
    expected = [f"tokenizer seed={seed} stage.optimizer.lr={rate}" for seed, rate in values]
    assert [run.facts["name"] for run in found] == expected
    assert len({run.facts["id"] for run in found}) == 4
    assert len({run.facts["group"] for run in found}) == 1
    for folder, run, (seed, rate) in zip(folders, found, values, strict=True):
        check_config(folder, run)
        check_rows(folder, run)
        assert run.config["overrides"] | {"seed": seed, "stage.optimizer.lr": float(rate)} == run.config["overrides"]
        assert run.config["swept"] == {"seed": str(seed), "stage.optimizer.lr": rate}
        assert {"mine", "is-<MY_PASSWORD>", f"seed={seed}", f"stage.optimizer.lr={rate}"} <= {*run.facts["tags"]}
        assert run.facts["notes"].startswith("plait-train -m experiment=liquid/tokenizer")
        sent = read_bytes(folder) + (folder / "mirror.json").read_bytes()
        assert not re.search(b"sesame-open", sent)
        assert b"diff --git" not in sent


def test_a_mirror_is_made_complete_later_and_once(small_run: Path, tmp_path: Path) -> None:
    """From the folder alone, wherever it lies now, under its own id; a whole one is left alone."""
    settle(small_run / "pretraining")
    folder = tmp_path / "moved"
    shutil.copytree(small_run / "pretraining", folder, ignore=shutil.ignore_patterns("wandb"))
    assert not is_mirrored(folder, online=False)
    assert sync_runs(runs=str(tmp_path)) == {str(folder): "complete now"}
    before, found = read_offline(*find_offline(small_run / "pretraining")), settle(folder)
    assert found.facts == before.facts
    assert found.config.keys() == before.config.keys()
    assert [row["_step"] for row in found.rows] == [row["_step"] for row in before.rows]
    check_rows(folder, found)
    (place,) = find_offline(folder)
    assert sync_runs(runs=[str(folder)]) == {str(folder): "already complete"}
    assert find_offline(folder) == [place]
    # a log that breaks off, as after kill -9 or on a full disk, is not complete
    (log,) = place.glob("*.wandb")
    log.write_bytes(log.read_bytes()[:-2000])
    assert not is_mirrored(folder, online=False)


def test_what_is_no_run_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"holds no run: expected mirror\.json or metrics\.jsonl"):
        sync_runs(runs=str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(RecipeError, match="WANDB_MODE=disabled"):
        sync_runs(runs=str(tmp_path))


def test_older_copies_go_once_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this run; another's stays."""
    names = [
        "wandb/offline-run-1-mine",
        "wandb/offline-run-2-mine",
        "wandb/offline-run-1-other",
        "wandb/staging/1",
        "wandb/staging/2",
    ]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb/staging/2"))
    drop_older(tmp_path, "mine", [tmp_path / names[0], tmp_path / names[2]])
    assert [(tmp_path / name).is_dir() for name in names] == [False, True, True, False, True]
