"""Training a vision tokenizer: the model is a VisionTokenizer, its terms are errors of pixels and codes, so not in nats."""

from typing import ClassVar

from lightning_modules.stage import Stage


class TokenizerStage(Stage):
    """Images -> codes -> images. Batches are {"images": (b 3 h w) in [-1, 1], "counts": ...}."""

    term_unit: ClassVar[str | None] = None
