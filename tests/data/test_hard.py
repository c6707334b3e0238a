"""The hard data on made-up folders: what is read, what is left out, that nobody trains on it; the real packages where they are."""

import pytest
from PIL import Image

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch
from plait.data.hub import document_to_row, row_to_document
from plait.errors import DocumentError, RecipeError
from plait.worlds.hard import HardData
from plait.worlds.hard.debian import PACKAGES
from plait.worlds.hard.stamps import list_stamps

FIGURE = """<div class="figure"><a id="x"></a><p class="title"><strong>Figure 17.{number}. Example of \u201cBlur\u201d</strong></p>
<div class="figure-contents">{pictures}</div></div><br class="figure-break" />"""
PICTURE = '<div class="mediaobject"><img src="images/{name}.png" alt="" /><div class="caption"><p>{caption}</p></div></div>'


def figure(number, *pictures):
    shown = "".join(PICTURE.format(name=name, caption=caption) for name, caption in pictures)
    return FIGURE.format(number=number, pictures=shown)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hard")
    for name, caption in {
        "food/apple": "A red  apple.\nde.utf8=Ein Apfel.\n",
        "animals/cartoon/bee": "A bee.\n",
        "symbols/a": "The letter A.\n",
        "town/drawn": "Only a drawing.\n",
        "town/silent": "\n",
    }.items():
        path = root / "stamps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        if name != "town/drawn":
            Image.new("RGBA", (120, 60), (200, 0, 0, 255)).save(path.with_suffix(".png"))
    images = root / "help" / "images"
    images.mkdir(parents=True)
    for name, side in {"taj": 128, "blurred": 128, "more": 128, "tiny": 20}.items():
        Image.new("RGB", (side, side), (0, side, 0)).save(images / f"{name}.png")
    page = [
        figure(1, ("taj", "Original image"), ("blurred", "Filter \u201cBlur\u201d applied"), ("more", "Applied twice")),
        figure(2, ("blurred", "Blurred"), ("taj", "Original image")),
        figure(3, ("taj", "Original image")),
        figure(4, ("taj", "Original image"), ("tiny", "Scaled")),
        figure(5, ("taj", "Original image"), ("missing", "Gone")),
        PICTURE.format(name="more", caption="outside of a figure"),
    ]
    (root / "help" / "blur.html").write_text(f"<html><body>{''.join(page)}</body></html>", encoding="utf-8")
    return {"stamps": str(root / "stamps"), "gimp_help": str(root / "help")}


@pytest.fixture(scope="module")
def hard(folders):
    return HardData(image_size=32, **folders)


def test_stamps_become_captions(hard):
    bee, apple = hard.source("captions", "hard")
    assert apple.text == "A red apple."
    assert apple.images[0].image_id == "stamps/food/apple.png"
    assert apple.meta["license"] == "GPL-2.0"
    assert (bee.meta["is_drawn"], apple.meta["is_drawn"]) == (True, False)
    assert list_stamps(hard.folders["stamps"])[1] == {"symbols": 1, "no bitmap": 1, "no caption": 1}


def test_figures_become_edits(hard):
    documents = hard.source("edits", "hard")
    assert [document.text for document in documents] == [
        "Example of Blur: Filter Blur applied",
        "Example of Blur: Applied twice",
    ]
    before, after = documents[0].images
    assert (before.image_id, after.image_id) == ("gimp/images/taj.png", "gimp/images/blurred.png")
    assert after.loss
    assert not before.loss
    assert documents[0].meta["license"].startswith("GFDL")


def test_pictures_are_padded_with_white(hard):
    picture = hard.pixels(["stamps/food/apple.png"])[0]
    assert picture.shape == (32, 32, 3)
    assert picture[0].min() == 255
    assert tuple(picture[16, 16]) == (200, 0, 0)


def test_documents_follow_the_row_schema(hard):
    for task in hard.tasks:
        for document in hard.source(task, "hard"):
            row = document_to_row(document, hard.picture)
            assert row["source"]
            assert row["license"]
            assert row["split"] == "hard"
            assert row_to_document(row) == document


@pytest.mark.parametrize("split", ["train", "val"])
def test_there_is_nothing_to_train_on(hard, split):
    for ask in (lambda: hard.source("captions", split), lambda: hard.image_ids(split), lambda: next(hard.vocabulary_texts())):
        with pytest.raises(RecipeError, match=r"never trained on.*Next: train on other data"):
            ask()


@pytest.mark.parametrize("own", [[], ["batches.pools.split=hard", "+batches.pools.subsets=[captions]"]])
def test_a_recipe_that_trains_on_it_is_refused(own, folders, tmp_path):
    words = ["experiment=liquid/tokenizer", "scale=tiny", "data=hard", f"paths.folder={tmp_path / 'run'}", *own]
    words += [f"world.{name}={folder}" for name, folder in folders.items()]
    with pytest.raises(
        RecipeError, match=r"tokenizer would train on Tux Paint.*GIMP help.*never trained on.*choose another data"
    ):
        launch(compose_job("train", words))
    assert not (tmp_path / "run").exists()


def test_names_outside_of_the_data_are_refused(hard):
    for name in ("stamps/../../secret.png", "elsewhere/a.png"):
        with pytest.raises(DocumentError, match="names no picture"):
            hard.picture(name)


def test_the_fingerprint_covers_size(hard, folders):
    assert (
        hard.fingerprint()
        == HardData(image_size=32, **folders).fingerprint()
        != HardData(image_size=48, **folders).fingerprint()
    )


@pytest.mark.skipif(
    not all((own.folder / own.place).is_dir() for own in PACKAGES.values()), reason="not fetched: plait-fetch what=hard"
)
def test_the_real_packages_are_what_the_data_card_says():
    hard = HardData()
    counts = len(hard.stamps), sum(stamp.is_drawn for stamp in hard.stamps), len(hard.pairs)
    assert counts == (538, 108, 177), f"counted on {[own.version for own in PACKAGES.values()]}; is another version there?"
    assert hard.pixels(hard.image_ids("hard", "captions")[:3]).shape == (3, 64, 64, 3)
