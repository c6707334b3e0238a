"""The same concepts drawn by four artists: Twemoji, OpenMoji, Noto and Fluent (the extra `[styles]`; DATA_CARD.md)."""

from plait.worlds.styles.world import StyledWorld

__all__ = ["StyledWorld"]
