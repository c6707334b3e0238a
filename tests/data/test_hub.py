"""Rows: documents and pictures survive parquet, and rows that break the schema are refused with words."""

import json

import numpy as np
import pytest
from PIL import Image

from plait.data.hub import COLUMNS, document_to_row, export_documents, open_rows, row_to_document
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, RecipeError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make_png(path):
    Image.new("RGB", (8, 8), "red").save(path)
    return path


@pytest.mark.parametrize("task", ["two_objects", "vqa", "stories", "edits", "text"])
def test_documents_and_pictures_survive_parquet(world, tmp_path, task):
    documents = list(world.source(task, "train", 7))
    paths = export_documents(documents, world.picture, tmp_path / "rows", rows_per_file=3)
    rows = open_rows(tmp_path / "rows", cache_dir=str(tmp_path / "cache"))
    assert [path.name for path in paths] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert list(rows) == documents
    assert [dict(row.meta) for row in rows] == [dict(document.meta) for document in documents]
    for document in documents:
        for image in document.images:
            assert np.array_equal(np.asarray(rows.picture(image.image_id)), np.asarray(world.picture(image.image_id)))


def test_the_files_are_plain_datasets(world, tmp_path):
    export_documents(list(world.source("edits", "val", 2)), world.picture, tmp_path, split="val")
    table = datasets.Dataset.from_parquet(str(next(tmp_path.glob("*.parquet"))), cache_dir=str(tmp_path / "cache"))
    assert tuple(table.column_names) == COLUMNS
    assert table[0]["split"] == "val"
    assert table[0]["license"] == "CC-BY-4.0"
    assert len(json.loads(table[0]["meta"])["states"]) == 2


def test_a_picture_that_occurs_twice_is_stored_once(world):
    name = "scene/red-car@centre"
    row = document_to_row(Document((ImageSpan(name), TextSpan("and again"), ImageSpan(name, loss=True))), world.picture)
    assert len(row["images"]) == 1
    assert [segment["image"] for segment in row["segments"]] == [0, -1, 0]


KINDS = {"type": "string", "text": "string", "image": "int32", "loss": "bool"}
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "images": datasets.List(datasets.Image()),
        "segments": datasets.List({name: datasets.Value(kind) for name, kind in KINDS.items()}),
    }
)
PICTURE = {"type": "image", "text": None, "image": 0, "loss": False}


def test_rows_of_others_need_no_image_ids(tmp_path):
    segments = [PICTURE, {"type": "text", "text": "a red square", "image": -1, "loss": True}]
    row = {"id": "one", "images": [str(make_png(tmp_path / "red.png"))], "segments": segments}
    datasets.Dataset.from_list([row], features=FEATURES).to_parquet(tmp_path / "train.parquet")
    rows = open_rows(tmp_path, cache_dir=str(tmp_path / "cache"))
    assert rows[0] == Document((ImageSpan("one/0"), TextSpan("a red square", loss=True)), id="one")
    assert rows.picture("one/0").getpixel((4, 4)) == (255, 0, 0)


def test_a_path_out_of_the_folder_of_the_rows_is_not_opened(tmp_path):
    """Rows may come from anybody: they name no other file of this machine."""
    (tmp_path / "rows").mkdir()
    row = {"id": "one", "images": [{"bytes": None, "path": str(make_png(tmp_path / "red.png"))}], "segments": [PICTURE]}
    datasets.Dataset.from_list([row], features=FEATURES).to_parquet(tmp_path / "rows" / "train.parquet")
    rows = open_rows(tmp_path / "rows", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DocumentError, match=r"has 0 bytes and the path .*red\.png"):
        rows.picture("one/0")


def test_encoded_documents_are_refused(world):
    document = Document((ImageSpan("scene/red-car@centre", form="codes"),), id="d")
    with pytest.raises(DocumentError, match=r"'d'.*already encoded.*export the raw document"):
        document_to_row(document, world.picture)


def test_an_export_does_not_overwrite(world, tmp_path):
    documents = list(world.source("text", "train", 1))
    export_documents(documents, world.picture, tmp_path)
    with pytest.raises(RecipeError, match="already holds 1 files of the split 'train'"):
        export_documents(documents, world.picture, tmp_path)


def test_broken_rows_are_named():
    with pytest.raises(DocumentError, match=r"Row 'x'.*'segments'"):
        row_to_document({"id": "x", "meta": "{}"})
    with pytest.raises(DocumentError, match="type 'video'"):
        row_to_document({"id": "x", "segments": [{"type": "video"}]})


def test_missing_files_columns_and_pictures_are_named(world, tmp_path):
    with pytest.raises(RecipeError, match="holds no parquet files of the split 'train'"):
        open_rows(tmp_path)
    datasets.Dataset.from_list([{"id": "x", "text": "y"}]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DocumentError, match=r"\['images', 'segments'\] are missing"):
        open_rows(tmp_path, cache_dir=str(tmp_path / "cache"))
    export_documents(list(world.source("two_objects", "train", 1)), world.picture, tmp_path / "rows")
    rows = open_rows(tmp_path / "rows", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DocumentError, match="None of 1 rows has a picture 'nowhere'"):
        rows.picture("nowhere")
