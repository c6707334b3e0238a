"""A run on the desk: opened by folder or W&B path, its model asked again."""

from pathlib import Path

import numpy as np
import pytest

from lightning_modules import workbench
from lightning_modules.workbench import Workbench, open_run
from plait.document import ImageSpan
from plait.errors import CheckpointError, RecipeError


@pytest.fixture(scope="module")
def desk(small_run: Path) -> Workbench:
    return Workbench(small_run / "instruction")


def codes(samples) -> list[np.ndarray]:
    return [span.codes[0] for sample in samples for span in sample.document.images if span.codes is not None]


def prompts(desk: Workbench) -> list:
    return ["a red car", *(desk.world.source(task, "val")[0] for task in ("two_objects", "edits", "stories"))]


def test_four_documents_are_completed_and_only_settings_change_them(desk):
    first, again = (desk.redraw(prompts(desk), max_tokens=8) for _ in range(2))
    assert len(first) == 4
    assert [sample.document for sample in first] == [sample.document for sample in again]
    for sample in first:
        assert len(sample.document.spans) > sample.given, "the model has added something"
        assert all(sample.pictures(span) is not None for span in sample.document.images if span.codes is not None)
    drawn = first[0].document.spans[first[0].given]
    assert isinstance(drawn, ImageSpan)
    hot = desk.redraw(["a red car"], image={"temperature": 5.0})
    assert not np.array_equal(codes(hot)[0], codes(first)[0])
    other = desk.redraw(["a red car"], seeds=[7], image={"temperature": 5.0})
    assert not np.array_equal(codes(hot)[0], codes(other)[0])


def test_an_unknown_setting_names_those_that_there_are(desk):
    with pytest.raises(RecipeError, match="has no setting guidence"):
        desk.redraw(["a red car"], image={"guidence": 3.0})


def test_a_run_without_a_model_is_refused(small_run):
    with pytest.raises(RecipeError, match="holds no model"):
        Workbench(small_run / "codes")


def test_runs_open_by_folder_and_by_path_of_w_and_b(small_run, tmp_path, monkeypatch):
    assert open_run(small_run / "instruction").is_complete
    asked = []
    monkeypatch.setattr(workbench, "fetch_run", lambda path, place: asked.append((path, place)) or small_run / "pretraining")
    assert open_run("lab/plait/abc123", fetched=tmp_path).folder == small_run / "pretraining"
    assert open_run("lab/plait/weights-0123:latest").is_complete
    assert [path for path, _ in asked] == ["lab/plait/abc123", "lab/plait/weights-0123:latest"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    for wrong in ("nowhere", "lab/plait", "outputs/demo/instruction", tmp_path / "a" / "b" / "c"):
        with pytest.raises(CheckpointError, match="is no folder here and no path of W&B"):
            open_run(wrong)
