"""Supervision of a vision encoder by what its pictures are: one softmax over all attributes, averaged over those of a picture.

Several right answers under one softmax: arXiv 1511.02251, section 3.1 (one against all words; ours averages over the attributes
of a picture). Every attribute that a picture lacks is a negative at each step, so nothing depends on the size of the batch, as it
would with contrasted captions. Knows attributes by number only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from plait.axes import Float, Images, Tensor
from plait.errors import RecipeError
from plait.protocols import LossTerms, VisionEncoder


class AttributeClassifier(nn.Module):
    """A vision encoder and one linear layer on its pooled embedding.

    Args:
        vision: the encoder, which is what is kept of this model.
        num_attributes: how many there are.
    """

    def __init__(self, *, vision: VisionEncoder, num_attributes: int) -> None:
        super().__init__()
        if num_attributes < 2:
            raise RecipeError(
                f"num_attributes is {num_attributes}, expected at least 2: with one there is nothing to tell apart."
            )
        self.vision = vision
        self.head = nn.Sequential(nn.LayerNorm(vision.width), nn.Linear(vision.width, num_attributes))

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {"vision": self.vision, "head": self.head}

    def forward(self, images: Images) -> Float[Tensor, "b k"]:
        """Logits of all attributes."""
        return self.head(self.vision(images).pooled)

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Term "attributes" of a batch {"images", "attributes": (b n) numbers, -1 where a picture has fewer}, counted in pictures.

        The metric `attributes_found` is the share of attributes that are among as many of the highest logits as the picture has.
        """
        targets = batch["attributes"]
        is_real = targets >= 0
        own = is_real.sum(1)
        scores = functional.log_softmax(self(batch["images"]).float(), dim=1)
        picked = torch.where(is_real, scores.gather(1, targets.clamp(min=0)), 0.0)
        # the lowest of the own.n highest scores of each picture
        highest = scores.detach().topk(targets.shape[1], dim=1).values
        found = picked.detach() >= highest.gather(1, own[:, None] - 1)
        return LossTerms(
            sums={"attributes": -(picked.sum(1) / own).sum()},
            counts={"attributes": float(len(targets))},
            metrics={"attributes_found": (float((found & is_real).sum()), float(own.sum()))},
        )
