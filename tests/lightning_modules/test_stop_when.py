"""A stage that ends when a probe has been passed."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.callbacks.stop_when import PASSED, StopWhen
from lightning_modules.training.data import DataModule
from lightning_modules.training.schedules import trapezoid
from plait.checkpoints import read_manifest
from plait.errors import RecipeError
from plait.runs import Run
from tests.lightning_modules.stubs import Numbers, make_stage, train

FIGURE = "val/captions"


def stop_when(folder: Path, values: list[float], **changes: Any) -> StopWhen:
    """Looks at steps 4, 6, 8, ... and finds the values in turn."""
    found = iter(values)
    settings = {"figure": FIGURE, "level": 0.9, "min_steps": 4, "every_n_steps": 2, **changes}
    return StopWhen(folder, lambda model, place: {FIGURE: next(found)}, **settings)


@pytest.mark.parametrize(
    ("values", "changes", "passed"),
    [
        ([0.95], {}, 4),
        ([0.2, 0.89, 0.9], {}, 8),
        ([0.95, 0.5, 0.95, 0.92], {"patience": 2}, 10),
        ([0.5] * 5, {}, None),
        ([0.5, 0.5, 0.95], {"every_n_steps": 5}, 12),
    ],
    ids=["at once", "late", "twice in a row", "never", "at the cap, which is off the grid"],
)
def test_the_stage_is_over_when_the_probe_has_been_passed(tmp_path, caplog, values, changes, passed):
    callback = stop_when(tmp_path, values, **changes)
    with caplog.at_level(logging.INFO):
        train(tmp_path, make_stage(12, schedule=None), DataModule(Numbers(12)), callbacks=(callback,), max_steps=12)
    steps = passed or 12
    manifest = read_manifest(tmp_path / "checkpoints" / "last.ckpt")
    assert (manifest.step, manifest.is_complete) == (steps, True)
    metrics = Run(tmp_path).metrics
    assert list(metrics.series(f"probe/{FIGURE}")[1]) == values
    if passed:
        assert list(metrics.series(PASSED)[1]) == [passed]
        assert "learned, the stage is over" in caplog.text
    else:
        assert PASSED not in metrics.keys
        assert "did not reach 0.90 within 12 steps" in caplog.text


def test_a_resumed_stage_goes_on_looking_and_one_that_is_over_stays_over(tmp_path):
    first = stop_when(tmp_path, [0.95], patience=2)
    train(tmp_path, make_stage(12, schedule=None), DataModule(Numbers(12)), callbacks=(first,), max_steps=5)
    second = stop_when(tmp_path, [0.95], patience=2)
    train(tmp_path, make_stage(12, schedule=None), DataModule(Numbers(12)), callbacks=(second,), max_steps=12, ckpt_path="last")
    assert read_manifest(tmp_path / "checkpoints" / "last.ckpt").step == 6
    third = stop_when(tmp_path, [], patience=2)
    train(tmp_path, make_stage(12, schedule=None), DataModule(Numbers(12)), callbacks=(third,), max_steps=12, ckpt_path="last")
    manifest = read_manifest(tmp_path / "checkpoints" / "last.ckpt")
    assert (manifest.step, manifest.is_complete) == (6, True)


def test_a_probe_that_is_never_due_is_told(tmp_path, caplog):
    callback = stop_when(tmp_path, [], min_steps=20)
    train(tmp_path, make_stage(12, schedule=None), DataModule(Numbers(12)), callbacks=(callback,), max_steps=12)
    assert "val/captions is not looked at: the stage has 12 steps, and stop_when looks from step 20 on" in caplog.text
    assert "did not reach" not in caplog.text


def test_a_rate_that_descends_meanwhile_is_refused(tmp_path):
    stage = make_stage(12, schedule=partial(trapezoid, decay_share=0.5))
    with pytest.raises(RecipeError, match=r"changing the rate .*decay_share=0, or stop_when=never"):
        train(tmp_path, stage, DataModule(Numbers(12)), callbacks=(stop_when(tmp_path, [1.0]),), max_steps=12)


@pytest.mark.parametrize("changes", [{"min_steps": 0}, {"every_n_steps": 0}, {"patience": 0}])
def test_numbers_out_of_range_are_refused(tmp_path, changes):
    with pytest.raises(RecipeError, match=rf"stop_when\.{next(iter(changes))} is 0"):
        stop_when(tmp_path, [], **changes)


def test_a_figure_that_the_probe_does_not_measure_is_refused(tmp_path):
    callback = stop_when(tmp_path, [1.0], figure="val/nothing")
    with pytest.raises(RecipeError, match=r"stop_when\.figure is val/nothing"):
        train(tmp_path, make_stage(12, schedule=None), DataModule(Numbers(12)), callbacks=(callback,), max_steps=12)
