"""Data of one's own, from a folder of pictures and rows to a drawn picture: each of the four kinds goes the whole way at scale=tiny."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from lightning_modules.composing.instantiate import Assembly, iterate_targets, locate
from lightning_modules.composing.wiring import encode_world, open_pictures, train_text_tokenizer
from lightning_modules.jobs.examination import require_judge
from lightning_modules.loops.curriculum import check_stages, compose_job
from lightning_modules.pretrained import from_pretrained, save_pretrained
from lightning_modules.running.launch import launch, load_bases, resolve
from plait.backbones.subwords import SubwordTokenizer
from plait.document import TextSpan
from plait.errors import CheckpointError, DocumentError, RecipeError
from plait.runs import Run
from tests.own_data import KINDS, draw_pictures, make_folder, make_rows, write_lines

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def compose_own(command: str, folder: Path, *overrides: str) -> Any:
    """A command on data of one's own, its cache beside the data."""
    own = [f"paths.cache={folder.parent / 'cache'}"]
    if command in ("train", "encode"):
        own += ["data=hub", f"data.path={folder}", "scale=tiny", "~logger.wandb"]
    return compose_job(command, [*own, *overrides])


def assemble(folder: Path, *overrides: str) -> Assembly:
    """The parts of stage=pretraining, untrained."""
    torch.manual_seed(0)
    config = compose_own("train", folder, "experiment=liquid/pretraining", "paths.folder=none", *overrides)
    assembly = Assembly(config)
    assembly.objects["facts.folders"] = {}
    return assembly


