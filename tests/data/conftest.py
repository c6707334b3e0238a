"""One world for all tests of the data: its pictures and scenes are made once."""

import pytest

from plait.worlds.emoji import EmojiWorld


@pytest.fixture(scope="session")
def world() -> EmojiWorld:
    """EmojiWorld at its defaults; read it, never change it."""
    return EmojiWorld()
