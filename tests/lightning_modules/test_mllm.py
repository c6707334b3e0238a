"""The model that reads: it trains at scale=tiny, comes back, answers, and is asked what it can be asked."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained, save_pretrained
from lightning_modules.running.launch import launch
from lightning_modules.workbench import open_run
from plait.errors import RecipeError

PICTURE = np.full((64, 64, 3), 200, np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mllm") / "run"
    launch(compose_job("train", ["experiment=base/mllm", "scale=tiny", "logger=none", f"paths.folder={folder}"]))
    return folder


def test_the_encoder_rests_and_the_rest_trains(run: Path) -> None:
    rows = json.loads((run / "ledger.json").read_text())["rows"]
    rests = {row["part"]: row["parameters"] for row in rows if not row["is_trainable"]}
    trains = {row["part"] for row in rows if row["is_trainable"]}
    assert (set(rests), trains) == ({"image_input"}, {"backbone", "head", "image_input"})
    assert rests["image_input"] > sum(r["parameters"] for r in rows if r["is_trainable"] and r["part"] == "image_input")


def test_it_reads_pictures_and_draws_none(run: Path, tmp_path: Path) -> None:
    desk = open_run(run)
    (answer,) = desk.caption(PICTURE, max_tokens=5)
    (again,) = desk.caption(PICTURE, max_tokens=5)
    assert answer.document == again.document
    assert answer.document.images[0].form == "features"
    assert len(desk.ask(PICTURE, "what is on the left ?", max_tokens=5)) == 1
    with pytest.raises(RecipeError, match="draws no pictures"):
        desk.draw("a red car")
    save_pretrained(run, tmp_path / "saved")
    model = from_pretrained(tmp_path / "saved")
    ours, theirs = (dict(one.state_dict()) for one in (model, desk.model))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_is_asked_what_it_reads(run: Path, tmp_path: Path) -> None:
    plan = "+job.plan={val: [captions, vqa, two_objects]}"
    launch(compose_job("evaluate", [f"run={run}", "n=2", "logger=none", plan, f"paths.folder={tmp_path / 'evaluation'}"]))
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert {"val/captions", "val/vqa"} <= {*found["results"]}
    assert found["facts"]["skipped"]["val/two_objects"]["reason"] == "The model draws no pictures."
    assert "slot_lookup" in found["results"]["val/captions"]["baselines"], "a table of patches is a blind answer here too"
