"""The study of folding: its arms read a board at the positions that are stated, and one trains and is examined at scale=tiny."""

import json

import pytest
from omegaconf import OmegaConf

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch
from plait.tokenizers.folding import fold_places

JOB = OmegaConf.to_container(compose_job("train", ["experiment=synergen_vl/study_folding"]).job, resolve=True)
TRAIN, EVALUATE = (stage["overrides"] for stage in JOB["stages"])


def compose_arm(arm: str, *overrides: str):
    """What trains in an arm, with codes that are made when they are asked for."""
    own = [item for item in JOB["arms"][arm] if not item.startswith("codes.folder")]
    return compose_job("train", [*TRAIN, *own, "base.vision_tokenizer=random", "logger=none", *overrides])


@pytest.mark.parametrize(
    ("arm", "positions"), [("tiles_fold", 40), ("small_equal_positions", 32), ("tiles_none", 320), ("small_fold", 8)]
)
def test_a_board_takes_as_many_positions_as_is_stated(arm, positions) -> None:
    config = compose_arm(arm)
    assembly = Assembly(config)
    world, pictures = assembly.build("world"), assembly.build("codes")
    (grid,) = pictures.codes(world.source("dense_vqa", "train")[0].images[0].image_id)
    assert grid.size // len(fold_places(grid.shape[-2:], config.model.fold)[0]) == positions
    assert config.template.text_to_image_ratio == 0.0, "a board in tiles cannot be drawn"


def test_arms_differ_in_how_a_picture_is_read_and_in_nothing_else() -> None:
    names = {item.partition("=")[0] for overrides in JOB["arms"].values() for item in overrides}
    assert names == {"tiling", "codes.folder", "model.fold"}


def test_the_shared_stages_show_boards_as_the_arms_read_them() -> None:
    configs = {
        stage["name"]: compose_job(
            stage.get("config", "train"), [item.replace("<tokenizer>", "random") for item in stage["overrides"]]
        )
        for stage in JOB["shared"]
    }
    for arm, overrides in JOB["arms"].items():
        read = compose_arm(arm)
        (folder,) = (item for item in overrides if item.startswith("codes.folder"))
        shared = configs[folder.split("/")[-2]]
        assert shared.tiling == read.tiling, arm
        assert shared.world == read.world == configs["tokenizer"].world
        assert shared.vision_tokenizer == read.vision_tokenizer == configs["tokenizer"].vision_tokenizer
    for batches in (configs["tokenizer"].batches, configs["tokenizer"].validation_batches):
        assert (list(batches.pools.subsets), dict(batches.weights)) == (["dense"], {"dense": 1.0})


@pytest.mark.slow
def test_an_arm_trains_and_is_asked_at_scale_tiny(tmp_path) -> None:
    run, evaluation = tmp_path / "pretraining", tmp_path / "evaluation"
    small = ["scale=tiny", "backbone=tiny", "trainer.max_steps=2", "batches.documents_per_window=6"]
    launch(compose_arm("tiles_fold", *small, f"paths.folder={run}"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("train/text_loss_nats" in row for row in rows)
    own = [item.replace("<pretraining>", str(run)) for item in EVALUATE if "job.plan.val" not in item]
    launch(compose_job("evaluate", [*own, "n=2", "tuning_n=2", "logger=none", f"paths.folder={evaluation}"]))
    results = json.loads((evaluation / "evaluation.json").read_text())["results"]
    assert set(results) == {f"test_pair/dense_vqa{kind}" for kind in ("", "_count", "_read", "_what", "_where")}
    assert results["test_pair/dense_vqa"]["n"] == 8
