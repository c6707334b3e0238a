"""The first batch of every paper stage on 8 ranks: rows for each of them, their shape, and the share of each task. No weight is made."""

import numpy as np
import pytest
import torch

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from plait.data.filling import Pictures

RANKS = 8
STAGES = {
    # tokens of a row, positions of a picture, share of documents that are drawn
    "synergen_vl/align_1": (4096, 256, 1 / 2),
    "synergen_vl/align_2": (8192, 256, 1 / 2),
    "synergen_vl/instruction": (16_384, 256, 1 / 2),
    "liquid/pretraining": (2048, 1024, 1 / 2 * 0.8),
    "liquid/instruction": (2048, 1024, 1 / 3.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", STAGES)
def test_the_first_batch_of_every_paper_stage_fills_8_ranks(experiment: str, monkeypatch) -> None:
    row_length, positions, share = STAGES[experiment]
    monkeypatch.setenv("WORLD_SIZE", str(RANKS))
    config = compose_job("train", [f"experiment={experiment}", "scale=paper", "backbone=tiny", "paths.folder=here"])
    with torch.device("meta"):
        assembly = Assembly(config)
        codes = (np.zeros(assembly.build("vision_tokenizer").grid_shapes[0], dtype=np.int64),)
        assembly.objects["codes"] = Pictures(lambda image_id: codes)
        data, validation = assembly.build("batches"), assembly.build("validation_batches")
    for data.rank in range(RANKS):
        batch = data[0]
        assert len(batch.ids) >= 1
        assert batch.ids.shape[1] == row_length
        assert {image.length for image in batch.images} == {positions}
        assert all(batch.counts.values())
    drawn = [any(image.loss for image in data.document(counter).images) for counter in range(500)]
    assert sum(drawn) / len(drawn) == pytest.approx(share, abs=0.06)  # three standard errors
    assert validation[0].ids.shape[1] == row_length
