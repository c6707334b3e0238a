"""UnifiedModel: what every system is once its builder has put the parts together: embed, loss, generate.

Knows its parts through protocols only. What a system adds (a frozen encoder, a second head, a diffusion decoder) enters as a part of
the same kind; there is no subclass per system.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.axes import Float, Ids, Images, Tensor
from plait.document import Document, ImageSpan
from plait.errors import LayoutError
from plait.objectives.max_z import max_z_term
from plait.objectives.next_token import next_token_terms
from plait.protocols import LossTerms, Noise, Policy, Template, VisionTokenizer
from plait.sampling.interleaved import InterleavedSampler
from plait.sampling.policies import PerSampleNoise
from plait.sequence.batch import TERMS, SequenceBatch
from plait.sequence.builder import SequenceBuilder


class UnifiedModel(nn.Module):
    """A system, assembled.

    Args:
        backbone: embeddings in, hidden states out.
        head: embeds and scores tokens (see `plait.heads.shared.SharedHead`).
        builder: documents <-> batches; holds vocabulary, layout and text tokenizer.
        template: the system's wording.
        image_positions: places in an image (b s) -> vectors added to its embeddings; None adds nothing.
        has_max_z: whether the loss has the term of plait.objectives.max_z.
        vision_tokenizer: codes <-> pixels. Frozen, held beside the model and not in its state: a checkpoint names it, it does not hold it.
            None for a model of text alone.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        builder: SequenceBuilder,
        template: Template,
        vision_tokenizer: nn.Module | VisionTokenizer | None,
        image_positions: nn.Module | None = None,
        has_max_z: bool = False,
    ) -> None:
        super().__init__()
        self.has_max_z = has_max_z
        self.backbone, self.head, self.image_positions = backbone, head, image_positions
        self.builder, self.template = builder, template
        self._compiled: tuple[nn.Module, Callable[..., Any]] | None = None
        self._tokenizer = [vision_tokenizer.eval()] if isinstance(vision_tokenizer, nn.Module) else [vision_tokenizer]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Trainable parts by name, for freeze plans and the ledger."""
        parts = {"backbone": self.backbone, "head": self.head, "image_positions": self.image_positions}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def vision_tokenizer(self) -> VisionTokenizer | None:
        """The tokenizer whose codes this model speaks (a list hides it from the module tree)."""
        return self._tokenizer[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def embed(self, ids: Ids, cells: Ids) -> Float[Tensor, "b s d"]:
        """Global ids and their places in their images (-1 outside images) -> embeddings."""
        embeddings = self.head.embed(*self.builder.vocabulary.locate(ids))
        return embeddings if self.image_positions is None else embeddings + self.image_positions(cells)

    def hidden(self, batch: SequenceBatch) -> Float[Tensor, "b s d"]:
        """Hidden states of every position."""
        return self.backbone(self.embed(batch.ids, batch.cells), batch.layout)

    def loss(self, batch: SequenceBatch) -> LossTerms:
        """Summed cross entropies in nats, one term for text targets and one for image codes; and the max-z term, if there is one."""
        hidden = self.hidden(batch)
        terms = next_token_terms(
            hidden,
            batch.targets,
            batch.terms,
            TERMS,
            self.builder.vocabulary.locate,
            self.head.score,
            self.head.score_parameters(),
            self.head.num_logits,
        )
        if self.has_max_z:
            further = max_z_term(hidden, batch.targets, self.head.top)
            terms.sums |= further.sums
            terms.counts |= further.counts
        return terms

    @torch.inference_mode()
    def score(self, documents: Sequence[Document]) -> Float[Tensor, "n"]:
        """Summed cross entropy in nats of the targets of each document: all that carries loss in it, its end too where it ends."""
        batch = self.builder.build(documents).to(self.device)
        rows, places = (batch.targets >= 0).nonzero(as_tuple=True)
        segments, local = self.builder.vocabulary.locate(batch.targets[rows, places])
        was_training = self.training
        self.eval()
        try:
            lse, target = self.head.score(self.hidden(batch)[rows, places], segments, local)
        finally:
            self.train(was_training)
        return torch.zeros(len(documents), device=lse.device).index_add_(0, rows, lse - target)

    def compile_generation(self, **options: Any) -> None:
        """Compile what is called once per token (see `CausalLM.compile_decoding` for the options and what they cost)."""
        self.backbone.compile_decoding(**options)
        self._compiled = (self.head, torch.compile(self.head.logits, **options))

    def generate(
        self,
        documents: Sequence[Document],
        policies: Mapping[str, Policy],
        seeds: Sequence[int] | None = None,
        *,
        noise: Noise | None = None,
        max_images: int = 0,
        max_tokens: int = 64,
    ) -> list[Document]:
        """Complete documents (see `InterleavedSampler.generate`).

        Args:
            seeds: one per document; a result depends on its own seed and not on the batch.
            noise: instead of seeds, a source of draws.

        Raises:
            LayoutError: not one seed per document.
        """
        if noise is None:
            if seeds is None or len(seeds) != len(documents):
                raise LayoutError(
                    f"{len(documents)} documents but {0 if seeds is None else len(seeds)} seeds: expected one each."
                )
            noise = PerSampleNoise(seeds)
        sampler = InterleavedSampler(
            backbone=self.backbone,
            embed=self.embed,
            logits=self._score_next(),
            layout=self.builder.layout,
            guidance_branches=self.template.guidance_branches,
        )
        was_training = self.training
        self.eval()
        try:
            return sampler.generate(
                documents, policies, noise, max_images=max_images, max_tokens=max_tokens, device=self.device
            )
        finally:
            self.train(was_training)

    def _score_next(self) -> Callable[..., Any]:
        """The head's logits: compiled, if it is still the head that was compiled."""
        if self._compiled is not None and self._compiled[0] is self.head:
            return self._compiled[1]
        return self.head.logits

    @torch.inference_mode()
    def pictures(self, spans: Sequence[ImageSpan]) -> Images:
        """Decode encoded or drawn image spans to pixels (n 3 h w) in [-1, 1]."""
        levels = [np.stack([span.codes[level] for span in spans]) for level in range(len(spans[0].codes))]
        tokenizer = self.vision_tokenizer
        device = next(tokenizer.parameters()).device if isinstance(tokenizer, nn.Module) else "cpu"
        return tokenizer.decode(tuple(torch.from_numpy(level).to(device) for level in levels))
