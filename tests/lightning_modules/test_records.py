"""What a run says of itself, read from elsewhere."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_modules.folders.records import find_neighbours


def stored(folder: str = "outputs/demo/instruction") -> DictConfig:
    base = {"vision_tokenizer": "outputs/demo/tokenizer", "backbone": "random", "vision": "outputs/lost"}
    return OmegaConf.create({"base": base, "codes": {"folder": "outputs/demo/codes"}, "paths": {"folder": folder}})


def test_a_run_opened_from_elsewhere_finds_its_base_beside_it(tmp_path: Path, monkeypatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name in ("tokenizer", "codes", "instruction"):
        (there / "outputs/demo" / name).mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    config = stored()
    found = find_neighbours(config, "../there/outputs/demo/instruction")
    assert config.base.vision_tokenizer == found["outputs/demo/tokenizer"] == str(there / "outputs/demo/tokenizer")
    assert config.codes.folder == str(there / "outputs/demo/codes")
    assert config.base.backbone == "random"
    assert config.base.vision == "outputs/lost"  # what is nowhere keeps its name, for the message


def test_what_is_here_stays(tmp_path: Path, monkeypatch) -> None:
    for name in ("tokenizer", "codes", "instruction"):
        (tmp_path / "outputs/demo" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = stored()
    assert find_neighbours(config, "outputs/demo/instruction") == {}
    assert config == stored()


def test_a_run_that_was_moved_tells_nothing(tmp_path: Path) -> None:
    moved = tmp_path / "mine"
    moved.mkdir()
    assert find_neighbours(stored(), moved) == {}
    assert find_neighbours(stored(str(tmp_path / "mine")), moved) == {}


def test_the_architecture_of_a_language_model_is_found_as_well(tmp_path: Path, monkeypatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name in ("text", "align_2"):
        (there / "outputs/whole" / name).mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    base = {"backbone": "random", "model": "outputs/whole/align_1"}
    later = OmegaConf.create({"paths": {"folder": "outputs/whole/align_2"}, "base": base, "text_base": "outputs/whole/text"})
    assert find_neighbours(later, there / "outputs/whole/align_2") == {"outputs/whole/text": str(there / "outputs/whole/text")}
    assert later.text_base == str(there / "outputs/whole/text")
    first = OmegaConf.create({**later, "base": {"backbone": "outputs/whole/text"}, "text_base": "${base.backbone}"})
    find_neighbours(first, there / "outputs/whole/align_2")
    assert first.text_base == first.base.backbone == str(there / "outputs/whole/text")
