"""A run comes back from W&B as it was: the API is replaced at its boundary, the artifacts are real ones of wandb."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import wandb

from lightning_modules.tracking.mirroring.content import make_artifacts
from lightning_modules.tracking.mirroring.fetch import fetch_run
from lightning_modules.tracking.mirroring.record import read_json
from lightning_modules.workbench import open_run
from plait.errors import CheckpointError
from plait.runs import Run


class Stored:
    """What the API gives for an artifact: its type, its metadata, and its files."""

    def __init__(self, artifact: wandb.Artifact, run: SimpleNamespace) -> None:
        self.artifact, self.run, self.type, self.metadata = artifact, run, artifact.type, artifact.metadata
        self.manifest = artifact.manifest

    def logged_by(self) -> SimpleNamespace:
        return self.run

    def download(self, root: str) -> str:
        for name, entry in self.artifact.manifest.entries.items():
            (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(entry.local_path, Path(root) / name)
        return root


def hand_over(folder: Path, id: str, has_weights: bool) -> SimpleNamespace:
    """What W&B has of a finished run."""
    facts = {"id": id, "has_weights": has_weights, "config": read_json(folder / "mirror.json")["config"]}
    run = SimpleNamespace(id=id, state="finished", entity="lab", project="plait")
    run.stored = {artifact.name: Stored(artifact, run) for artifact in make_artifacts(folder, facts)}
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
    online(
        hand_over(small_run / "tokenizer", "tok1", True),
        hand_over(small_run / "pretraining", "pre1", True),
        hand_over(small_run / "instruction", "ins1", True),
    )
    place = fetch_run("lab/plait/ins1", tmp_path)
    here, there = Run(small_run / "instruction"), Run(place)
    assert place == tmp_path / "ins1"
    assert there.is_complete
    expected = {**here.passport, "code": {key: value for key, value in here.passport["code"].items() if key != "diff"}}
    assert (there.passport, list(there.metrics)) == (expected, list(here.metrics))
    assert there.ledger.to_json() == here.ledger.to_json()
    assert [sample.document for sample in there.samples] == [sample.document for sample in here.samples]
    assert there.samples[0].page.read_text() == here.samples[0].page.read_text()
    drawn, expected = (open_run(run.folder).draw("a red car")[0].document for run in (there, here))
    assert drawn == expected
    # by an artifact, and over what an earlier call left
    name = next(name for name in hand_over(small_run / "instruction", "ins1", True).stored if name.startswith("weights"))
    assert fetch_run(f"lab/plait/{name}:latest", tmp_path) == place


def test_without_its_weights_a_run_can_be_read(small_run, tmp_path, online):
    online(hand_over(small_run / "tokenizer", "tok1", False))
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


HOSTILE = {
    "an id that climbs": {"id": "../../x"},
    "an absolute id": {"id": "/tmp/x"},
    "a hidden folder": {"id": ".."},
    "a part that climbs": {"parents": {"../../../x": "a" * 64}},
    "a part that is absolute": {"parents": {"/tmp/x": "a" * 64}},
    "an identity that is a path": {"parents": {"model": "../../other/project/x"}},
    "a file that climbs": {"files": ["../../../x"]},
    "a file of another name": {"files": ["job.json"]},
    "a reference to a file here": {"reference": "file:///etc/hostname"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_writes_in_its_own_folder_only(tmp_path, online, name):
    """Whatever W&B says of it: nothing is written elsewhere, nothing of it is kept, and what was there before stays."""
    case, source = HOSTILE[name], tmp_path / "source"
    for file in ("config.yaml", "manifest.json", "model.safetensors"):
        (source / file).parent.mkdir(exist_ok=True)
        (source / file).write_text("{}")
    record, weights = wandb.Artifact("record-x", type="record"), wandb.Artifact("weights-x", type="weights")
    weights.metadata = {"parents": case.get("parents", {})}
    weights.add_file(str(source / "manifest.json"))
    weights.add_file(str(source / "model.safetensors"))
    record.add_file(str(source / "config.yaml"))
    for file in case.get("files", ()):
        record.manifest.entries[file] = record.manifest.entries["config.yaml"]
    if "reference" in case:
        record.add_reference(case["reference"], name="passport.json")
    run = SimpleNamespace(id=case.get("id", "run1"), state="finished", entity="lab", project="plait")
    run.stored = {artifact.name: Stored(artifact, run) for artifact in (record, weights)}
    run.logged_artifacts = lambda: list(run.stored.values())
    online(run)
    place = tmp_path / "a" / "b" / "c"
    (place / "run1").mkdir(parents=True)
    (place / "run1" / "job.json").write_text('{"fetched_from": "lab/plait/run1"}')  # an older one, which a fetch would replace
    before = {path for path in tmp_path.rglob("*") if source not in path.parents}
    with pytest.raises(CheckpointError, match=r"no run of plait|does not give"):
        fetch_run(f"lab/plait/{run.id}", place)
    assert {path for path in tmp_path.rglob("*") if source not in path.parents} == before
    assert not Path("/tmp/x").exists()


def test_a_target_that_is_a_link_is_refused(tmp_path, online):
    run = SimpleNamespace(id="run1", state="finished", entity="lab", project="plait", logged_artifacts=list)
    online(run)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link"):
        fetch_run("lab/plait/run1", tmp_path / "runs")
    assert not list((tmp_path / "elsewhere").iterdir())
