"""Pretraining: documents and pairs of the data's own wording, every supervised token carries loss (in nats)."""

from lightning_modules.stage import Stage


class PretrainingStage(Stage):
    """Next tokens of packed documents. Batches are `SequenceBatch`."""
