"""The batched state machine that writes interleaved documents: one loop for captions, pictures, answers, edits and stories.

Every sample has a row of the cache, and a second one for guidance that starts when a picture starts and is forgotten when the next
one does. Rows advance by different amounts (prompt pieces, a code, a code with its end marker and the next piece), in one backbone
call per turn. Only the legal slice of the head is computed. Knows policies, heads and the cache protocol; knows no system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from plait.axes import Float, Int, Tensor
from plait.document import Document, ImageSpan
from plait.errors import LayoutError
from plait.protocols import Backbone, Noise, Policy
from plait.sampling.grammar import Grammar, RowState
from plait.sequence.layout import DocumentLayout, Tokens

Token = list[int]
"""[global id, place in its image or -1], see `SequenceBatch.cells`"""


@dataclass
class _Sample:
    """A document being written: prompt pieces still to be read, pictures drawn into its holes, and what follows the prompt."""

    document: Document
    state: RowState
    pieces: list[list[Token]]
    holes: list[int]
    filled: list[np.ndarray] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    picture: list[int] = field(default_factory=list)
    in_hole: bool = False
    guided: bool = False
    pending: list[Token] = field(default_factory=list)
    pending_unconditional: list[Token] = field(default_factory=list)


class InterleavedSampler:
    """Completes documents.

    Args:
        backbone: see `plait.protocols.Backbone`.
        embed: (ids (b s), cells (b s)) -> embeddings (b s d).
        logits: (hidden (n d), segment indices) -> logits of those segments side by side.
        layout: how documents become tokens.
        unconditional: the guidance branch of a picture, `Template.unconditional`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        embed: Callable[[Int[Tensor, "b s"], Int[Tensor, "b s"]], Float[Tensor, "b s d"]],
        logits: Callable[[Float[Tensor, "n d"], Sequence[int]], Float[Tensor, "n v"]],
        layout: DocumentLayout,
        unconditional: Callable[[Document, int], Document | None],
    ) -> None:
        self.backbone, self.embed, self.logits = backbone, embed, logits
        self.layout, self.unconditional = layout, unconditional
        self.vocabulary = layout.vocabulary
        self.grammar = Grammar(layout.vocabulary, layout.grid_shapes, layout.text.size)

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
            max_tokens: tokens per document after its last span, markers and codes included.

        Returns:
            The documents with holes filled and generated spans appended (loss flags of generated spans are True).

        Raises:
            LayoutError: a prompt and its budget are longer than the backbone reaches.
            VocabularyError: a word that the text tokenizer does not know.
        """
        samples = [self._start(document, max_images, max_tokens) for document in documents]
        guidance = policies["image"].guidance != 1.0
        longest = max(sum(len(piece) for piece in sample.pieces) for sample in samples)
        holes = max(len(sample.holes) for sample in samples)
        capacity = longest + holes * (self.grammar.num_codes + 1) + max_tokens
        if capacity > self.backbone.max_length:
            raise LayoutError(
                f"A prompt of {longest} tokens with what may follow it needs {capacity} positions, the backbone has "
                f"{self.backbone.max_length}: shorten the prompt or lower max_tokens."
            )
        cache = self.backbone.new_cache(len(samples) * (2 if guidance else 1), capacity)
        hidden: Tensor | None = None
        for index in range(len(samples)):
            self._read_piece(samples, index, cache, guidance)
        while True:
            feed = [(index, sample.pending) for index, sample in enumerate(samples) if sample.pending]
            feed += [
                (len(samples) + index, sample.pending_unconditional)
                for index, sample in enumerate(samples)
                if sample.pending_unconditional
            ]
            if not feed:
                break
            hidden = self._advance(feed, cache, hidden, len(samples), guidance, device)
            for sample in samples:
                sample.pending, sample.pending_unconditional = [], []
            self._draw_text(samples, hidden, policies["text"], noise, cache, guidance)
            self._draw_codes(samples, hidden, policies["image"], noise, cache, guidance)
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

    def _read_piece(self, samples: list[_Sample], index: int, cache, guidance: bool) -> None:
        """Queue the next piece of the prompt; if it ends in a hole, its picture begins."""
        sample = samples[index]
        sample.pending += sample.pieces.pop(0)
        if len(sample.filled) < len(sample.holes):
            self._begin_picture(samples, index, cache, guidance, is_given=True)

    def _begin_picture(self, samples: list[_Sample], index: int, cache, guidance: bool, is_given: bool) -> None:
        sample = samples[index]
        self.grammar.begin_picture(sample.state, is_given)
        sample.in_hole, sample.picture = is_given, []
        if not guidance:
            return
        so_far = self._document_so_far(sample)
        branch = self.unconditional(so_far, len(so_far.images) - 1)
        sample.guided = branch is not None
        if branch is not None:
            row = len(samples) + index
            cache.reset(torch.tensor([row]))
            sample.pending_unconditional = _pair(self.layout.encode(branch))

    def _document_so_far(self, sample: _Sample) -> Document:
        """The document up to and including the picture that begins now."""
        if sample.in_hole:
            spans = self._filled_spans(sample)[: sample.holes[len(sample.filled)] + 1]
            return replace(sample.document, spans=tuple(spans), ends=False)
        written = self._decode_tail(sample)
        return replace(sample.document, spans=(*self._filled_spans(sample), *written.spans), ends=False)

    def _advance(self, feed, cache, hidden, num_samples: int, guidance: bool, device):
        """One backbone call over ragged rows; returns the last hidden state of every row ever fed."""
        rows = torch.tensor([row for row, _ in feed])
        lengths = torch.tensor([len(run) for _, run in feed])
        tokens = np.empty((2, len(feed), int(lengths.max())), dtype=np.int64)
        tokens[0], tokens[1] = self.vocabulary.specials["pad"], -1
        for line, (_, run) in enumerate(feed):
            tokens[:, line, : len(run)] = np.transpose(run)
        layout = cache.append(rows, lengths)
        ids, cells = torch.from_numpy(tokens).to(device)
        states = self.backbone(self.embed(ids, cells), layout, cache=cache)
        last = states[torch.arange(len(feed)), lengths - 1]
        if hidden is None:
            hidden = last.new_zeros(num_samples * (2 if guidance else 1), last.shape[-1])
        hidden[rows.to(hidden.device)] = last
        return hidden

    def _draw_text(self, samples, hidden, policy: Policy, noise: Noise, cache, guidance: bool) -> None:
        writing = [i for i, sample in enumerate(samples) if not sample.state.done and sample.state.codes_drawn is None]
        if not writing:
            return
        logits = self.logits(hidden[writing], self.grammar.text_segments)
        legal = torch.stack([self.grammar.legal_text(samples[i].state) for i in writing]).to(logits.device)
        drawn = policy.draw(logits.float().masked_fill(~legal, -torch.inf), None, torch.tensor(writing), noise)
        specials = self.vocabulary.specials
        for index, token in zip(writing, drawn.tolist(), strict=True):
            sample = samples[index]
            sample.tail.append(token)
            sample.state.tokens_left -= 1
            if token == specials["end_document"]:
                sample.state.done = True
                continue
            sample.pending = [[token, -1]]
            if token == specials["begin_image"]:
                self._begin_picture(samples, index, cache, guidance, is_given=False)

    def _draw_codes(self, samples, hidden, policy: Policy, noise: Noise, cache, guidance: bool) -> None:
        # a picture that has just begun has not been fed its begin marker yet: it draws in the next turn
        drawing = [i for i, sample in enumerate(samples) if sample.state.codes_drawn is not None and not sample.pending]
        groups: dict[tuple[int, bool], list[int]] = {}
        for index in drawing:
            key = (self.grammar.code_segment(samples[index].state), guidance and samples[index].guided)
            groups.setdefault(key, []).append(index)
        for (segment, is_guided), members in groups.items():
            logits = self.logits(hidden[members], [segment])
            other = self.logits(hidden[[len(samples) + i for i in members]], [segment]) if is_guided else None
            drawn = policy.draw(logits, other, torch.tensor(members), noise)
            offset = self.vocabulary.segments[segment].offset
            for index, code in zip(members, (drawn + offset).tolist(), strict=True):
                self._place_code(samples, index, code, cache, guidance)

    def _place_code(self, samples: list[_Sample], index: int, code: int, cache, guidance: bool) -> None:
        sample = samples[index]
        token = [code, len(sample.picture)]
        sample.picture.append(code)
        sample.pending = [token]
        if not self.grammar.draw_code(sample.state):
            if guidance and sample.guided:
                sample.pending_unconditional = [token]
            return
        sample.pending.append([self.vocabulary.specials["end_image"], -1])
        if not sample.in_hole:
            sample.tail += [*sample.picture, self.vocabulary.specials["end_image"]]
            return
        sample.filled.append(np.array(sample.picture))
        if sample.pieces:
            self._read_piece(samples, index, cache, guidance)

    def _filled_spans(self, sample: _Sample) -> list:
        spans = list(sample.document.spans)
        for hole, ids in zip(sample.holes, sample.filled, strict=False):
            spans[hole] = replace(spans[hole], codes=self.layout.decode_codes(ids))
        return spans

    def _decode_tail(self, sample: _Sample) -> Document:
        begin = self.vocabulary.specials["begin_document"]
        ids = np.array([begin, *sample.tail])
        return self.layout.decode(Tokens(ids, np.ones(len(ids), dtype=bool), (), sample.document.id))

    def _finish(self, sample: _Sample) -> Document:
        spans = self._filled_spans(sample)
        if len(sample.tail) > 1:
            spans += self._decode_tail(sample).spans
        if sample.state.codes_drawn is not None or len(sample.filled) != len(sample.holes):
            raise LayoutError(f"Document {sample.document.id!r} ended inside a picture: this is a defect of the state machine.")
        return replace(sample.document, spans=tuple(spans), ends=True)


def _pair(tokens: Tokens) -> list[Token]:
    return np.stack([tokens.ids, tokens.cells], axis=1).tolist()
