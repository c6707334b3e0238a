"""Where commands write folders that a user names: whatever is not an older one of their own kind is left alone, and said at once."""

from pathlib import Path

import pytest

from lightning_modules.folders.records import write_job
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import save_pretrained
from lightning_modules.running.launch import launch
from plait.checkpoints import save_checkpoint
from plait.errors import CheckpointError
from tests.malformed.standard import contents

SAVED = {"recipe": {"model": {}, "text_tokenizer": {}}}
RELEASE = [{"part": "release", "identity": "elsewhere"}]
WAYS = {
    "export": ("export", "run={place}/run"),
    "export as released": ("export", "run={place}/run", "layout=released"),
    "export of a saved model": ("export", "run={place}/saved"),
    "liquid": ("convert", "source={place}/release", "vqgan={place}/vqgan.ckpt"),
    "vision tokenizer": ("convert", "weights=emu3", "source={place}/release"),
    "language model": ("convert", "weights=internlm2", "source={place}/release"),
}
KEPT = [
    "run",
    "run/checkpoints/last.ckpt",
    "run/model",
    "curriculum/model",
    "thesis",
    "thesis/thesis.txt",
    "tokenizer",
    "around",
    ".",
]
FINDING = "is there already, and is something else|lies in the run|holds the run|overlaps with"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders of every kind beside each other."""
    for name in ("run", "curriculum", "around/run"):
        write_job(tmp_path / name, {"state": "finished"})
    for name in ("thesis", "release"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    save_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt", {}, model="", config=SAVED, parents=RELEASE)
    save_checkpoint(tmp_path / "saved", {}, model="", config=SAVED)
    save_checkpoint(tmp_path / "tokenizer", {}, model="", step=3)
    around = tmp_path / "around"
    save_checkpoint(tmp_path / "other", {}, model="", config=SAVED, parents=RELEASE)
    for path in (tmp_path / "other").iterdir():
        path.rename(around / path.name)
    for name in ("config.json", "vision_tokenizer.safetensors"):
        (around / name).touch()
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", KEPT)
def test_what_is_something_else_is_left_alone(place: Path, way: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at sight: nothing is loaded, and no folder of a job is made."""
    monkeypatch.setattr("lightning_modules.running.launch.adopt_run", lambda config: None)
    monkeypatch.setattr("lightning_modules.running.launch.load_bases", lambda *_: pytest.fail("loaded"))
    command, *overrides = WAYS[way]
    before = contents(place)
    given = [*(item.format(place=place) for item in overrides), f"target={place / target}", f"paths.folder={place / 'job'}"]
    with pytest.raises(
        CheckpointError, match=rf"target={place / target} ({FINDING}).*Expected a new or empty folder.*Next: choose"
    ):
        launch(compose_job(command, given))
    assert contents(place) == before


def test_a_saved_model_is_not_written_over_what_it_is_made_from(place: Path) -> None:
    given = [f"run={place / 'saved'}", f"target={place / 'saved'}", f"paths.folder={place / 'job'}"]
    before = contents(place)
    with pytest.raises(CheckpointError, match=r"overlaps with .*saved, which is to be read"):
        launch(compose_job("export", given))
    assert contents(place) == before


def test_an_older_export_is_replaced_and_a_run_is_not(small_run: Path, tmp_path: Path) -> None:
    run, thesis = small_run / "instruction", tmp_path / "thesis"
    for _ in range(2):
        save_pretrained(run, tmp_path / "mine")
    (tmp_path / "mine" / "manifest.json").rename(tmp_path / "manifest.json")
    thesis.mkdir()
    (thesis / "thesis.txt").write_text("years of work")
    for target in (tmp_path / "mine", thesis, small_run / "tokenizer"):
        with pytest.raises(CheckpointError, match=r"is something else|lies in the run"):
            save_pretrained(run, target)
    assert (thesis / "thesis.txt").is_file()
    assert (small_run / "tokenizer" / "checkpoints").is_dir()
