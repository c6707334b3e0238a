"""A run knows what it goes on from: what differs is listed once, and what would falsify its record is refused unless it is named."""

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lightning_modules.folders.changes import check_changes, find_changes, is_harmless
from lightning_modules.folders.identity import resolve
from lightning_modules.loops.curriculum import compose_job
from plait.errors import RecipeError


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return compose_job(
        "train", ["experiment=liquid/pretraining", "scale=tiny", "base.vision_tokenizer=random", "paths.folder=run"]
    )


@pytest.fixture(scope="module")
def before(composed: DictConfig) -> dict[str, Any]:
    return resolve(composed)


def change(composed: DictConfig, key: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(resolved, as written) of the config with another value."""
    config = composed.copy()
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, key, value)
    return resolve(config), OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("stage.optimizer.muon_lr", 1e-4),
        ("stage.optimizer._target_", "torch.optim.AdamW"),
        ("stage.schedule.warmup_steps", 1),
        ("trainer.max_steps", 9),
        ("trainer.accumulate_grad_batches", 2),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.gradient_clip_val", 0.5),
        ("trainer.limit_train_batches", 1),
        ("batches.row_length", 128),
        ("batches.weights.vqa", 0.1),
        ("backbone.hidden_size", 128),
        ("template.caption_dropout", 0.5),
        ("objective.weights.text", 3.0),
        ("world.seed", 4),
        ("callbacks.ema", {"_target_": "lightning_modules.callbacks.moving_average.MovingAverage"}),
    ],
)
def test_what_would_falsify_the_record_is_refused_unless_named(
    composed: DictConfig, before: dict[str, Any], key: str, value: Any
) -> None:
    now, raw = change(composed, key, value)
    found = find_changes(before, now, raw)
    listed = [name for name in found if name == key or name.startswith(f"{key}.")]
    assert listed == list(found), "what follows from a change is not another one"
    assert not any(is_harmless(name, before, now) for name in found)
    with pytest.raises(RecipeError, match=rf"(?s)step 2\).*- {key}.* -> .*resume\.changes=\[{key}"):
        check_changes(found, [], [], "run/last.ckpt (step 2)")
    check_changes(found, [], [key], "run/last.ckpt (step 2)")
    check_changes(found, [], [key.partition(".")[0]], "run/last.ckpt (step 2)")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paths.cache", "/elsewhere"),
        ("group", "other"),
        ("logger.wandb.offline", False),
        ("callbacks.checkpoint.every_n_minutes", 1),
        ("callbacks.gallery", None),
        ("callbacks.mine", {"_target_": "mylab.callbacks.Picture"}),
        ("trainer.log_every_n_steps", 3),
        ("trainer.accelerator", "gpu"),
        ("trainer.val_check_interval", 5),
        ("loaders.num_workers", 2),
    ],
)
def test_what_cannot_change_what_is_learned_passes(composed: DictConfig, before: dict[str, Any], key: str, value: Any) -> None:
    now, raw = change(composed, key, value)
    found = find_changes(before, now, raw)
    assert found
    harmless = [name for name in found if is_harmless(name, before, now)]
    assert harmless == list(found)
    check_changes(found, harmless, [], "run")


def test_a_run_of_the_same_config_has_no_changes(composed: DictConfig, before: dict[str, Any]) -> None:
    assert not find_changes(before, before, OmegaConf.to_container(composed, resolve=False))
