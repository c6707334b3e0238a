"""A run on the desk: opened by folder or W&B path, its model asked in every way that there is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from lightning_modules import workbench
from lightning_modules.desk.comparing import Comparison
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.workbench import Desk, open_run
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import CheckpointError, DocumentError, PlaitError, RecipeError, VocabularyError
from plait.images import crop_centre

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 256, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def desk(small_run: Path) -> Desk:
    return open_run(small_run / "instruction")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    WIDE.save(tmp_path / "wide.png")
    return tmp_path / "wide.png"


def tale(name: str) -> Document:
    """A story in which a picture of this name is to be drawn."""
    return Document((TextSpan("here is a red car ."), ImageSpan(name, form="codes")))


def codes(answers) -> list[np.ndarray]:
    return [span.codes[0] for answer in answers for span in answer.document.images if span.codes is not None]


def test_descriptions_are_drawn_and_only_settings_change_them(desk):
    first, again = (desk.draw(["a red car", "a blue key"], num_samples=2) for _ in range(2))
    assert len(first) == len(first.pictures) == 4
    assert first[0].pictures[0].size == (64, 64)
    assert [answer.document for answer in first] == [answer.document for answer in again]
    assert [answer.seed for answer in first] == [0, 1, 0, 1]
    hot = desk.draw("a red car", temperature=5.0)
    assert not np.array_equal(codes(hot)[0], codes(first)[0])
    assert not np.array_equal(codes(hot)[0], codes(desk.draw("a red car", seed=7, temperature=5.0))[0])
    assert all("<img" in shown._repr_html_() for shown in (first, first[0]))
    numpy = desk.draw("a red car", seed=np.int64(1), num_samples=np.int64(1), top_k=np.int64(0))
    assert numpy[0].document == first[1].document


def test_what_is_asked_meets_the_wording_of_training(desk):
    """Question and edit of the data, asked as documents of the data and by the verbs, are the same prompts."""
    template = desk.model.template
    for task, ask in (("vqa", desk.ask), ("edits", desk.edit)):
        raw = desk.world.source(task, "val")[0]
        image, text, *_ = raw.spans
        answer = ask(image.image_id, text.text)[0].document
        worded = template.wrap(raw, 0).spans
        as_asked = [span.text if isinstance(span, TextSpan) else span.image_id for span in answer.spans[:3]]
        as_trained = [span.text if isinstance(span, TextSpan) else span.image_id for span in worded[:3]]
        assert as_asked == as_trained


def test_pictures_of_ones_own_are_fitted_as_those_of_training(desk, wide):
    answer = desk.edit(wide, "they change places .")[0]
    shown = answer.sample.pictures(answer.document.images[0])
    assert np.array_equal(np.asarray(shown), np.asarray(crop_centre(WIDE, 64)))
    same = [desk.caption(source)[0].document.images[0].codes[0] for source in (wide, WIDE, np.asarray(WIDE))]
    assert all(np.array_equal(same[0], other) for other in same)


def test_stories_go_on_and_what_was_made_is_told_from_what_was_given(desk, wide):
    (answer,) = desk.tell(["here is a red car .", wide, "the car turns blue ."], max_images=1, max_tokens=40)
    assert [type(span) for span in answer.document.spans[:3]] == [TextSpan, ImageSpan, TextSpan]
    assert answer.sample.made[:3] == (False, False, False)
    pieces = (TextSpan("here is a red car ."), ImageSpan("one", form="codes"), TextSpan("they change places ."))
    (answer,) = desk.tell(Document((*pieces, ImageSpan("two", form="codes"))), max_images=0, max_tokens=1)
    assert len(answer.pictures) == 2
    said = [{"type": "image", "image": str(wide)}, {"type": "text", "text": "what is on the left ?"}]
    (answer,) = desk.chat([{"role": "user", "content": said}], max_tokens=3)
    assert answer.document.images[0].codes is not None


def test_documents_of_the_data_are_completed(desk):
    documents = [desk.world.source(task, "val")[0] for task in ("two_objects", "edits", "stories", "vqa")]
    answers = desk.go_on(documents, max_tokens=4)
    assert len(answers[1].pictures) == 1, "the edit"
    assert all(any(answer.sample.made) for answer in answers)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda desk: desk.draw(""), "prompt is ''"),
        (lambda desk: desk.draw([]), "empty list"),
        (lambda desk: desk.draw(3), "prompt is 3"),
        (lambda desk: desk.draw("a red zeppelin"), "'zeppelin'"),
        (lambda desk: desk.draw("a red car", guidence=3.0), "has no setting guidence"),
        (lambda desk: desk.draw("a red car", guidance=float("nan")), "guidance"),
        (lambda desk: desk.draw("a red car", seed=-1), "seed is -1"),
        (lambda desk: desk.draw("a red car", num_samples=0), "num_samples is 0"),
        (lambda desk: desk.ask("nowhere.png", "what is on the left ?"), "no file, and no picture of the run's world"),
        (lambda desk: desk.ask(np.zeros((4, 4, 3)), "what is on the left ?"), "expected uint8"),
        (lambda desk: desk.ask(None, "what is on the left ?"), "given as a NoneType"),
        (lambda desk: desk.tell([]), "no beginning"),
        (lambda desk: desk.tell("here is a red car .", max_images=-1), "max_images is -1"),
        (lambda desk: desk.tell(None), "given as a NoneType"),
        (lambda desk: desk.tell(["here is a red car .", 3]), "given as a int"),
        (lambda desk: desk.tell(["here is a red car .", "mine.png"]), "'mine.png' is no file"),
        (lambda desk: desk.tell(tale(desk.world.image_ids("val")[0])), "to be drawn is called .*, and there is such a picture"),
        (lambda desk: desk.chat("hello"), "dialogue is 'hello', expected a list of messages"),
        (lambda desk: desk.chat([]), r"dialogue is \[\], expected a list"),
        (lambda desk: desk.chat(["hello"]), r"dialogue is \['hello'\], expected a list"),
        (lambda desk: desk.chat([{"role": "user"}]), "content"),
        (lambda desk: desk.go_on([]), "no documents to go on with"),
        (lambda desk: desk.go_on(["a"]), "no documents to go on with"),
        (lambda desk: desk.go_on(None), "no documents to go on with"),
        (lambda desk: desk.train_further(0), "steps is 0, expected a whole number of at least 1"),
        (lambda desk: desk.train_further("ten"), "steps is 'ten'"),
        (lambda desk: desk.compare(None), "given as None, expected its path"),
        (lambda desk: open_run(None), "given as None, expected its path"),
        (lambda desk: open_run(""), "given as '', expected its path"),
        (lambda desk: Comparison(["x"]), r"rows=\['x'\]: expected a list of folders under the name"),
        (lambda desk: Comparison({"one": "x"}), "rows={'one': 'x'}: expected a list of folders"),
        (lambda desk: Comparison.below(None), "given as None, expected its path"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(desk, ask, words):
    with pytest.raises(PlaitError, match=words) as refusal:
        ask(desk)
    assert isinstance(refusal.value, DocumentError | RecipeError | VocabularyError | CheckpointError)
    assert "start_of_turn" not in str(refusal.value), "the words of the user are named, not the wording around them"


def test_an_exported_model_is_asked_as_far_as_it_goes(small_run, desk, tmp_path):
    from lightning_modules.pretrained import save_pretrained

    mine = open_run(save_pretrained(small_run / "instruction", tmp_path / "mine"))
    assert [answer.document for answer in mine.draw("a red car")] == [answer.document for answer in desk.draw("a red car")]
    assert mine.caption(WIDE).text == desk.caption(WIDE).text
    with pytest.raises(RecipeError, match="comes without data"):
        _ = mine.world


def test_evaluations_are_found_beside_the_run_and_compared(project):
    sketch_run = project / "outputs" / "demo"
    desk = open_run(sketch_run / "instruction")
    assert desk.figures["val/captions"]["n"] > 0
    comparison = desk.compare(sketch_run / "instruction")
    assert len(comparison.rows) == 2
    assert "<img" in comparison._repr_html_()
    with pytest.raises(CheckpointError, match="plait-evaluate run="):
        _ = open_run(sketch_run / "pretraining").figures


def test_a_run_without_a_model_is_refused(small_run):
    with pytest.raises(RecipeError, match="holds no model"):
        open_run(small_run / "codes").draw("a red car")
    with pytest.raises(RecipeError, match="cannot be asked"):
        open_run(small_run / "tokenizer").draw("a red car")


@pytest.mark.parametrize("name", ["ddp", "ddp_cpu", "gpu"])
def test_a_run_that_was_trained_elsewhere_trains_further_in_one_process_here(small_run, tmp_path, name, capsys):
    """The stored config names processes and devices that a cell of a notebook does not have."""
    copied = shutil.copytree(small_run / "instruction", tmp_path / "run", ignore=shutil.ignore_patterns("wandb", "samples"))
    config = OmegaConf.load(copied / "config.yaml")
    config.trainer.update(compose_job("train", ["experiment=liquid/instruction", f"trainer={name}"]).trainer)
    config.trainer.max_steps = 1
    OmegaConf.save(config, copied / "config.yaml")
    more = open_run(copied).train_further(1, tmp_path / "more", overrides=["trainer.limit_val_batches=0"])
    assert more.is_complete
    assert len(more.metrics.series("train/loss")[0]) == 1
    said = capsys.readouterr()
    assert "in this one process" in said.out
    assert "in this one process" not in said.err


def test_runs_open_by_folder_and_by_path_of_w_and_b(small_run, tmp_path, monkeypatch):
    assert open_run(small_run / "instruction").is_complete
    asked = []
    monkeypatch.setattr(workbench, "fetch_run", lambda path, place: asked.append((path, place)) or small_run / "pretraining")
    assert open_run("lab/plait/abc123", fetched=tmp_path).folder == small_run / "pretraining"
    assert open_run("lab/plait/weights-0123:latest").is_complete
    assert [path for path, _ in asked] == ["lab/plait/abc123", "lab/plait/weights-0123:latest"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    for wrong in ("nowhere", "lab/plait", "outputs/demo/instruction", tmp_path / "a" / "b" / "c"):
        with pytest.raises(CheckpointError, match="is no folder here and no path of W&B"):
            open_run(wrong)
