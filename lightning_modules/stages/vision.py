"""Training a vision encoder by what its pictures are: cross entropies over attributes, in nats per picture."""

from lightning_modules.stage import Stage


class VisionStage(Stage):
    """Images -> attributes. Batches are {"images": (b 3 h w) in [-1, 1], "attributes": (b n), "counts": ...}."""
