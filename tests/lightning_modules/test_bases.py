"""The bases: each trains, is examined at its end, and comes back through the seam of bases."""

import json

import pytest
import torch

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import open_features
from lightning_modules.running.launch import last_checkpoint, launch, load_bases
from plait.checkpoints import read_checkpoint
from plait.errors import RecipeError


@pytest.fixture(scope="module", params=["vision", "pixels"])
def run(request, tmp_path_factory):
    """(part, folder of a finished tiny run of its base)"""
    folder = tmp_path_factory.mktemp("bases") / request.param
    launch(compose_job("train", [f"experiment=base/{request.param}", "scale=tiny", f"paths.folder={folder}"]))
    return request.param, folder


def test_a_base_is_examined_and_comes_back_through_the_seam(run) -> None:
    part, folder = run
    summary = json.loads((folder / "examination" / "summary.json").read_text())
    expected = {"vision": "glyphs/retrieval", "pixels": "val/reconstruction_pixel_error"}[part]
    assert 0 <= summary[expected] <= 1
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any(f"examination/{expected}" in row for row in rows)

    config = compose_job("train", [f"experiment=base/{part}", "scale=tiny", "paths.folder=x", f"+base.{part}={folder}"])
    assembly = Assembly(config)
    parents = load_bases(config, assembly)
    checkpoint = read_checkpoint(last_checkpoint(folder))
    assert parents == {part: checkpoint.manifest.identity}
    prefix = "vision." if part == "vision" else ""
    for name, value in assembly.build(part).state_dict().items():
        assert torch.equal(value, checkpoint.weights[prefix + name]), name


def test_distributions_are_measured_on_a_vision_base_by_its_run(run) -> None:
    part, folder = run
    if part != "vision":
        with pytest.raises(RecipeError, match=r"has no vision encoder.*Expected a run of experiment=base/vision"):
            open_features(folder)
        return
    space = open_features(folder)
    assert space.name.startswith("vision base ")
    assert space.measure(torch.zeros(2, 3, 64, 64)).shape == (2, 32)
