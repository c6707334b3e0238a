"""One world and one oracle for all tests of the evaluation."""

import pytest

from plait.data.emoji_world import EmojiWorld
from plait.evaluation.verifier import Oracle


@pytest.fixture(scope="session")
def world() -> EmojiWorld:
    return EmojiWorld()


@pytest.fixture(scope="session")
def oracle(world) -> Oracle:
    return Oracle(world)
