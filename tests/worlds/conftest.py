"""One world and one oracle for all tests of the evaluation."""

from functools import cache

import pytest

from plait.worlds.emoji import EmojiWorld
from plait.worlds.emoji.oracle import Oracle


class SmallWorld(EmojiWorld):
    """The world with short sources, each made once: checking every annotated call costs more than the calls."""

    @cache  # noqa: B019 (one world per session)
    def source(self, task, split, size=None):
        if split == "train":
            size = 1000 if task == "one_object" else 400  # enough to show every one-object scene
        elif task in ("vqa", "stories", "edits"):
            size = 120
        return super().source(task, split, size)


@pytest.fixture(scope="session")
def world() -> EmojiWorld:
    return SmallWorld()


@pytest.fixture(scope="session")
def oracle(world) -> Oracle:
    return Oracle(world)
