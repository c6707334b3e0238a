"""A run comes back from W&B as it was: the API is replaced at its boundary, the artifacts are real ones of wandb."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import wandb

from lightning_modules.mirror import fetch_run
from lightning_modules.tracking import WandbRun
from lightning_modules.workbench import Workbench
from plait.errors import CheckpointError
from plait.runs import Run


class Sent:
    """A run that keeps what was handed over."""

    def __init__(self, id: str) -> None:
        self.id, self.logged, self.settings = id, [], SimpleNamespace(_offline=True)

    def log_artifact(self, artifact: wandb.Artifact) -> None:
        self.logged.append(artifact)


class Stored:
    """What the API gives for an artifact: its type, its metadata, and its files."""

    def __init__(self, artifact: wandb.Artifact, run: SimpleNamespace) -> None:
        self.artifact, self.run, self.type, self.metadata = artifact, run, artifact.type, artifact.metadata

    def logged_by(self) -> SimpleNamespace:
        return self.run

    def download(self, root: str) -> str:
        for name, entry in self.artifact.manifest.entries.items():
            (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(entry.local_path, Path(root) / name)
        return root


def hand_over(folder: Path, id: str, parents: dict, has_weights: bool) -> SimpleNamespace:
    """What W&B has of a finished run."""
    logger = WandbRun(folder, has_weights=has_weights)
    sent = logger._run = Sent(id)
    logger.log_record(folder)
    logger.log_weights(folder / "checkpoints" / "last.ckpt", parents)
    run = SimpleNamespace(id=id, state="finished", entity="lab", project="plait")
    run.stored = {artifact.name: Stored(artifact, run) for artifact in sent.logged}
    run.logged_artifacts = lambda: list(run.stored.values())
    return run


@pytest.fixture
def online(monkeypatch):
    """Makes wandb.Api know some runs."""

    def offer(*runs: SimpleNamespace) -> None:
        artifacts = {f"lab/plait/{name}:latest": found for run in runs for name, found in getattr(run, "stored", {}).items()}
        paths = {f"lab/plait/{run.id}": run for run in runs}

        def get(known, path):
            if path not in known:
                raise wandb.errors.CommError(f"Could not find {path}")
            return known[path]

        api = create_autospec(wandb.Api, instance=True)
        api.run.side_effect = lambda path: get(paths, path)
        api.artifact.side_effect = lambda name: get(artifacts, name)
        monkeypatch.setattr(wandb, "Api", lambda: api)

    return offer


def test_w_and_b_still_has_what_is_asked_of_it():
    """Names that are spoken to and that a replaced API would hide."""
    for owner, names in (
        (wandb.apis.public.Run, ("logged_artifacts", "scan_history", "files")),
        (wandb.apis.public.File, ("download",)),
        (wandb.Artifact, ("download", "logged_by", "metadata", "type")),
    ):
        assert not [name for name in names if not hasattr(owner, name)], owner


def test_a_finished_run_comes_back_whole_and_draws_the_same(small_run, tmp_path, online):
    parents = json.loads((small_run / "instruction" / "job.json").read_text())["parents"]
    online(
        hand_over(small_run / "tokenizer", "tok1", {}, True),
        hand_over(small_run / "pretraining", "pre1", {"vision_tokenizer": parents["vision_tokenizer"]}, True),
        hand_over(small_run / "instruction", "ins1", parents, True),
    )
    place = fetch_run("lab/plait/ins1", tmp_path)
    here, there = Run(small_run / "instruction"), Run(place)
    assert place == tmp_path / "ins1"
    assert there.is_complete
    assert (there.passport, list(there.metrics)) == (here.passport, list(here.metrics))
    assert there.ledger.to_json() == here.ledger.to_json()
    assert [sample.document for sample in there.samples] == [sample.document for sample in here.samples]
    assert there.samples[0].page.read_text() == here.samples[0].page.read_text()
    drawn, expected = (Workbench(run.folder).redraw(["a red car"])[0].document for run in (there, here))
    assert drawn == expected
    # by an artifact, and over what an earlier call left
    name = next(
        name for name in hand_over(small_run / "instruction", "ins1", parents, True).stored if name.startswith("weights")
    )
    assert fetch_run(f"lab/plait/{name}:latest", tmp_path) == place


def test_without_its_weights_a_run_can_be_read(small_run, tmp_path, online):
    online(hand_over(small_run / "tokenizer", "tok1", {}, False))
    run = Run(fetch_run("lab/plait/tok1", tmp_path))
    assert run.metrics.keys == Run(small_run / "tokenizer").metrics.keys
    assert not (run.checkpoint / "model.safetensors").exists()


def test_a_run_that_still_goes_on_is_read_as_far_as_it_is(tmp_path, online):
    class File:
        name = "media/html/samples_7_abc.html"

        def download(self, root, replace):
            (Path(root) / self.name).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / self.name).write_text("<body>page</body>")

    rows = [
        {"_step": 0, "_runtime": 1.5, "trainer/global_step": 0, "train/loss": 5.0, "samples": {"_type": "html-file"}},
        {"_step": 1, "trainer/global_step": 2, "train/loss": "NaN"},
    ]
    run = SimpleNamespace(id="now1", state="running", entity="lab", project="plait")
    run.logged_artifacts, run.scan_history, run.files = list, lambda: rows, lambda pattern: [File()]
    online(run)
    found = Run(fetch_run("lab/plait/now1", tmp_path))
    assert not found.is_complete
    assert found.metrics.series("train/loss")[0] == [0, 2]
    assert found.metrics.keys == ["train/loss"]
    assert found.metrics[0]["train/loss"] == 5.0
    assert [path.name for path in (found.folder / "samples").iterdir()] == ["row-0000007.html"]


def test_what_w_and_b_does_not_have_is_said_in_our_words(tmp_path, online):
    online()
    with pytest.raises(CheckpointError, match=r"does not give 'lab/plait/none': Could not find .*wandb login"):
        fetch_run("lab/plait/none", tmp_path)
    assert not list(tmp_path.iterdir())
