"""Documents: a pure function of (seed, task, split, number), balanced by construction, written in known words."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from plait.document import TextSpan
from plait.worlds.emoji import EmojiWorld

DIGEST = """
import hashlib, json
from plait.worlds.emoji import EmojiWorld
world, digest = EmojiWorld(seed=3), hashlib.sha256()
for task in world.tasks:
    if task != "glyphs":
        for split in ("train", "val"):
            source = world.source(task, split, 40)
            digest.update(json.dumps([source[index].to_json() for index in range(40)], sort_keys=True).encode())
print(digest.hexdigest())
"""


def list_documents(source):
    return [source[index].to_json() for index in range(min(len(source), 60))]


@pytest.mark.parametrize("task", EmojiWorld.tasks)
def test_a_document_does_not_depend_on_what_was_read_before(world, task):
    source = world.source(task, "train", 60)
    assert len(source) == 60
    backwards = [source[index].to_json() for index in reversed(range(60))][::-1]
    assert backwards == list_documents(source) == list_documents(world.source(task, "train"))
    assert source[-1] == source[59]
    with pytest.raises(IndexError, match=f"document 60 of {task}/train"):
        source[60]


@pytest.mark.parametrize("task", ["two_objects", "vqa", "stories"])
def test_another_seed_gives_other_documents(world, task):
    assert list_documents(world.source(task, "train", 20)) != list_documents(EmojiWorld(seed=1).source(task, "train", 20))


def test_documents_are_the_same_in_another_process():
    outputs = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].strip()) == hashlib.sha256().digest_size * 2


def test_documents_are_json_and_say_what_they_are(world):
    for task in world.tasks:
        document = world.source(task, "train")[5]
        assert json.loads(json.dumps(dict(document.meta))) == document.meta
        assert document.id == f"{task}/train/5"
        assert {"task": task, "split": "train", "license": "CC-BY-4.0"}.items() <= document.meta.items()
        assert document.meta["source"] == ("real" if task == "glyphs" else "composed")


def test_default_sizes(world):
    sizes = {task: len(world.source(task, "train")) for task in world.tasks if task != "glyphs"}
    expected = dict.fromkeys(("one_object", "centred", "placed", "two_objects", "vqa"), 20_000)
    assert sizes == expected | dict.fromkeys(("stories", "edits", "text"), 8_000)


@pytest.mark.parametrize("split", EmojiWorld.splits)
@pytest.mark.parametrize("size", [300, 900])
def test_no_answer_is_right_more_often_than_in_60_percent(world, split, size):
    answers = defaultdict(Counter)
    for document in world.source("vqa", split, size):
        texts = [span.text for span in document.spans if isinstance(span, TextSpan)]
        for kind, answer in zip(document.meta["types"], texts[1::2], strict=True):
            answers[kind][answer] += 1
    assert len(answers) == 6
    for kind, counts in answers.items():
        assert counts.total() >= size // 4
        assert max(counts.values()) <= 0.6 * counts.total(), (kind, counts)
    yes = answers["exists"]["yes"] / answers["exists"].total()
    assert abs(yes - 0.5) < 0.05


def test_every_word_of_every_split_is_in_the_vocabulary_texts(world):
    words = {word for text in world.vocabulary_texts() for word in text.split()}
    scene_words = {word for text in world.vocabulary_texts(glyphs=False) for word in text.split()}
    assert len(scene_words) < 80
    for split in world.splits:
        for task in ("two_objects", "vqa", "stories", "edits", "text"):
            for document in world.source(task, split, 60):
                assert set(document.text.split()) <= scene_words, document
    for task, split in (("one_object", "train"), ("one_object", "test_combo"), ("glyphs", "train"), ("glyphs", "val")):
        source = world.source(task, split)
        for index in range(min(len(source), 4_000)):
            assert set(source[index].text.split()) <= (words if task == "glyphs" else scene_words), source[index]


def test_texts_are_lower_case_words_separated_by_single_spaces(world):
    for task in world.tasks:
        source = world.source(task, "train")
        for index in range(200):
            for span in source[index].spans:
                if isinstance(span, TextSpan):
                    assert span.text == " ".join(span.text.lower().split())


def test_the_fingerprint_covers_seed_and_size(world):
    fingerprints = [world.fingerprint(), EmojiWorld(seed=1).fingerprint(), EmojiWorld(image_size=32).fingerprint()]
    assert len(set(fingerprints)) == 3
