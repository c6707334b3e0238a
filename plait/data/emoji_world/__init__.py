"""EmojiWorld, the default data: scenes of real emoji art, with captions, questions, stories and edits (DATA_CARD.md)."""

from plait.data.emoji_world.scenes import Scene, Thing
from plait.data.emoji_world.world import EmojiWorld

__all__ = ["EmojiWorld", "Scene", "Thing"]
