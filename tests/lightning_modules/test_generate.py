"""`plait-generate`: words to the letter, refusals before anything is loaded, documents in the wording of their kind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from lightning_modules.composing.recipes import make_recipe
from lightning_modules.composing.stored import check_stored
from lightning_modules.desk.requests import choose_kind, read_request
from lightning_modules.desk.words import read_words
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch
from plait.errors import CheckpointError, DocumentError

ODD = [
    "a red car",
    "it's a car, red",
    'say "hi"',
    "back\\slash\\",
    'a\\" b',
    "<eos> & (x) [y] {z}",
    "${oc.env:HOME} and \\${run}",
    "3",
    "[",
    "  two  ",
    "日本 — é!",
    "a=b;#~",
]


def read_back(words: list[str]) -> dict:
    overrides = OverridesParser.create().parse_overrides(words)
    return {one.key_or_group: OmegaConf.to_object(OmegaConf.create({"value": one.value()}))["value"] for one in overrides}


@pytest.mark.parametrize("text", ODD)
def test_texts_reach_the_job_to_the_letter(text, tmp_path):
    picture = tmp_path / "it's (a), picture=1.png"
    Image.new("RGB", (8, 8)).save(picture)
    words = read_words([f"run={tmp_path}", f"image={picture}", f"question={text}", "question=and this?", "seed=3"])
    found = read_back(words)
    assert found == {"run": str(tmp_path), "image": str(picture), "question": [text, "and this?"], "seed": 3}
    assert read_back(read_words([f"run={tmp_path}", f"prompt={text}"]))["prompt"] == text


def test_what_hydra_wrote_stays_hydras(tmp_path):
    for words in (["run=a,b", "prompt=x", "-m"], [f"run={tmp_path}", "prompt=[a,b]"], [f"run={tmp_path}", "prompt='a, b'"]):
        assert read_words(words)[1:] == words[1:]
    assert read_words(["prompt"]) == ["prompt"], "Hydra says what is wrong with it"


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ([], "Nothing is asked"),
        (["prompt="], "prompt is ''"),
        (["prompt=  "], "prompt is '  '"),
        (["question=what?"], "question='what[?]'"),
        (["prompt=a", "document=b.json"], "expected prompt="),
        (["image=nowhere.png"], "is no file"),
        (["image={image}", "edit="], "edit is ''"),
        (["image={image}", "edit=a", "question=b"], "expected prompt="),
        (["document=nowhere.json"], "cannot be read as a document"),
        (["prompt=a", "kind=story"], "none is given"),
        (["document={text}"], "kind=draw or kind=story"),
        (["document={text}", "kind=poem"], "expected one of draw"),
        (["document={text}", "kind=edit"], "expected picture, text, a picture to be drawn or picture, text"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(words, refusal, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "text.json").write_text(json.dumps({"spans": [{"type": "text", "text": "a red car"}]}))
    places = {"image": tmp_path / "a.png", "text": tmp_path / "text.json"}
    with pytest.raises(DocumentError, match=refusal):
        read_words([f"run={tmp_path}", *(word.format(**places) for word in words)])


def test_a_run_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(CheckpointError, match="is no folder"):
        read_words([f"run={tmp_path / 'nowhere'}", "prompt=a"])
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("shape", "kind"),
    [("i", "caption"), ("it", "question"), ("ith", "edit"), ("thth", "story"), ("titi", "story"), ("itit", "story")],
)
def test_the_shape_tells_the_kind_as_training_tells_it(shape, kind):
    assert choose_kind(shape, None, "mine.json") == kind


def test_a_refusal_takes_neither_torch_nor_a_folder(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "lightning_modules.commands.generate", f"run={tmp_path}", "prompt="]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "prompt is ''" in done.stderr
    assert "| torch" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spans", "wording"),
    [
        ([{"image": "a.png"}, {"text": "what is on the left ?"}], "question_prompt"),
        ([{"image": "a.png"}, {"text": "they change places ."}, {"hole": 1}], "edit_prompt"),
        ([{"text": "here is a red car ."}, {"hole": 1}, {"text": "they change places ."}, {"hole": 1}], "story_prompt"),
    ],
)
def test_documents_are_worded_as_their_kind_was_trained(small_run, tmp_path, spans, wording):
    Image.effect_noise((256, 64), 90).convert("RGB").save(tmp_path / "a.png")
    written = [
        {"type": "text", "text": span["text"]}
        if "text" in span
        else {"type": "image", "image_id": span.get("image", "drawn"), **({"form": "codes"} if "hole" in span else {})}
        for span in spans
    ]
    (tmp_path / "mine.json").write_text(json.dumps({"spans": written}))
    config = compose_job("generate", ["max_images=1", "max_tokens=12", "num_samples=1"])
    config.run, config.document, config.paths.folder = (
        str(place) for place in (small_run / "instruction", tmp_path / "mine.json", tmp_path / "out")
    )
    files = launch(config)
    assert files[0] == str(tmp_path / "out" / "samples.html")
    assert all(Path(file).is_file() for file in files)
    (record,) = json.loads((tmp_path / "out" / "samples.json").read_text())
    texts = [span["text"] for span in record["document"]["spans"] if span["type"] == "text"]
    is_chat = wording != "story_prompt"
    assert texts[0].startswith("<start_of_turn>user") == is_chat
    assert any(text.endswith("<end_of_turn>\n<start_of_turn>model\n") for text in texts) == is_chat


def test_a_saved_model_says_how_pictures_are_fitted():
    nodes = {"model": {"_target_": "plait.systems.liquid.build", "text_tokenizer": "${text_tokenizer}"}, "text_tokenizer": 1}
    data = {"data": {"fit": "pad", "path": "mine"}, "tiling": {"_target_": "plait.tiling.Tiling", "max_tiles": 4}}
    recipe = make_recipe(OmegaConf.create(nodes | data), {})
    assert (recipe["data"], recipe["tiling"]) == ({"fit": "pad"}, data["tiling"])
    check_stored(recipe, "mine", is_model=True)


def test_a_dialogue_in_a_file_is_a_chat(tmp_path):
    asked = [{"role": "user", "content": "a red car"}]
    (tmp_path / "chat.json").write_text(json.dumps({"messages": asked}))
    assert read_request(document=str(tmp_path / "chat.json")).messages == asked
    (tmp_path / "chat.json").write_text(json.dumps({"messages": [*asked, {"role": "assistant", "content": "yes"}]}))
    with pytest.raises(DocumentError, match="expected one of the user"):
        read_request(document=str(tmp_path / "chat.json"))
