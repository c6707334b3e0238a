"""A run folder read back without the Trainer."""

import json
import math
from pathlib import Path

import pytest

from plait.checkpoints import save_checkpoint
from plait.document import Document, TextSpan
from plait.errors import CheckpointError
from plait.ledger import Ledger, LedgerRow
from plait.runs import Run


def write_rows(folder: Path, rows: list[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "passport.json").write_text(json.dumps({"state": "finished", "config": {"seed": 1}}))
    write_rows(tmp_path, [{"step": 0, "a": 1.0}, {"step": 1, "a": 0.5, "b": "nan", "epoch": 0}])
    Ledger((LedgerRow("x", 3, 1, True),), {}).write(tmp_path / "ledger.json")
    save_checkpoint(tmp_path / "checkpoints/last.ckpt", {}, model="m")
    (tmp_path / "samples").mkdir()
    record = {"document": Document((TextSpan("hi"),), id="d").to_json(), "scores": {"s": 1}, "seed": 2, "title": ""}
    (tmp_path / "samples/step-1.json").write_text(json.dumps([record]))
    return tmp_path


def test_everything_is_read(folder: Path) -> None:
    run = Run(folder)
    assert run.is_complete
    assert run.config == {"seed": 1}
    assert run.ledger.trainable_parameters == 3
    assert run.checkpoint.name == "last.ckpt"
    (sample,) = run.samples
    assert (sample.document.text, sample.scores, sample.seed, sample.page.name) == ("hi", {"s": 1}, 2, "step-1.html")
    assert run.metrics.keys == ["a", "b"]
    assert run.metrics.series("a") == ([0, 1], [1.0, 0.5])
    assert run.metrics.last("a") == 0.5
    assert math.isnan(run.metrics.last("b"))
    assert len(run.metrics[:1]) == 1
    assert "complete" in repr(run)


def test_rows_that_were_done_again(tmp_path: Path) -> None:
    """Twice resumed, the second time further back than the first."""
    rows = [{"step": step, "a": 0} for step in range(6)]
    rows += [{"resumed_from_step": 4}, *({"step": step, "a": 1} for step in (4, 5))]
    rows += [{"resumed_from_step": 2}, *({"step": step, "a": 2} for step in (2, 3))]
    write_rows(tmp_path, rows)
    assert Run(tmp_path).metrics.series("a") == ([0, 1, 2, 3], [0, 0, 2, 2])


def test_the_job_has_the_last_word(folder: Path) -> None:
    (folder / "job.json").write_text(json.dumps({"state": "failed"}))
    assert not Run(folder).is_complete


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        Run(tmp_path)
    write_rows(tmp_path, [{"step": 0, "a": 1}])
    run = Run(tmp_path)
    assert not run.is_complete
    with pytest.raises(CheckpointError, match=r"nothing under 'b'\. It logged a"):
        run.metrics.series("b")
    with pytest.raises(CheckpointError, match=r"passport.json does not exist"):
        run.config  # noqa: B018
    with pytest.raises(CheckpointError, match=r"ledger.json does not exist"):
        run.ledger  # noqa: B018
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        run.checkpoint  # noqa: B018
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"st')
    with pytest.raises(CheckpointError, match="line 2 is damaged"):
        Run(tmp_path).metrics  # noqa: B018
