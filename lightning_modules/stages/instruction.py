"""Instruction tuning: only answers carry loss; the rest of what is special about it is its data (template and loss masks)."""

from lightning_modules.stage import Stage


class InstructionStage(Stage):
    """Answers to instructions, in text and pictures. Starts from a pretrained base. Batches are `SequenceBatch`."""
