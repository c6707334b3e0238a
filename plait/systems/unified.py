"""UnifiedModel: what every system is once its builder has put the parts together: embed, loss, generate.

Knows its parts through protocols only. What a system adds (a frozen encoder, a second head, a diffusion decoder) enters as a part of
the same kind; there is no subclass per system.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.axes import Float, Ids, Images, Int, Tensor
from plait.document import Document, ImageSpan
from plait.errors import LayoutError
from plait.objectives.max_z import max_z_term
from plait.objectives.next_token import summed_cross_entropy
from plait.protocols import ImageHead, Noise, Policy, Template, VisionTokenizer
from plait.records import LossTerms, Side
from plait.sampling.interleaved import InterleavedSampler
from plait.sampling.policies import PerSampleNoise
from plait.sequence.batch import TERMS, SequenceBatch
from plait.sequence.builder import SequenceBuilder


class UnifiedModel(nn.Module):
    """A system, assembled.

    Args:
        backbone: embeddings in, hidden states out.
        head: embeds and scores tokens (see `plait.heads.shared.SharedHead`).
        image_head: scores and draws the codes of pictures (`plait.protocols.ImageHead`); None: `head` does.
        image_input: embeds the codes of pictures (`plait.protocols.ImageInput`); None: `head` does.
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
        image_head: nn.Module | None = None,
        image_input: nn.Module | None = None,
        image_positions: nn.Module | None = None,
        has_max_z: bool = False,
    ) -> None:
        super().__init__()
        self.has_max_z = has_max_z
        self.backbone, self.head, self.image_positions = backbone, head, image_positions
        self.image_input, self.own_image_head = image_input, image_head
        self.builder, self.template = builder, template
        self._tokenizer = [vision_tokenizer.eval()] if isinstance(vision_tokenizer, nn.Module) else [vision_tokenizer]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Trainable parts by name, for freeze plans and the ledger."""
        parts = {
            "backbone": self.backbone,
            "head": self.head,
            "image_input": self.image_input,
            "image_head": self.own_image_head,
            "image_positions": self.image_positions,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def image_head(self) -> ImageHead:
        """What scores and draws the codes of pictures."""
        return self.head if self.own_image_head is None else self.own_image_head

    @property
    def positions_per_image(self) -> int:
        """See `plait.protocols.UnifiedModel`."""
        frame = self.builder.layout.drawn_frame
        return frame.positions if frame else 0

    @property
    def vision_tokenizer(self) -> VisionTokenizer | None:
        """The tokenizer whose codes this model speaks (a list hides it from the module tree)."""
        return self._tokenizer[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def read(self, ids: Ids, cells: Ids, patches: Int[Tensor, "b s f"]) -> tuple[Float[Tensor, "b s d"], Side]:
        """Tokens (see `SequenceBatch`) -> embeddings, and the record for taps and experts."""
        locate = self.builder.vocabulary.locate
        embeddings, is_visual = self.head.embed(*locate(ids)), cells >= 0
        if self.image_input is not None:
            where = is_visual.nonzero(as_tuple=True)
            pictures = self.image_input(locate(patches[where])[1], cells[where])
            embeddings = embeddings.index_put(where, pictures.to(embeddings.dtype))
        if self.image_positions is not None:
            embeddings = embeddings + self.image_positions(cells)
        return embeddings, Side(is_visual)

    def hidden(self, batch: SequenceBatch) -> Float[Tensor, "b s d"]:
        """Hidden states of every position."""
        embeddings, side = self.read(batch.ids, batch.cells, batch.patches)
        return self.backbone(embeddings, batch.layout, side=side)

    def loss(self, batch: SequenceBatch) -> LossTerms:
        """Summed cross entropies in nats, one term for text targets and one for image codes; and the max-z term, if there is one."""
        hidden = self.hidden(batch)
        terms = LossTerms()
        for name, (head, *scored) in self._targets(hidden, batch).items():
            terms.sums[name] = summed_cross_entropy(*scored, head.score, head.score_parameters(), head.num_logits)
            terms.counts[name] = float(len(scored[0]))
        if self.has_max_z:
            further = max_z_term(hidden, batch.targets, self.head.top)
            terms.sums |= further.sums
            terms.counts |= further.counts
        return terms

    def _targets(self, hidden: Tensor, batch: SequenceBatch) -> dict[str, tuple[Any, Tensor, Tensor, Tensor]]:
        """Term -> (head, states that it scores, segments, local ids), one per text token and one per code, in row order."""
        locate = self.builder.vocabulary.locate
        is_text, is_image = (batch.terms == TERMS.index(name) for name in TERMS)
        segments, codes = locate(batch.target_patches(is_image))
        states = self.image_head.states(hidden[is_image.nonzero(as_tuple=True)], codes)
        return {
            "text": (self.head, hidden[is_text.nonzero(as_tuple=True)], *locate(batch.targets[is_text])),
            "image": (self.image_head, states, segments.flatten(), codes.flatten()),
        }

    @torch.inference_mode()
    def score(self, documents: Sequence[Document], *, is_plain: bool = False) -> Float[Tensor, "n"]:
        """Summed cross entropy in nats of the targets of each document: all that carries loss in it, its end too where it ends.

        Args:
            is_plain: words compete with words alone, as where no picture may begin: markers and codes that a system added to its
                language model take no mass, so that what is left of its text can be compared with the language model by itself.

        Raises:
            LayoutError: plain documents with targets that are no text.
        """
        batch = self.builder.build(documents).to(self.device)
        was_training = self.training
        self.eval()
        try:
            total = torch.zeros(len(documents), device=self.device)
            for name, (head, *scored) in self._targets(self.hidden(batch), batch).items():
                rows = (batch.terms == TERMS.index(name)).nonzero(as_tuple=True)[0]
                if not len(rows):
                    continue
                lse, target = _score_plain(head, *scored) if is_plain else head.score(*scored)
                # one row is one document here; a position may hold several codes
                total.index_add_(0, rows.repeat_interleave(len(lse) // len(rows)), lse - target)
        finally:
            self.train(was_training)
        return total

    def compile_generation(self, **options: Any) -> None:
        """Compile what is called once per token (see `CausalLM.compile_decoding` for the options and what they cost)."""
        self.backbone.compile_decoding(**options)
        for head in dict.fromkeys((self.head, self.image_head)):
            head.compile_drawing(**options)

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
            read=self.read,
            logits=self.head.logits,
            image_head=self.image_head,
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

    @torch.inference_mode()
    def pictures(self, spans: Sequence[ImageSpan]) -> Images:
        """Decode encoded or drawn image spans to pixels (n 3 h w) in [-1, 1].

        Raises:
            LayoutError: one of them is in tiles.
        """
        tiled = [span for span in spans if span.codes[0].ndim > 2]
        if tiled:
            raise LayoutError(
                f"Image {tiled[0].image_id!r} has {len(tiled[0].codes[0])} tiles, expected one: its tiles are pictures of their own, and "
                "no system puts them together. Decode each by itself, or show the picture that was encoded."
            )
        levels = [np.stack([span.codes[level] for span in spans]) for level in range(len(spans[0].codes))]
        tokenizer = self.vision_tokenizer
        device = next(tokenizer.parameters()).device if isinstance(tokenizer, nn.Module) else "cpu"
        return tokenizer.decode(tuple(torch.from_numpy(level).to(device) for level in levels))


def _score_plain(head: nn.Module, states: Tensor, segments: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
    """As `head.score`, among the rows of text alone."""
    if segments.any():
        raise LayoutError(
            f"{int((segments > 0).sum())} targets are codes or markers, expected text alone: score such documents with is_plain=False."
        )
    return head.rows[0].score(states, local)
