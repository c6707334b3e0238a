"""Alignment: a language model learns to see and to draw through parts that are new, before it changes itself (losses in nats)."""

from lightning_modules.stage import Stage


class AlignmentStage(Stage):
    """Next tokens and codes of packed documents; what trains is the freeze plan's affair. Batches are `SequenceBatch`."""
