"""scale=paper is Liquid as published, where that is known: its numbers, and that it trains (specs sections 3 to 7)."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch, resolve
from plait.runs import Run

STAGES = {"pretraining": 58_600, "instruction": 3_418}


def paper(stage: str, *overrides: str):
    return compose_job("train", [f"experiment=liquid/{stage}", "scale=paper", "paths.folder=here", *overrides])


@pytest.mark.parametrize("stage", STAGES)
def test_the_published_numbers(stage: str) -> None:
    recipe = OmegaConf.create(resolve(paper(stage)))
    assert recipe.backbone.name_or_folder == "google/gemma-7b"
    assert recipe.stage.optimizer == {
        "_target_": "torch.optim.AdamW",
        "_partial_": True,
        "lr": 2e-5,
        "betas": [0.9, 0.999],
        "weight_decay": 0.0,
    }
    assert recipe.stage.schedule._target_ == "lightning_modules.training.schedules.cosine"
    assert (recipe.stage.schedule.warmup_share, recipe.stage.schedule.final_ratio) == (0.03, 0.0)
    assert (recipe.trainer.max_steps, recipe.trainer.gradient_clip_val) == (STAGES[stage], 0.5)
    ratio = {"pretraining": 0.8, "instruction": 1.0}[stage]
    assert (recipe.template.text_to_image_ratio, recipe.template.caption_dropout) == (ratio, 0.1)
    assert recipe.backbone.gradient_checkpointing
    assert recipe.stage.averaged_over.text == recipe.stage.averaged_over.image == ["text", "image"]
    assert recipe.stage.term_weights == {"text": 1.0, "image": 1.0, "max_z": 2e-4}
    assert (recipe.model.code_rows, recipe.model.image_positions, recipe.model.has_max_z) == ("dense", False, True)
    sampler = {key: value for key, value in recipe.image_policy.items() if key != "_target_"}
    assert sampler == {"guidance": 7.0, "temperature": 0.99, "top_k": 4096, "top_p": 0.96}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("accumulate", [16, 64])
def test_a_step_is_1024_documents_of_at_most_2048_tokens(stage: str, accumulate: int) -> None:
    recipe = resolve(paper(stage, f"trainer.accumulate_grad_batches={accumulate}"))
    batches = recipe["batches"]
    assert batches["accumulate"] == batches["batches_per_window"] == recipe["trainer"]["accumulate_grad_batches"] == accumulate
    assert (batches["documents_per_window"], batches["row_length"]) == (1024, 2048)


def test_the_mixture_is_the_published_one_as_far_as_the_data_goes() -> None:
    weights = {stage: resolve(paper(stage))["batches"]["weights"] for stage in STAGES}
    pairs = {stage: sum(found[name] for name in ("one_object", "two_objects", "glyphs")) for stage, found in weights.items()}
    assert pairs["pretraining"] == pytest.approx(weights["pretraining"]["text"])  # 30 M and 30 M
    assert (weights["instruction"]["text"], pairs["instruction"], weights["instruction"]["vqa"]) == (1.0, 1.0, 1.5)
    for stage, found in weights.items():
        assert sum(found.values()) == {"pretraining": 1.0, "instruction": 3.5}[stage]


def test_it_trains_with_a_small_backbone(tmp_path: Path) -> None:
    """Two steps of the recipe, windows and rows cut down with the pictures."""
    small = ["backbone=tiny", "tokenizer=patch_fsq_tiny", "world.image_size=64", "base.vision_tokenizer=random"]
    window = ["batches.documents_per_window=32", "batches.row_length=128", "trainer.accumulate_grad_batches=2"]
    budget = ["trainer.max_steps=2", "trainer.log_every_n_steps=1", "+trainer.limit_val_batches=0"]
    launch(paper("pretraining", *small, *window, *budget, "logger=none", "~callbacks.gallery", f"paths.folder={tmp_path}"))
    run = Run(tmp_path)
    assert [(row.optimizer, row.weight_decay) for row in run.ledger.rows if row.is_trainable] == [("AdamW", 0.0)] * 2
    assert run.metrics.series("train/learning_rate")[1] == [2e-5, 0.0]  # a warmup of one step, and the end
    means = {name: run.metrics.series(f"train/{name}_loss_nats")[1][0] for name in ("text", "image", "max_z")}
    lower, upper = sorted((means["text"], means["image"]))
    assert lower < run.metrics.series("train/loss")[1][0] - 2e-4 * means["max_z"] < upper
