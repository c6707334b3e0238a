"""What a user writes in a file of their own is used or refused."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from lightning_modules.composing.own_files import check_files
from plait.errors import RecipeError

HEAD = "# @package _global_\n"
RECIPE = f"{HEAD}defaults:\n  - liquid/pretraining\n"
BASE = "base.vision_tokenizer=random"


def check(folder: Path, files: dict[str, str], *overrides: str) -> None:
    """As `plait-train --config-dir <folder> ...` does."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    given = [f"hydra.searchpath=[file://{folder}]", *overrides]
    with initialize_config_module("plait.conf", version_base="1.3"):
        check_files(compose("train", given), "train", given)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (f"{RECIPE}name: mine\ntemplate:\n  caption_dropout: 0.2\nstage:\n  optimizer:\n    muon_lr: 6.0e-3\n", ()),
        (f"{RECIPE}trainer:\n  max_steps: 50\n", ("trainer.max_steps=7",)),
        (f"{RECIPE}trainer:\n  max_steps: 50\n", ("scale=tiny",)),
        (f"{RECIPE}width: 5\nbackbone:\n  hidden_size: ${{width}}\n", ()),
    ],
    ids=["used", "overruled", "scaled", "variable"],
)
def test_what_is_used_passes(tmp_path: Path, text: str, overrides: tuple[str, ...]) -> None:
    check(tmp_path, {"experiment/mine.yaml": text}, "experiment=mine", BASE, *overrides)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "experiment/mine",
            f"{RECIPE}trainer:\n  max_steps: 50\n",
            r"trainer\.max_steps: 50, but scale/demo.*makes it \$\{budget",
        ),
        ("experiment/mine", "defaults:\n  - liquid/pretraining\nname: mine\n", "nothing reads experiment.*@package _global_"),
        ("experiment/mine", f"{RECIPE}traner:\n  max_steps: 50\n", "nothing reads traner.*did you mean trainer"),
        ("experiment/mine", f"{RECIPE}vision:\n  depth: 3\n", "nothing in this job reads vision"),
    ],
    ids=["shadowed", "no-package", "misspelt", "not-built"],
)
def test_what_is_not_used_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check(tmp_path, {f"{name}.yaml": text}, "experiment=mine", BASE)


def test_a_choice_that_another_file_makes_as_well_is_refused(tmp_path: Path) -> None:
    text = f"{HEAD}defaults:\n  - emoji_world\n  - override /stage: text\n"
    with pytest.raises(RecipeError, match=r"data/mine\.yaml chooses stage=text, but experiment/\S+ chooses stage=pretraining"):
        check(tmp_path, {"data/mine.yaml": text}, "experiment=liquid/pretraining", "data=mine", BASE)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"optimizer/mine.yaml": "lr: 1.0\n"}, "nothing reads optimizer.*make `# @package stage.optimizer` the first line"),
        (
            {"optimizer/muon.yaml": "# @package stage.optimizer\nlr: 1.0\n"},
            r"optimizer/muon\.yaml is in .* and in pkg://plait\.conf",
        ),
    ],
    ids=["package-of-the-group", "namesake"],
)
def test_a_file_that_is_not_where_it_would_be_read(tmp_path: Path, files: dict[str, str], words: str) -> None:
    (name,) = files
    option = Path(name).stem
    with pytest.raises(RecipeError, match=words):
        check(tmp_path, files, "experiment=liquid/pretraining", f"optimizer={option}", BASE)
