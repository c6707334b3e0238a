"""Supervision of a vision encoder by what its pictures are, and by which of them a fresh rendering shows.

What they are: one softmax over all attributes, averaged over those of a picture.

Several right answers under one softmax: arXiv 1511.02251, section 3.1 (one against all words; ours averages over the attributes
of a picture). Every attribute that a picture lacks is a negative at each step, so nothing depends on the size of the batch. Knows
attributes by number only.

Which of them (optional): a rendering and the picture that it is of against all others of the batch, both ways (NT-Xent of SimCLR, arXiv
2002.05709, equation 1, with the negatives of the other view only, as in CLIP, arXiv 2103.00020, figure 3; on the pooled embedding itself,
without a projection, as it is what is looked up later). Ours: no gradient passes through the originals, which costs a quarter less and
finds as many (reports/bases.md). The others are those of one process: more ranks have fewer negatives each.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from plait.axes import Float, Images, Tensor
from plait.errors import RecipeError
from plait.protocols import VisionEncoder
from plait.records import LossTerms


class AttributeClassifier(nn.Module):
    """A vision encoder and one linear layer on its pooled embedding.

    Args:
        vision: the encoder, which is what is kept of this model.
        num_attributes: how many there are.
        temperature: of the softmax over cosines between renderings and pictures; None leaves that term out.
    """

    def __init__(self, *, vision: VisionEncoder, num_attributes: int, temperature: float | None = None) -> None:
        super().__init__()
        if num_attributes < 2:
            raise RecipeError(
                f"num_attributes is {num_attributes}, expected at least 2: with one there is nothing to tell apart."
            )
        if temperature is not None and not temperature > 0:
            raise RecipeError(f"temperature is {temperature}, expected a number above 0, or null for no term of that kind.")
        self.vision, self.temperature = vision, temperature
        self.head = nn.Sequential(nn.LayerNorm(vision.width), nn.Linear(vision.width, num_attributes))

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {"vision": self.vision, "head": self.head}

    def forward(self, images: Images) -> Float[Tensor, "b k"]:
        """Logits of all attributes."""
        return self.head(self.vision(images).pooled)

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Term "attributes" of a batch {"images", "attributes": (b n) numbers, -1 where a picture has fewer}, and with a temperature
        the term "views" of its "originals" (which of them are one picture, (b) "numbers" say), counted in pictures.

        The metric `attributes_found` is the share of attributes that are among as many of the highest logits as the picture has,
        `originals_found` the share of renderings whose nearest original is their own.

        Raises:
            RecipeError: there is a temperature, and the batch has no originals.
        """
        pooled, count = self.vision(batch["images"]).pooled, float(len(batch["images"]))
        term, found = self._say(pooled, batch["attributes"])
        terms = LossTerms({"attributes": term}, {"attributes": count}, {"attributes_found": found})
        if self.temperature is not None:
            if "originals" not in batch:
                raise RecipeError(
                    "The model compares renderings with originals and the batch has none: set batches.has_originals."
                )
            terms.sums["views"], terms.metrics["originals_found"] = self._find(pooled, batch["originals"], batch["numbers"])
            terms.counts["views"] = count
        return terms

    def _say(self, pooled: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor | float]]:
        is_real = targets >= 0
        own = is_real.sum(1)
        scores = functional.log_softmax(self.head(pooled).float(), dim=1)
        picked = torch.where(is_real, scores.gather(1, targets.clamp(min=0)), 0.0)
        # the lowest of the own.n highest scores of each picture
        highest = scores.detach().topk(targets.shape[1], dim=1).values
        found = picked.detach() >= highest.gather(1, own[:, None] - 1)
        return -(picked.sum(1) / own).sum(), ((found & is_real).sum().float(), own.sum().float())

    def _find(self, pooled: Tensor, originals: Images, numbers: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor | float]]:
        with torch.no_grad():
            looked_up = self.vision(originals).pooled
        asked, shown = (functional.normalize(each.float(), dim=1) for each in (pooled, looked_up))
        own = torch.arange(len(asked), device=asked.device)
        is_double = (numbers[:, None] == numbers) & (own[:, None] != own)  # a picture is no negative of itself
        cosines = (asked @ shown.T / self.temperature).masked_fill(is_double, -torch.inf)
        loss = sum(functional.cross_entropy(view, own, reduction="sum") for view in (cosines, cosines.T)) / 2
        return loss, ((cosines.argmax(1) == own).sum().float(), float(len(own)))
