"""One world for all tests of the data: its pictures and scenes are made once."""

import pytest

from plait.data.emoji_world import EmojiWorld


@pytest.fixture(scope="session")
def world() -> EmojiWorld:
    """EmojiWorld at its defaults; read it, never change it."""
    return EmojiWorld()
