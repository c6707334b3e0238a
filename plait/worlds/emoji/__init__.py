"""EmojiWorld, the default data: scenes of real emoji art, with captions, questions, stories and edits (DATA_CARD.md)."""

from plait.worlds.emoji.scenes import Scene, Thing
from plait.worlds.emoji.world import EmojiWorld

__all__ = ["EmojiWorld", "Scene", "Thing"]
