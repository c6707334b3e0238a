"""The batched state machine that writes interleaved documents: one loop for captions, pictures, answers, edits and stories.

Every sample has a row of the cache, and one more per guidance branch that starts when a picture starts and is forgotten when the next
one does. Rows advance by different amounts (prompt pieces, a position of a picture, one with its end marker and the next piece), in one
backbone call per turn. Only the legal slice of the head is computed. What stands at a position of a picture, one code or several, is the
image head's affair. Knows policies, heads and the cache protocol; knows no system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from plait.axes import Float, Int, Tensor
from plait.document import Document, ImageSpan
from plait.errors import LayoutError, RecipeError
from plait.protocols import Backbone, ImageHead, Noise, Policy
from plait.records import Side
from plait.sampling.grammar import Grammar, RowState
from plait.sequence.frames import Marker
from plait.sequence.layout import DocumentLayout, Tokens

Token = list[int]
"""[global id, place in its image or -1, global ids of the codes of its position or -1 each], see `SequenceBatch`"""


@dataclass
class _Sample:
    """A document being written: prompt pieces still to be read, pictures drawn into its holes, what follows the prompt, and every id
    that stands so far (`history`)."""

    document: Document
    state: RowState
    pieces: list[list[Token]]
    holes: list[int]
    filled: list[np.ndarray] = field(default_factory=list)
    tail: list[Token] = field(default_factory=list)
    picture: list[list[int]] = field(default_factory=list)
    in_hole: bool = False
    is_guided: bool = False
    history: list[int] = field(default_factory=list)
    pending: list[Token] = field(default_factory=list)
    pending_branches: list[list[Token]] = field(default_factory=list)


class InterleavedSampler:
    """Completes documents.

    Args:
        backbone: see `plait.protocols.Backbone`.
        read: (ids (b s), cells (b s), patches (b s f)) -> (embeddings (b s d), side record).
        logits: (hidden (n d), segment indices) -> logits of those segments side by side.
        image_head: see `plait.protocols.ImageHead`.
        layout: how documents become tokens.
        guidance_branches: of a picture, `Template.guidance_branches`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        read: Callable[[Tensor, Tensor, Tensor], tuple[Float[Tensor, "b s d"], Side | None]],
        logits: Callable[[Float[Tensor, "n d"], Sequence[int]], Float[Tensor, "n v"]],
        image_head: ImageHead,
        layout: DocumentLayout,
        guidance_branches: Callable[[Document, int], Sequence[Document]],
    ) -> None:
        self.backbone, self.read, self.logits, self.image_head = backbone, read, logits, image_head
        self.layout, self.guidance_branches = layout, guidance_branches
        self.vocabulary = layout.vocabulary
        self.frame = layout.drawn_frame
        self.grammar = Grammar(layout.vocabulary, self.frame, layout.text.size)

    @torch.inference_mode()
    def generate(
        self,
        documents: Sequence[Document],
        policies: Mapping[str, Policy],
        noise: Noise,
        *,
        max_images: int = 0,
        max_tokens: int = 64,
        device: torch.device | str = "cpu",
    ) -> list[Document]:
        """Fill the holes of each document, then let the model go on until it ends the document or the budget does.

        Args:
            documents: prompts in the wording of the system; images are encoded or holes.
            policies: "text" and "image" policies.
            noise: draws from probabilities.
            max_images: pictures per document that the model may begin of its own accord, holes not counted.
            max_tokens: positions per document after its last span, markers and those of pictures included.

        Returns:
            The documents with holes filled and generated spans appended (loss flags of generated spans are True).

        Raises:
            LayoutError: a prompt and its budget are longer than the backbone reaches.
            RecipeError: the policy weighs another number of guidance branches than the template has.
            VocabularyError: a word that the text tokenizer does not know.
        """
        samples = [self._start(document, max_images, max_tokens) for document in documents]
        branches = len(policies["image"].guidance_weights)
        longest = max(sum(len(piece) for piece in sample.pieces) for sample in samples)
        holes = max(len(sample.holes) for sample in samples)
        capacity = longest + (holes * self.frame.length() if holes else 0) + max_tokens
        if capacity > self.backbone.max_length:
            raise LayoutError(
                f"A prompt of {longest} tokens with what may follow it needs {capacity} positions, the backbone has "
                f"{self.backbone.max_length}: shorten the prompt or lower max_tokens."
            )
        cache = self.backbone.new_cache(len(samples) * (1 + branches), capacity)
        hidden: Tensor | None = None
        for index in range(len(samples)):
            self._read_piece(samples, index, cache, branches)
        while True:
            feed = [(index, sample.pending) for index, sample in enumerate(samples) if sample.pending]
            for branch in range(branches):
                start = (1 + branch) * len(samples)
                feed += [
                    (start + index, sample.pending_branches[branch])
                    for index, sample in enumerate(samples)
                    if sample.pending_branches
                ]
            if not feed:
                break
            hidden = self._advance(feed, cache, hidden, len(samples) * (1 + branches), device)
            for sample in samples:
                sample.history += [token[0] for token in sample.pending]
                sample.pending, sample.pending_branches = [], []
            self._draw_text(samples, hidden, policies["text"], noise, cache, branches)
            self._draw_codes(samples, hidden, policies["image"], noise, cache, branches)
        return [self._finish(sample) for sample in samples]

    def _start(self, document: Document, max_images: int, max_tokens: int) -> _Sample:
        holes = [i for i, span in enumerate(document.spans) if isinstance(span, ImageSpan) and span.is_hole]
        cuts = [0, *(hole + 1 for hole in holes), len(document.spans)]
        pieces = []
        for order, (first, last) in enumerate(pairwise(cuts)):
            if first == last:
                continue
            piece = replace(document, spans=document.spans[first:last], ends=False)
            tokens = _pair(self.layout.encode(piece))
            pieces.append(tokens if order == 0 else tokens[1:])
        return _Sample(document, RowState(max_tokens, max_images), pieces, holes)

    def _read_piece(self, samples: list[_Sample], index: int, cache, branches: int) -> None:
        """Queue the next piece of the prompt; if it ends in a hole, its picture begins."""
        sample = samples[index]
        sample.pending += sample.pieces.pop(0)
        if len(sample.filled) < len(sample.holes):
            self._begin_picture(samples, index, cache, branches, is_given=True)

    def _begin_picture(self, samples: list[_Sample], index: int, cache, branches: int, is_given: bool) -> None:
        sample = samples[index]
        self.grammar.begin_picture(sample.state, is_given)
        sample.in_hole, sample.picture = is_given, []
        if not branches:
            return
        so_far = self._document_so_far(sample)
        documents = self.guidance_branches(so_far, len(so_far.images) - 1)
        sample.is_guided = bool(documents)
        if not documents:
            return
        if len(documents) != branches:
            raise RecipeError(
                f"The image policy weighs {branches} guidance branches, the template has {len(documents)} for this picture: "
                "give the policy one weight per branch."
            )
        cache.reset(torch.tensor([(1 + branch) * len(samples) + index for branch in range(branches)]))
        sample.pending_branches = [_pair(self.layout.encode(document)) for document in documents]

    def _document_so_far(self, sample: _Sample) -> Document:
        """The document up to and including the picture that begins now."""
        if sample.in_hole:
            spans = self._filled_spans(sample)[: sample.holes[len(sample.filled)] + 1]
            return replace(sample.document, spans=tuple(spans), ends=False)
        written = self._decode_tail(sample)
        return replace(sample.document, spans=(*self._filled_spans(sample), *written.spans), ends=False)

    def _advance(self, feed, cache, hidden, num_rows: int, device):
        """One backbone call over ragged rows; returns the last hidden state of every row ever fed."""
        rows = torch.tensor([row for row, _ in feed])
        lengths = torch.tensor([len(run) for _, run in feed])
        tokens = np.full((len(feed), int(lengths.max()), 2 + self.layout.codes_per_position), -1, dtype=np.int64)
        tokens[:, :, 0] = self.vocabulary.specials["pad"]
        for line, (_, run) in enumerate(feed):
            tokens[line, : len(run)] = run
        layout = cache.append(rows, lengths)
        ids, cells, patches = (
            torch.from_numpy(part.copy()).to(device) for part in (tokens[..., 0], tokens[..., 1], tokens[..., 2:])
        )
        embeddings, side = self.read(ids, cells, patches)
        states = self.backbone(embeddings, layout, side=side, cache=cache)
        last = states[torch.arange(len(feed)), lengths - 1]
        if hidden is None:
            hidden = last.new_zeros(num_rows, last.shape[-1])
        hidden[rows.to(hidden.device)] = last
        return hidden

    def _draw_text(self, samples, hidden, policy: Policy, noise: Noise, cache, branches: int) -> None:
        writing = [i for i, sample in enumerate(samples) if not sample.state.done and sample.state.drawn is None]
        if not writing:
            return
        logits = self.logits(hidden[writing], self.grammar.text_segments)
        legal = torch.stack([self.grammar.legal_text(samples[i].state) for i in writing]).to(logits.device)
        history = [samples[i].history for i in writing] if policy.reads_history else None
        drawn = policy.draw(logits.float().masked_fill(~legal, -torch.inf), (), torch.tensor(writing), noise, history)
        specials = self.vocabulary.specials
        for index, token in zip(writing, drawn.tolist(), strict=True):
            sample = samples[index]
            sample.state.tokens_left -= 1
            begins = self.frame is not None and token == specials[self.frame.before[0].name]
            written = self._marks(self.frame.before) if begins else [self._mark(token)]
            sample.tail += written
            if token == specials["end_document"]:
                sample.state.done = True
                continue
            sample.pending = list(written)
            if begins:
                self._begin_picture(samples, index, cache, branches, is_given=False)

    def _draw_codes(self, samples, hidden, policy: Policy, noise: Noise, cache, branches: int) -> None:
        # a picture that has just begun has not been fed its begin marker yet: it draws in the next turn
        drawing = [i for i, sample in enumerate(samples) if sample.state.drawn is not None and not sample.pending]
        groups: dict[tuple[int, bool], list[int]] = {}
        for index in drawing:
            key = (self.grammar.code_segment(samples[index].state), branches > 0 and samples[index].is_guided)
            groups.setdefault(key, []).append(index)
        for (segment, is_guided), members in groups.items():
            offset = self.vocabulary.segments[segment].offset
            streams = [hidden[[start * len(samples) + i for i in members]] for start in range(1 + branches * is_guided)]

            def choose(
                streams: Sequence[Tensor], before: Tensor, members: list[int] = members, offset: int = offset
            ) -> Int[Tensor, "n"]:
                logits, *others = streams
                history = None
                if policy.reads_history:
                    placed = [[code - offset for patch in samples[i].picture for code in patch] for i in members]
                    history = [[*codes, *more] for codes, more in zip(placed, before.tolist(), strict=True)]
                return policy.draw(logits, others, torch.tensor(members), noise, history)

            drawn = self.image_head.draw(streams, segment, choose) + offset
            for index, patch in zip(members, drawn.tolist(), strict=True):
                self._place_patch(samples, index, patch, cache, branches)

    def _place_patch(self, samples: list[_Sample], index: int, patch: list[int], cache, branches: int) -> None:
        sample = samples[index]
        token = [patch[0], len(sample.picture), *patch]
        sample.picture.append(patch)
        sample.pending = [token]
        if not self.grammar.draw_position(sample.state):
            if branches and sample.is_guided:
                sample.pending_branches = [[token]] * branches
            return
        after = self._marks(self.frame.after)
        sample.pending += after
        if not sample.in_hole:
            sample.tail += [*([codes[0], place, *codes] for place, codes in enumerate(sample.picture)), *after]
            return
        sample.filled.append(np.array(sample.picture))
        if sample.pieces:
            self._read_piece(samples, index, cache, branches)

    def _marks(self, markers: Sequence[Marker]) -> list[Token]:
        return [self._mark(self.vocabulary.specials[marker.name]) for marker in markers]

    def _mark(self, id: int) -> Token:
        """A token that is no code."""
        return [id, -1] + [-1] * self.layout.codes_per_position

    def _filled_spans(self, sample: _Sample) -> list:
        spans = list(sample.document.spans)
        for hole, ids in zip(sample.holes, sample.filled, strict=False):
            spans[hole] = replace(spans[hole], **self.frame.decode(ids))
        return spans

    def _decode_tail(self, sample: _Sample) -> Document:
        tokens = np.array([self._mark(self.vocabulary.specials["begin_document"]), *sample.tail])
        ids, cells, patches = tokens[:, 0], tokens[:, 1], tokens[:, 2:]
        return self.layout.decode(
            Tokens(ids, patches, np.ones(len(ids), dtype=bool), cells, np.zeros(len(ids)), (), sample.document.id)
        )

    def _finish(self, sample: _Sample) -> Document:
        spans = self._filled_spans(sample)
        if len(sample.tail) > 1:
            spans += self._decode_tail(sample).spans
        if sample.state.drawn is not None or len(sample.filled) != len(sample.holes):
            raise LayoutError(f"Document {sample.document.id!r} ended inside a picture: this is a defect of the state machine.")
        return replace(sample.document, spans=tuple(spans), ends=True)


def _pair(tokens: Tokens) -> list[Token]:
    return np.concatenate([np.stack([tokens.ids, tokens.cells], axis=1), tokens.patches], axis=1).tolist()
