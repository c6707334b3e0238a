"""A run is watched while its files grow; the watching ends with the run, with the time, or with the stop button."""

import json
import os
from pathlib import Path

from PIL import Image

from lightning_modules.callbacks.live_curve import LiveCurve
from lightning_modules.desk.watching import follow
from lightning_modules.tracking import screen
from lightning_modules.tracking.screen import Screen, draw_curves
from lightning_modules.training.data import DataModule
from plait import rendering
from plait.document import Document, ImageSpan, TextSpan
from plait.runs import Metrics
from plait.samples import Sample
from tests.lightning_modules.stubs import Numbers, make_stage, train


def write_job(folder: Path, state: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps({"state": state, "pid": os.getpid()}))


def write_row(folder: Path, step: int) -> None:
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "train/loss": 1 / (step + 1)}) + "\n")


def write_samples(folder: Path, step: int) -> None:
    document = Document((TextSpan(f"drawn at {step}"), ImageSpan("i")))
    sample = Sample(document, {"i": Image.new("RGB", (8, 8), "red")})
    rendering.write_samples([sample] * 5, folder / "samples" / f"step-{step:07d}.html")


def test_every_change_is_shown_until_the_run_ends(tmp_path):
    folder, shown = tmp_path / "run", []
    events = iter(
        [
            lambda: write_job(folder, "running"),
            lambda: write_row(folder, 0),
            lambda: (write_row(folder, 1), write_samples(folder, 2)),
            lambda: write_samples(folder, 10),
            lambda: write_job(folder, "finished"),
            lambda: None,
        ]
    )

    def show(content: str) -> None:
        shown.append(content)
        next(events)()

    assert follow(folder, every_s=0, show=show, num_samples=2) == "finished"
    assert len(shown) == 6, "one drawing per change, and none without"
    assert shown[0] == f"waiting for {folder}"
    assert [page.partition("running, ")[2][:6] for page in shown[1:5]] + [shown[5].partition("finished, ")[2][:6]] == [
        "step 0",
        "step 1",
        "step 2",
        "step 2",
        "step 2",
    ]
    assert "drawn at" not in shown[2]
    assert shown[3].count("drawn at 2") == 2
    assert shown[4].count("drawn at 10") == 2
    assert "drawn at 2<" not in shown[4]


def test_the_stop_button_stops_the_watching_alone(tmp_path):
    write_job(tmp_path, "running")

    def press(content: str) -> None:
        raise KeyboardInterrupt

    assert follow(tmp_path, show=press) == "running"
    assert json.loads((tmp_path / "job.json").read_text())["state"] == "running"
    assert follow(tmp_path, show=lambda content: None, longest_s=-1) == "running"


def test_curves_leave_out_what_is_not_finite_or_not_logged():
    rows = Metrics([{"step": 0, "a": 1.0}, {"step": 1, "a": float("nan")}, {"step": 2, "a": 0.5}])
    content = draw_curves({"one": rows, "other": Metrics([])}, ["a", "b"], note="<now>")
    assert content.count("<img") == 1
    assert "&lt;now&gt;" in content


def test_a_screen_is_redrawn_in_its_place(monkeypatch):
    import IPython.display

    calls = []

    class Handle:
        def update(self, content):
            calls.append(("update", content.data))

    def display(content, display_id):
        calls.append(("display", content.data))
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    place = Screen()
    place.show("one")
    place.show("two")
    assert calls == [("display", "one"), ("update", "two")]


def test_a_live_curve_shows_how_far_training_is(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(screen.Screen, "show", lambda self, content: shown.append(content))
    train(tmp_path, make_stage(), DataModule(Numbers(24)), callbacks=(LiveCurve(tmp_path, every_n_steps=5),))
    assert [page.partition("step ")[2].partition("<")[0] for page in shown] == ["5 of 12", "10 of 12", "12 of 12"]
    assert all("<img" in page for page in shown)
