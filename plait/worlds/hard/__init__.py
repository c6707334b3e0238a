"""Real pictures that are never trained on: photographs with captions, pictures before and after a filter (DATA_CARD.md)."""

from plait.worlds.hard.world import HardData

__all__ = ["HardData"]
