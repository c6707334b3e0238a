"""`from=<run>` hands over what a run trained or named, with its architecture; what does not belong together is refused."""

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import save_pretrained
from lightning_modules.running.launch import launch
from lightning_modules.running.starting import start_from
from plait.errors import RecipeError
from plait.runs import Run

SIZES = ["vision_tokenizer.width=48", "backbone.hidden_size=48", "model.image_positions=true"]


def train(folder: Path, experiment: str, *overrides: str) -> Path:
    launch(compose(experiment, "logger=none", "~callbacks.gallery", f"paths.folder={folder}", *overrides))
    return folder


def compose(experiment: str, *overrides: str):
    return compose_job("train", [f"experiment={experiment}", "scale=tiny", *overrides])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A tokenizer and a model on it, of sizes that no scale has."""
    place = tmp_path_factory.mktemp("bases")
    tokenizer = train(place / "tokenizer", "liquid/tokenizer", SIZES[0])
    return {
        "tokenizer": tokenizer,
        "pretraining": train(place / "pretraining", "liquid/pretraining", f"from={tokenizer}", *SIZES[1:]),
    }


def test_one_word_is_what_the_parts_spelled_out_are(runs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To the bit; and the sizes of the base hold where the scale says others, which is said."""
    spelled = [f"base.model={runs['pretraining']}", f"base.vision_tokenizer={runs['tokenizer']}", *SIZES]
    with caplog.at_level(logging.INFO, "lightning_modules"):
        short = Run(train(tmp_path / "short", "liquid/instruction", f"from={runs['pretraining']}"))
    assert f"from={runs['pretraining']} brings its architecture: " in caplog.text
    assert "vision_tokenizer.width is 48 there and 32 here" in caplog.text
    long = Run(train(tmp_path / "long", "liquid/instruction", *spelled))
    for key in ("train/loss", "train/image_loss_nats", "val/loss"):
        assert short.metrics.series(key) == long.metrics.series(key), key
    jobs = [OmegaConf.load(run.folder / "job.json") for run in (short, long)]
    assert jobs[0].config_hash == jobs[1].config_hash
    assert jobs[0].parents == jobs[1].parents
    assert OmegaConf.load(tmp_path / "short" / "config.yaml")["from"] is None


def test_a_saved_model_hands_itself_over(runs, tmp_path: Path) -> None:
    saved = save_pretrained(runs["pretraining"], tmp_path / "saved")
    config = compose("liquid/instruction", f"from={saved}", "+backbone.gradient_checkpointing=true")
    start_from(config)
    assert config.backbone.gradient_checkpointing  # the recipe's: it is no size
    assert config.base == {"vision_tokenizer": f"{saved}/vision_tokenizer", "model": str(saved)}
    assert (config.backbone.folder, config.text_tokenizer.folder) == (f"{saved}/backbone", str(saved))
    assert (config.vision_tokenizer.width, config.model.image_positions) == (48, True)


@pytest.mark.parametrize(
    ("experiment", "base", "overrides", "message"),
    [
        (
            "synergen_vl/align_1",
            "pretraining",
            [],
            "model of plait.systems.liquid.build, and this recipe builds one of plait.systems.s",
        ),
        (
            "liquid/instruction",
            "pretraining",
            ["template.word_dropout=0.1"],
            r"worded with \[\] and without \['.*'\] of this recipe",
        ),
        (
            "liquid/instruction",
            "pretraining",
            ["data=styles"],
            "the words of plait.worlds.emoji.*, and this recipe reads plait.worlds.st",
        ),
        ("liquid/instruction", ".", [], r"from=.* is no run folder"),
        ("base/vision", "tokenizer", [], "hands over a vision_tokenizer, and the job of vision builds none"),
    ],
)
def test_what_does_not_belong_together_is_refused(runs, experiment, base, overrides, message) -> None:
    config = compose(experiment, *overrides)
    config["from"] = str(runs.get(base, base))
    with pytest.raises(RecipeError, match=message):
        start_from(config)


def test_a_single_part_of_another_size_names_both_sides(runs, tmp_path: Path) -> None:
    config = compose("liquid/pretraining", f"base.vision_tokenizer={runs['tokenizer']}", f"paths.folder={tmp_path / 'run'}")
    message = r"base\.vision_tokenizer=.* of another size than this recipe: vision_tokenizer\.width is 48 there and 32 here\. Next: from="
    with pytest.raises(RecipeError, match=message):
        launch(config)
