"""Rows of other people become a collection: the four kinds, the same from lines, parquet and streams; counted skips; the cache."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from plait.data.collection import TASK
from plait.data.importing import import_rows
from plait.data.kinds import choose_columns
from plait.data.tables import open_table
from plait.document import ImageSpan, TextSpan
from plait.errors import CheckpointError, DocumentError, RecipeError
from plait.images import crop_centre, open_image, pad_square
from tests.own_data import KINDS, draw_pictures, make_folder, make_rows, write_lines

NAMES = {role: [role] for role in ("id", "image", "caption", "question", "answer", "turns", "messages", "images", "texts")}


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def read(path, target, names=NAMES, **settings):
    """What `open_collection` does, without its cache."""
    table = open_table(str(path), "train")
    kind, columns = choose_columns(table.columns, None, names)
    return import_rows({"train": table}, target, **{"kind": kind, "columns": columns, "image_size": 32, **settings})


def everything(collection):
    return [document for split in collection.splits for document in collection.source(TASK, split)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_told_from_its_columns_and_read_in_order(kind, tmp_path):
    folder = make_folder(tmp_path / "own", kind, 12)
    collection = read(folder, tmp_path / "made")
    documents = {document.id: document for document in everything(collection)}
    assert collection.kind == kind
    assert len(documents) == 12
    shape = "".join("i" if isinstance(span, ImageSpan) else "t" for span in documents["row-3"].spans)
    losses = [span.loss for span in documents["row-3"].spans]
    expected = {
        "caption": ("ti", [False] * 2),
        "vqa": ("itttt", [False, False, True, False, True]),
        "chat": ("ttii", [False, True, True, True]),
        "interleaved": ("titi", [True] * 4),
    }
    assert (shape, losses) == expected[kind]
    assert all(span.begin_loss == span.loss for span in documents["row-3"].images)
    path = make_rows(kind, [(f"images/{n:03d}.{['png', 'jpg', 'webp', 'gif'][n % 4]}", "teal", "disc") for n in range(12)])[3]
    last = (path.get("images") or [path.get("image")])[-1]
    picture = documents["row-3"].images[-1 if kind != "chat" else 1].image_id
    if kind == "chat":  # the second picture of the row is the one before
        last = path["images"][1]
    assert np.array_equal(np.asarray(collection.picture(picture)), np.asarray(crop_centre(open_image(folder / last), 32)))


def test_lines_parquet_and_a_stream_of_the_hub_give_the_same(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "own", "chat", 9)
    lines = read(folder, tmp_path / "from-lines")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:  # parquet has one type per column
        row["images"] = [{"bytes": (folder / path).read_bytes(), "path": path} for path in row["images"]]
        for message in row["messages"]:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
    table = datasets.Dataset.from_list(rows).cast_column("images", datasets.List(datasets.Image()))  # decoded where one asks it
    (tmp_path / "shards").mkdir()
    for number in range(2):
        table.shard(2, number, contiguous=True).to_parquet(tmp_path / "shards" / f"train-0000{number}-of-00002.parquet")
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: table.to_iterable_dataset() if k["streaming"] else table)
    others = {"streamed": open_table("who/what", "train", streaming=True), "whole": open_table("who/what", "train")}
    monkeypatch.undo()
    others["parquet"] = open_table(str(tmp_path / "shards"), "train")
    kind, columns = choose_columns(others["parquet"].columns, None, NAMES)
    for name, other in others.items():
        made = import_rows({"train": other}, tmp_path / name, kind=kind, columns=columns, image_size=32)
        assert made.fingerprint() == lines.fingerprint(), name
        assert everything(made) == everything(lines)


def test_held_out_documents_show_no_picture_of_training(tmp_path):
    collection = read(make_folder(tmp_path / "own", "interleaved", 40), tmp_path / "made", held_out=0.3)
    train, val = (set(collection.image_ids(split)) for split in collection.splits)
    assert train
    assert val
    assert not train & val
    assert len(collection.source(TASK, "train")) + len(collection.source(TASK, "val")) == 40
    assert collection.manifest["shared_pictures"] == 0
    assert collection.pixels(sorted(val)).shape == (len(val), 32, 32, 3)


def test_a_split_of_the_data_itself_and_its_leak_is_counted(tmp_path):
    pictures = draw_pictures(tmp_path / "own", 6)
    rows = make_rows("caption", pictures)
    write_lines(tmp_path / "own", rows[:5], "train.jsonl")
    write_lines(tmp_path / "own", [{**rows[5]}, {**rows[0], "id": "again"}], "test.jsonl")
    tables = {
        split: open_table(str(tmp_path / "own"), name, is_named=True)
        for split, name in {"train": "train", "val": "test"}.items()
    }
    kind, columns = choose_columns(tables["train"].columns, None, NAMES)
    made = import_rows(tables, tmp_path / "made", kind=kind, columns=columns, image_size=32)
    assert [document.id for document in made.source(TASK, "val")] == ["row-5", "again"]
    assert made.manifest["shared_pictures"] == 1


def test_several_captions_are_several_documents(tmp_path):
    ((path, *_), *_) = draw_pictures(tmp_path / "own", 2)
    write_lines(tmp_path / "own", [{"image": path, "caption": ["one", "two"]}, {"image": "images/001.jpg", "caption": "three"}])
    documents = everything(read(tmp_path / "own", tmp_path / "made"))
    found = {document.id: document.spans[0] for document in documents}
    assert found == {"rows.jsonl:1/0": TextSpan("one"), "rows.jsonl:1/1": TextSpan("two"), "rows.jsonl:2": TextSpan("three")}


def test_skipped_rows_are_counted_by_reason(tmp_path):
    folder = tmp_path / "own"
    rows = make_rows("caption", draw_pictures(folder, 6))
    (folder / "images" / "001.jpg").write_bytes(b"no picture")
    rows[2]["caption"], rows[3]["image"], rows[4]["caption"] = " ", "images/none.png", 5
    write_lines(folder, [*rows, "{", rows[0]])
    with pytest.raises(DocumentError, match=r"row rows\.jsonl:2: Image images/001\.jpg: not readable.*data\.on_bad_row=skip"):
        read(folder, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    seen = []
    made = read(folder, tmp_path / "made", skips=True, report=lambda *counts: seen.append(counts))
    reasons = ("unreadable picture", "empty text", "missing picture", "no text", "no JSON", "id twice")
    assert made.manifest["rows"] == {"read": 8, "left_out": dict.fromkeys(reasons, 1)}
    assert seen[-1] == (8, 6)
    assert sorted(document.id for document in everything(made)) == ["row-0", "row-5"]


def test_pictures_are_cropped_or_padded_by_name(tmp_path):
    for number, size in enumerate([(100, 20), (20, 60)]):
        picture = Image.effect_noise(size, 90).convert("RGB")
        (tmp_path / "own").mkdir(exist_ok=True)
        picture.save(tmp_path / "own" / f"{number}.png")
    write_lines(tmp_path / "own", [{"image": f"{number}.png", "caption": "noise"} for number in range(2)])
    for fit, rule in {"crop": crop_centre, "pad": pad_square}.items():
        made = read(tmp_path / "own", tmp_path / fit, fit=fit)
        for document in everything(made):
            source = open_image(tmp_path / "own" / f"{int(document.id[-1]) - 1}.png")
            assert np.array_equal(np.asarray(made.picture(document.images[0].image_id)), np.asarray(rule(source, 32)))


def test_a_limit_reads_the_first_rows(tmp_path):
    made = read(make_folder(tmp_path / "own", "caption", 9), tmp_path / "made", limit=4)
    assert sorted(document.id for document in everything(made)) == [f"row-{number}" for number in range(4)]


def test_a_collection_refuses_what_it_does_not_have(tmp_path):
    made = read(make_folder(tmp_path / "own", "caption", 3), tmp_path / "made")
    with pytest.raises(RecipeError, match="no task 'stories', expected 'documents'"):
        made.source("stories", "train")
    with pytest.raises(RecipeError, match="no split 'test_pair': expected one of train, val"):
        made.image_ids("test_pair")
    with pytest.raises(RecipeError, match="no subset 'glyphs'"):
        made.image_ids("train", "glyphs")
    (tmp_path / "made" / "collection.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"collection\.json cannot be read.*import again"):
        type(made)(tmp_path / "made")