def assemble_batches(folder: Path, *overrides: str) -> tuple[Assembly, Any]:
    """The parts, and the training batches at once: weights are drawn when they are first asked for."""
    assembly = assemble(folder, *overrides)
    return assembly, assembly.build("batches")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of stage=pretraining in `runs`, and beside it the folder `own` that it was trained on; read it, never write into it."""
    place = tmp_path_factory.mktemp("trained")
    folder = make_folder(place / "own", "caption", 12)
    launch(
        compose_own("train", folder, "experiment=liquid/pretraining", f"paths.folder={place / 'runs'}", "~callbacks.gallery")
    )
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_each_kind_trains_end_to_end(kind: str, tmp_path: Path) -> None:
    folder, runs = make_folder(tmp_path / "own", kind), tmp_path / "runs"
    launch(compose_own("train", folder, "experiment=liquid/tokenizer", f"paths.folder={runs / 'tokenizer'}"))
    base = f"base.vision_tokenizer={runs / 'tokenizer'}"
    encoded = launch(compose_own("encode", folder, base, f"paths.folder={runs / 'codes'}"))
    assert encoded == {"pictures": 50, "encoded": 50}
    codes = f"codes.folder={runs / 'codes' / 'codes'}"
    found = launch(
        compose_own("train", folder, "experiment=liquid/pretraining", base, codes, f"paths.folder={runs / 'pretraining'}")
    )
    assert {"val/loss", "val/text_loss_nats"} <= found.keys()
    assert "after 2 steps: 0 frozen" in Run(runs / "pretraining").ledger.table()
    samples = json.loads((runs / "pretraining" / "samples" / "step-0000002.json").read_text())
    assert 0 < len(samples) <= 6
    assert all({"given", "made by the model"} <= {span["by"] for span in sample["spans"]} for sample in samples)
    drawn = [f"run={runs / 'pretraining'}", "prompt='zebras: never seen'", "num_samples=1", f"paths.folder={runs / 'drawn'}"]
    files = launch(compose_own("generate", folder, *drawn))
    assert str(runs / "drawn" / "sample-0-picture-0.png") in files


EXPECTED = {
    "caption": None,
    "vqa": "violet<end_of_turn>\n",
    "chat": "I see a violet kite.<end_of_turn>\n",
    "interleaved": "Then a violet kite.",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_of_each_kind(kind: str, tmp_path: Path) -> None:
    """Token by token: captions in either direction, answers and what the assistant says, and everything of interleaved documents."""
    pictures = [(path, "violet", "kite") for path, _, _ in draw_pictures(tmp_path / "own", 8)]
    assembly = assemble(write_lines(tmp_path / "own", make_rows(kind, pictures)))
    batches, builder = assembly.build("batches"), assembly.build("model").builder
    documents = builder.read(batches[0])
    learned = [span.text for document in documents for span in document.spans if isinstance(span, TextSpan) and span.loss]
    drawn = [span for document in documents for span in document.images if span.loss]
    if kind == "caption":
        assert set(learned) == {"A violet kite, drawn on paper."}
        assert drawn
        assert not any(span.begin_loss for span in drawn), "the prompt of a pair ends with the begin marker"
    else:
        assert any(EXPECTED[kind] in text for text in learned)
        assert not any("What" in text or "Which" in text or "<start_of_turn>user" in text for text in learned)
        assert bool(drawn) == (kind != "vqa")
        assert all(span.begin_loss for span in drawn)
    if kind == "interleaved":
        assert all(span.loss for document in documents for span in document.spans)


def test_batches_are_computed_and_not_remembered(tmp_path: Path) -> None:
    """The same rows give the same batch k, asked in any order, imported once more elsewhere, and never a held-out picture."""
    folder = make_folder(tmp_path / "own", "interleaved", 20)
    one, first = assemble_batches(folder)
    _, second = assemble_batches(folder, f"paths.cache={tmp_path / 'elsewhere'}")
    last = second[1].ids
    assert torch.equal(first[0].ids, second[0].ids)
    assert torch.equal(first[1].ids, last)
    held_out = set(one.build("world").image_ids("val"))
    shown = {image.span.image_id for number in range(2) for image in first[number].images}
    assert shown
    assert not shown & held_out


def test_an_import_is_kept_until_something_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = make_rows("caption", draw_pictures(tmp_path / "own", 9))
    folder = write_lines(tmp_path / "own", [*rows[:8], {"id": "none", "image": "none.png", "caption": "nothing"}])
    skip = "data.on_bad_row=skip"
    with pytest.raises(DocumentError, match=r"row rows\.jsonl:9: picture 'none\.png' is not there"):
        assemble(folder).build("world")
    caplog.set_level("INFO")
    fingerprint = assemble(folder, skip).build("world").fingerprint()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert assemble(folder, skip).build("world").fingerprint() == fingerprint
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")} == written
    assert caplog.text.count("1 of 9 rows left out: 1 missing picture") == 2, "said at every start, not at the import alone"
    write_lines(folder, rows)
    assert assemble(folder).build("world").fingerprint() != fingerprint


@pytest.mark.parametrize(
    ("caption", "finding", "reason"),
    [
        (
            "kites " * 300,
            r"takes up to \d+ tokens, of which 16 for each of 1 pictures.* at most 256\. Set data\.row_length=",
            "too long",
        ),
        (
            "ends <end_of_turn>",
            "Its text holds '<end_of_turn>', which only the wording of the model may write",
            "marker in a text",
        ),
        ("see <boi>", "Its text holds '<boi>'", "marker in a text"),
        ("see <pad>", "holds '<pad>', which is a marker of the text tokenizer", "marker in a text"),
    ],
)
def test_documents_that_the_model_cannot_read(
    caption: str, finding: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows("caption", draw_pictures(tmp_path / "own", 8))
    rows[1]["caption"] = caption
    folder = write_lines(tmp_path / "own", rows)
    with pytest.raises(DocumentError, match=f"'row-1': .*{finding}.*on_bad_row=skip"):
        assemble(folder).build("documents")
    documents = assemble(folder, "data.on_bad_row=skip").build("documents")["documents"]
    assert "row-1" not in [document.id for document in documents]
    assert f"left out: 1 {reason}" in caplog.text


def test_subwords_belong_to_the_weights_and_not_to_the_data(trained: Path, tmp_path: Path) -> None:
    """Whoever starts from a run has the words of that run, whatever has become of the data since."""
    run, own = trained / "runs", SubwordTokenizer.load(trained / "runs" / "text_tokenizer")
    other = write_lines(tmp_path / "own", make_rows("vqa", draw_pictures(tmp_path / "own", 8)))
    config = compose_own("train", other, "experiment=liquid/instruction", "base.vision_tokenizer=random", f"base.model={run}")
    assembly = Assembly(config)
    load_bases(config, assembly)
    assert assembly.build("text_tokenizer").is_same(own)
    fresh = assemble(other).build("text_tokenizer")
    assert not fresh.is_same(own)
    again = compose_own(
        "train", other, "experiment=liquid/pretraining", f"paths.folder={tmp_path / 'run'}", "base.model=random"
    )
    own.save(tmp_path / "run" / "text_tokenizer")
    changed = Assembly(again)
    load_bases(again, changed)
    with pytest.raises(RecipeError, match=r"other subwords than the texts.*the data has changed.*take a new paths\.folder"):
        changed.build("text_tokenizer")


def test_a_base_without_its_words_is_refused(tmp_path: Path) -> None:
    assembly = assemble(make_folder(tmp_path / "own", "caption", 4))
    world, template = assembly.build("world"), assembly.build("template")
    with pytest.raises(RecipeError, match=r"has no folder text_tokenizer, expected a run.*data=hub.*leave base\.model out"):
        train_text_tokenizer(world=world, template=template, folders={"run": None, "model": str(tmp_path / "own")})


def test_codes_of_other_data_are_refused(trained: Path, tmp_path: Path) -> None:
    codes, known = tmp_path / "codes", assemble(trained / "own")
    vision_tokenizer, world = known.build("vision_tokenizer"), known.build("world")
    encode_world(vision_tokenizer=vision_tokenizer, world=world, folder=str(codes), splits=world.splits)
    other = make_folder(tmp_path / "own", "caption", 5)
    assert (
        len(open_pictures(folder=str(codes), vision_tokenizer=vision_tokenizer, world=world).codes(world.image_ids("val")[0]))
        == 1
    )
    changed = assemble(other).build("world")
    with pytest.raises(CheckpointError, match=r"data_fingerprint is .*Encode the pictures again"):
        open_pictures(folder=str(codes), vision_tokenizer=vision_tokenizer, world=changed)


def test_a_model_stands_by_itself_once_exported(trained: Path, tmp_path: Path) -> None:
    save_pretrained(trained / "runs", tmp_path / "mine")
    model = from_pretrained(tmp_path / "mine")
    text = "A zebra, never seen."
    assert model.builder.layout.text.decode(model.builder.layout.text.encode(text)) == text


def test_an_examination_asks_the_held_out_documents(trained: Path, tmp_path: Path) -> None:
    """Loss as training counts it, a choice among captions, pages to look at; and against itself everything is kept."""

    def examine(folder: str, *overrides: str) -> dict[str, Any]:
        own = [f"run={trained / 'runs'}", f"paths.folder={tmp_path / folder}", "n=8", "logger=none", *overrides]
        return launch(compose_own("evaluate", trained / "own", *own))

    found = examine("first")
    evaluated = json.loads((tmp_path / "first" / "evaluation.json").read_text())
    assert {"val/loss_text", "val/bits_per_byte", "val/loss_image"} <= evaluated["results"].keys()
    assert set(evaluated["results"]["val/loss_image"]["baselines"]) == {"frequency"}
    # untrained weights know nothing of codes: about the logarithm of their number
    assert 0.5 < found["val/loss_image"] / np.log(6 * 6 * 5) < 1.5
    assert (tmp_path / "first" / "samples" / "val-samples.html").is_file()
    assert (tmp_path / "first" / "sheets" / "val-samples.png").is_file()
    kept = examine("again", f"kept_of={tmp_path / 'first'}")
    assert kept["val/loss_image_kept"] == kept["val/bits_per_byte_kept"] == 1.0


def test_pictures_that_nobody_judges_have_no_bench(trained: Path) -> None:
    with pytest.raises(RecipeError, match=r"is a Collection, of whose pictures nobody knows .*plait-evaluate says what its"):
        require_judge(assemble(trained / "own").build("world"))


@pytest.mark.parametrize("stage", ["tokenizer", "pretraining", "instruction"])
@pytest.mark.parametrize("scale", sorted(path.stem for path in (CONF / "scale").glob("*.yaml")))
def test_every_stage_composes_with_it_at_every_scale(stage: str, scale: str) -> None:
    config = compose_job(
        "train", [f"experiment=liquid/{stage}", f"scale={scale}", "data=hub", "data.path=mine", "paths.folder=here"]
    )
    resolved = resolve(config)
    for path, target in iterate_targets(resolved):
        locate(target, path)
    assert set(resolved["batches"]["weights"]) == {"pictures" if stage == "tokenizer" else "documents"}
    if scale != "paper":
        OmegaConf.resolve(config)


def test_the_curriculum_is_a_plan_that_holds() -> None:
    check_stages(OmegaConf.to_container(compose_job("train", ["curriculum=own", "data=hub", "data.path=mine"]).job.stages))
