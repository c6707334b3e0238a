"""UnifiedModel: what every system is once its builder has put the parts together: embed, loss, generate.

Knows its parts through protocols only. What a system adds (an encoder of its own, a second head, a diffusion decoder) enters as a part of
the same kind; there is no subclass per system.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.axes import Embeddings, Float, Hidden, Images, Tensor
from plait.document import Document, ImageSpan
from plait.errors import LayoutError
from plait.protocols import Head, Noise, Policy, Template, VisionTokenizer
from plait.records import LossTerms, Reading, Side
from plait.sampling.interleaved import InterleavedSampler
from plait.sampling.policies import PerSampleNoise
from plait.sequence.batch import SequenceBatch
from plait.sequence.builder import SequenceBuilder


class UnifiedModel(nn.Module):
    """A system, assembled.

    Args:
        parts: what trains, by name (freeze plans, the ledger and checkpoints use these names). `backbone`: embeddings in, hidden states
            out. `head`: embeds, scores and draws text and markers (`plait.heads.shared.SharedHead`), and codes where no other head does.
        heads: names of the parts that are heads (`plait.protocols.Head`), in the order in which their loss is taken.
        inputs: names of the parts through which more than the rows of `head` enters (`plait.protocols.Input`), in their order.
        builder: documents <-> batches; holds vocabulary, layout and text tokenizer.
        template: the system's wording.
        companions: what goes where the model goes and is no part of it, by name: it is frozen, and a checkpoint names it and does not hold
            it.
            `vision_tokenizer`: codes <-> pixels.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, nn.Module],
        heads: Sequence[str] = ("head",),
        inputs: Sequence[str] = (),
        builder: SequenceBuilder,
        template: Template,
        companions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._parts, self._heads, self._inputs = tuple(parts), tuple(heads), tuple(inputs)
        self.builder, self.template = builder, template
        # a dict hides them from the module tree
        self._companions = dict(companions or {})
        for companion in self._companions.values():
            if isinstance(companion, nn.Module):
                companion.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "UnifiedModel":
        """Companions go where the model goes and keep their precision, as rounding would change their codes. What goes is a copy: data
        that are encoded on the host, in processes of their own, go on with the one that is there."""
        for name, companion in self._companions.items():
            if isinstance(companion, nn.Module) and (held := next(iter(companion.state_dict().values()), None)) is not None:
                device = fn(held.new_empty(0)).device
                if device != held.device:
                    self._companions[name] = deepcopy(companion).to(device)
        return super()._apply(fn, recurse)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Trainable parts by name, for freeze plans and the ledger."""
        return {name: getattr(self, name) for name in self._parts}

    @property
    def heads(self) -> dict[str, Head]:
        """Loss term -> the head that its positions belong to."""
        return {term: getattr(self, name) for name in self._heads for term in getattr(self, name).terms}

    @property
    def positions_per_image(self) -> int:
        """See `plait.protocols.UnifiedModel`."""
        layout = self.builder.layout
        frame = layout.drawn_frame or next(iter(layout.frames.values()), None)
        return frame.positions if frame else 0

    @property
    def vision_tokenizer(self) -> VisionTokenizer | None:
        """The tokenizer whose codes this model speaks; None for a model that speaks none."""
        return self._companions.get("vision_tokenizer")

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the pictures that it reads; None for a model of text alone."""
        readers = (self.vision_tokenizer, *(getattr(self, name) for name in self._inputs))
        return next((tuple(reader.image_size) for reader in readers if hasattr(reader, "image_size")), None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def read(self, reading: Reading) -> tuple[Embeddings, Side]:
        """What is read -> embeddings (b s d), and the record for taps and experts."""
        embeddings, side = self.head.embed(reading), Side(reading.cells >= 0, given_routes=reading.routes)
        for name in self._inputs:
            embeddings, side = getattr(self, name).enter(embeddings, side, reading)
        return embeddings, side

    def hidden(self, batch: SequenceBatch) -> Hidden:
        """Hidden states (b s d) of every position."""
        embeddings, side = self.read(batch.reading)
        return self.backbone(embeddings, batch.layout, side=side)

    def loss(self, batch: SequenceBatch) -> LossTerms:
        """The terms of all heads: summed cross entropies in nats, and what else their objectives are."""
        embeddings, side = self.read(batch.reading)
        hidden = self.backbone(embeddings, batch.layout, side=side)
        terms = LossTerms()
        for name in self._heads:
            terms.add(getattr(self, name).loss(hidden, batch, side))
        return terms

    @torch.inference_mode()
    def score(self, documents: Sequence[Document], *, is_plain: bool = False) -> Float[Tensor, "n"]:
        """Summed cross entropy in nats of the targets of each document: all that carries loss in it, its end too where it ends.

        Args:
            is_plain: words compete with words alone, as where no picture may begin: markers and codes that a system added to its
                language model take no mass, so that what is left of its text can be compared with the language model by itself.

        Raises:
            LayoutError: plain documents with targets that are no text.
        """
        batch = self.builder.build(documents)
        foreign = sum(int((wanted.segments > 0).sum()) for wanted in batch.wanted.values())
        if is_plain and foreign:
            raise LayoutError(
                f"{foreign} targets are codes or markers, expected text alone: score such documents with is_plain=False."
            )
        batch = batch.to(self.device)
        was_training = self.training
        self.eval()
        try:
            total = torch.zeros(len(documents), device=self.device)
            hidden = self.hidden(batch).flatten(0, 1)
            for name, head in self.heads.items():
                wanted = batch.wanted[name]
                if not len(wanted.rows):
                    continue
                states = head.states(hidden.index_select(0, wanted.places), wanted.local)
                local = wanted.local.flatten()
                lse, target = (
                    head.rows[0].score(states, local) if is_plain else head.score(states, wanted.segments.flatten(), local)
                )
                # one row is one document here; a position may hold several codes
                total.index_add_(0, wanted.rows.repeat_interleave(wanted.local.shape[1]), lse - target)
        finally:
            self.train(was_training)
        return total

    def compile_generation(self, **options: Any) -> None:
        """Compile what is called once per token (see `CausalLM.compile_decoding` for the options and what they cost)."""
        self.backbone.compile_decoding(**options)
        for head in dict.fromkeys(self.heads.values()):
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
            heads=self.heads,
            builder=self.builder,
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
        return self.vision_tokenizer.decode(tuple(torch.from_numpy(level).to(self.device) for level in levels))
