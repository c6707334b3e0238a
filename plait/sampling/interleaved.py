"""The batched state machine that writes interleaved documents: one loop for captions, pictures, answers, edits and stories.

Every sample has a row of the cache, and one more per guidance branch that starts when a picture starts and is forgotten when the next
one does. Rows advance by different amounts (prompt pieces, a position of a picture, one with its end marker and the next piece), in one
backbone call per turn. Only the legal slice of a head is computed. What stands at a position of a picture, one code or several, or whether
it is a picture as a whole, is its head's affair. A device is sent two things per turn, what is read and what is drawn where, and waited for
once, for what was drawn. Knows policies, heads and the cache protocol; knows no system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch

from plait.axes import Float, Int, Tensor
from plait.document import Document, ImageSpan
from plait.errors import LayoutError, RecipeError
from plait.images import to_pictures
from plait.protocols import Backbone, Head, Noise, Policy
from plait.records import Generation, Movable, Reading, Side, Turn
from plait.sampling.grammar import Grammar, RowState
from plait.sequence.batch import ImagePlace
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import Marker
from plait.sequence.layout import Tokens

Token = list[int]
"""[global id, place in its image or -1, global ids of the codes of its position or -1 each], see `SequenceBatch`"""


@dataclass
class _Run:
    """Tokens that follow each other, and where the pictures among them stand: (start, length, span)."""

    tokens: list[Token] = field(default_factory=list)
    images: list[tuple[int, int, ImageSpan]] = field(default_factory=list)

    @classmethod
    def of(cls, tokens: Tokens, first: int = 0) -> "_Run":
        """A laid-out document from its token `first` on."""
        flat = np.concatenate([np.stack([tokens.ids, tokens.cells], axis=1), tokens.patches], axis=1)[first:].tolist()
        return cls(flat, [(start - first, length, span) for start, length, span in tokens.images])

    def add(self, other: "_Run") -> None:
        """Go on with another run."""
        self.images += [(len(self.tokens) + start, length, span) for start, length, span in other.images]
        self.tokens += other.tokens


@dataclass
class _Sample:
    """A document being written: prompt pieces still to be read, pictures drawn into its holes (as fields of their spans), what follows the
    prompt, and every id that stands so far (`history`)."""

    document: Document
    state: RowState
    pieces: list[_Run]
    holes: list[int]
    filled: list[dict[str, object]] = field(default_factory=list)
    tail: _Run = field(default_factory=_Run)
    picture: list[list[int]] = field(default_factory=list)
    in_hole: bool = False
    is_guided: bool = False
    history: list[int] = field(default_factory=list)
    pending: _Run = field(default_factory=_Run)
    pending_branches: list[_Run] = field(default_factory=list)


@dataclass(frozen=True)
class _Call(Movable):
    """What a backbone call reads, the rows that it feeds and where in it their last tokens stand."""

    reading: Reading
    rows: Int[Tensor, "n"]
    last: Int[Tensor, "n"]


@dataclass(frozen=True)
class _Group(Movable):
    """Samples that draw from the same head and segments: its rows of the generation (see `Turn`), its samples, and for text which of the
    masks of the grammar holds for each."""

    rows: Int[Tensor, "k n"]
    samples: Int[Tensor, "n"]
    masks: Int[Tensor, "n"] | None
    segments: tuple[int, ...]
    members: list[int]


@dataclass(frozen=True)
class _Groups(Movable):
    """All that draw in a turn."""

    groups: tuple[_Group, ...]


class InterleavedSampler:
    """Completes documents.

    Args:
        backbone: see `plait.protocols.Backbone`.
        read: what is read -> (embeddings (b s d), side record).
        heads: loss term -> the head that its positions belong to.
        builder: documents <-> tokens.
        guidance_branches: of a picture, `Template.guidance_branches`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        read: Callable[[Reading], tuple[Float[Tensor, "b s d"], Side | None]],
        heads: Mapping[str, Head],
        builder: SequenceBuilder,
        guidance_branches: Callable[[Document, int], Sequence[Document]],
    ) -> None:
        self.backbone, self.read, self.heads = backbone, read, heads
        self.builder, self.layout, self.guidance_branches = builder, builder.layout, guidance_branches
        self.vocabulary = builder.vocabulary
        self.frame = self.layout.drawn_frame
        self.grammar = Grammar(self.vocabulary, self.frame, self.layout.text.size)

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
            RecipeError: the policy weighs another number of guidance branches than the template has, or logits are not finite.
            VocabularyError: a word that the text tokenizer does not know.
        """
        samples = [self._start(document, max_images, max_tokens) for document in documents]
        branches = len(policies["image"].guidance_weights)
        longest = max(sum(len(piece.tokens) for piece in sample.pieces) for sample in samples)
        holes = max(len(sample.holes) for sample in samples)
        capacity = longest + (holes * self.frame.length() if holes else 0) + max_tokens
        if capacity > self.backbone.max_length:
            raise LayoutError(
                f"A prompt of {longest} tokens with what may follow it needs {capacity} positions, the backbone has "
                f"{self.backbone.max_length}: shorten the prompt or lower max_tokens."
            )
        num_rows = len(samples) * (1 + branches)
        cache = self.backbone.new_cache(num_rows, capacity)
        generation = Generation(cache, torch.zeros(num_rows, self.backbone.width, device=device))
        masks = self.grammar.masks.to(device)
        for index in range(len(samples)):
            self._read_piece(samples, index, cache, branches)
        while True:
            feed = [(index, sample.pending) for index, sample in enumerate(samples) if sample.pending.tokens]
            for branch in range(branches):
                start = (1 + branch) * len(samples)
                feed += [
                    (start + index, sample.pending_branches[branch])
                    for index, sample in enumerate(samples)
                    if sample.pending_branches
                ]
            if not feed:
                break
            self._advance(feed, generation, device)
            for sample in samples:
                sample.history += [token[0] for token in sample.pending.tokens]
                sample.pending, sample.pending_branches = _Run(), []
            self._draw(samples, generation, policies, noise, masks, branches)
        return [self._finish(sample) for sample in samples]

    def _start(self, document: Document, max_images: int, max_tokens: int) -> _Sample:
        holes = [i for i, span in enumerate(document.spans) if isinstance(span, ImageSpan) and span.is_hole]
        cuts = [0, *(hole + 1 for hole in holes), len(document.spans)]
        pieces = []
        for order, (first, last) in enumerate(pairwise(cuts)):
            if first < last:
                piece = replace(document, spans=document.spans[first:last], ends=False)
                # the first piece alone begins the document
                pieces.append(_Run.of(self.layout.encode(piece), first=int(order > 0)))
        return _Sample(document, RowState(max_tokens, max_images), pieces, holes)

    def _read_piece(self, samples: list[_Sample], index: int, cache, branches: int) -> None:
        """Queue the next piece of the prompt; if it ends in a hole, its picture begins."""
        sample = samples[index]
        sample.pending.add(sample.pieces.pop(0))
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
        sample.pending_branches = [_Run.of(self.layout.encode(document)) for document in documents]

    def _document_so_far(self, sample: _Sample) -> Document:
        """The document up to and including the picture that begins now."""
        if sample.in_hole:
            spans = self._filled_spans(sample)[: sample.holes[len(sample.filled)] + 1]
            return replace(sample.document, spans=tuple(spans), ends=False)
        written = self._decode_tail(sample)
        return replace(sample.document, spans=(*self._filled_spans(sample), *written.spans), ends=False)

    def _advance(self, feed: list[tuple[int, _Run]], generation: Generation, device: torch.device | str) -> None:
        """One backbone call over ragged rows."""
        rows = torch.tensor([row for row, _ in feed])
        lengths = torch.tensor([len(run.tokens) for _, run in feed])
        longest = int(lengths.max())
        tokens = np.full((len(feed), longest, 2 + self.layout.codes_per_position), -1, dtype=np.int64)
        tokens[:, :, 0] = self.vocabulary.specials["pad"]
        images = []
        for line, (_, run) in enumerate(feed):
            tokens[line, : len(run.tokens)] = run.tokens
            images += [ImagePlace(line, *image) for image in run.images]
        parts = (np.ascontiguousarray(part) for part in (tokens[..., 0], tokens[..., 1], tokens[..., 2:]))
        reading = self.builder.place(*parts, images)
        layout = generation.cache.append(rows, lengths)
        call = _Call(reading, rows, torch.arange(len(feed)) * longest + lengths - 1).to(device)
        embeddings, side = self.read(call.reading)
        states = self.backbone(embeddings, layout, side=side, cache=generation.cache)
        last = states.flatten(0, 1).index_select(0, call.last)
        generation.last = generation.last.to(last.dtype).index_copy(0, call.rows, last)
        for head in dict.fromkeys(self.heads.values()):
            head.observe(generation, call.rows, states, layout)

    def _draw(self, samples, generation: Generation, policies, noise: Noise, masks: Tensor, branches: int) -> None:
        """What stands next, in every row that is not at its end."""
        modes: dict[tuple[str, tuple[int, ...], bool], list[int]] = {}
        for index, sample in enumerate(samples):
            if sample.state.drawn is not None:
                mode = (self.frame.head, self.grammar.content_segments(sample.state), branches > 0 and sample.is_guided)
            elif not sample.state.done:
                mode = ("text", self.grammar.text_segments, False)
            else:
                continue
            modes.setdefault(mode, []).append(index)
        groups = []
        for (term, segments, is_guided), members in modes.items():
            rows = [[start * len(samples) + i for i in members] for start in range(1 + branches * is_guided)]
            kinds = [self.grammar.legal_text(samples[i].state) for i in members] if term == "text" else None
            groups.append(
                _Group(
                    torch.tensor(rows), torch.tensor(members), None if kinds is None else torch.tensor(kinds), segments, members
                )
            )
        sent = _Groups(tuple(groups)).to(generation.last.device).groups
        drawn = []
        for (term, *_), group in zip(modes, sent, strict=True):
            policy = policies["text" if term == "text" else "image"]
            choose = self._choose(samples, group, policy, noise, masks, term)
            drawn.append(self.heads[term].step(generation, Turn(group.rows, group.segments, choose)))
        ids = [made for made in drawn if not made.is_floating_point()]
        # the one wait of a turn
        fetched = iter(torch.cat([made.flatten() for made in ids]).tolist() if ids else [])
        for (term, segments, _), group, made in zip(modes, groups, drawn, strict=True):
            if made.is_floating_point():
                for index, picture in zip(group.members, to_pictures(made), strict=True):
                    self._place_picture(samples, index, np.asarray(picture), generation.cache, branches)
                continue
            for index in group.members:
                local = [next(fetched) for _ in range(made.shape[1])]
                if min(local) < 0:
                    raise RecipeError(
                        "The model's logits are not finite, expected numbers to draw from: its weights are damaged, or the guidance is "
                        "too strong for them. Next: lower the guidance, or open another checkpoint."
                    )
                if term == "text":
                    self._place_token(samples, index, local[0], generation.cache, branches)
                else:
                    offset = self.vocabulary.segments[segments[0]].offset
                    self._place_patch(samples, index, [code + offset for code in local], generation.cache, branches)

    def _choose(self, samples, group: _Group, policy: Policy, noise: Noise, masks: Tensor, term: str):
        """How one id is drawn for each member of a group (see `plait.records.Choose`)."""
        offset = self.vocabulary.segments[group.segments[0]].offset if group.segments else 0

        def choose(streams: Sequence[Tensor], before: Tensor) -> Int[Tensor, "n"]:
            logits, *others = streams
            if group.masks is not None:
                logits = logits.float().masked_fill(~masks.index_select(0, group.masks), -torch.inf)
            history = None
            if policy.reads_history and term == "text":
                history = [samples[i].history for i in group.members]
            elif policy.reads_history:
                placed = [[code - offset for patch in samples[i].picture for code in patch] for i in group.members]
                history = [[*codes, *more] for codes, more in zip(placed, before.tolist(), strict=True)]
            return policy.draw(logits, others, group.samples, noise, history)

        return choose

    def _place_token(self, samples: list[_Sample], index: int, token: int, cache, branches: int) -> None:
        sample, specials = samples[index], self.vocabulary.specials
        sample.state.tokens_left -= 1
        begins = self.frame is not None and token == specials[self.frame.before[0].name]
        written = self._mark(self.frame.before) if begins else _Run([self._token(token)])
        sample.tail.add(written)
        if token == specials["end_document"]:
            sample.state.done = True
            return
        sample.pending.add(written)
        if begins:
            self._begin_picture(samples, index, cache, branches, is_given=False)

    def _place_patch(self, samples: list[_Sample], index: int, patch: list[int], cache, branches: int) -> None:
        sample = samples[index]
        token = [patch[0], len(sample.picture), *patch]
        sample.picture.append(patch)
        sample.pending.add(_Run([token]))
        if self.grammar.draw_position(sample.state):
            whole = _Run([[codes[0], place, *codes] for place, codes in enumerate(sample.picture)])
            self._end_picture(samples, index, whole, self.frame.decode(np.array(sample.picture), None), cache, branches)
        elif branches and sample.is_guided:
            sample.pending_branches = [_Run([token]) for _ in range(branches)]

    def _place_picture(self, samples: list[_Sample], index: int, pixels: np.ndarray, cache, branches: int) -> None:
        """A picture that a head has finished re-enters as its frame says."""
        sample = samples[index]
        span = ImageSpan(f"{sample.document.id}/drawn", True, True, self.frame.form, pixels=pixels)
        pad, nothing = self.vocabulary.specials["pad"], [-1] * self.layout.codes_per_position
        places = [[pad, place, *nothing] for place in range(self.frame.positions)]
        whole = _Run(places, [(0, len(places), span)])
        self.grammar.end_picture(sample.state)
        sample.pending.add(whole)
        self._end_picture(samples, index, whole, {"pixels": pixels}, cache, branches)

    def _end_picture(
        self, samples: list[_Sample], index: int, whole: _Run, content: dict[str, object], cache, branches: int
    ) -> None:
        sample, after = samples[index], self._mark(self.frame.after)
        sample.pending.add(after)
        if not sample.in_hole:
            sample.tail.add(whole)
            sample.tail.add(after)
            return
        sample.filled.append(content)
        if sample.pieces:
            self._read_piece(samples, index, cache, branches)

    def _mark(self, markers: Sequence[Marker]) -> _Run:
        return _Run([self._token(self.vocabulary.specials[marker.name]) for marker in markers])

    def _token(self, id: int) -> Token:
        """A token that is no code."""
        return [id, -1] + [-1] * self.layout.codes_per_position

    def _filled_spans(self, sample: _Sample) -> list:
        spans = list(sample.document.spans)
        for hole, content in zip(sample.holes, sample.filled, strict=False):
            spans[hole] = replace(spans[hole], **content)
        return spans

    def _decode_tail(self, sample: _Sample) -> Document:
        run = _Run([self._token(self.vocabulary.specials["begin_document"])])
        run.add(sample.tail)
        tokens = np.array(run.tokens)
        ids, cells, patches = tokens[:, 0], tokens[:, 1], tokens[:, 2:]
        return self.layout.decode(
            Tokens(ids, patches, np.ones(len(ids), bool), cells, np.zeros(len(ids)), tuple(run.images), sample.document.id)
        )

    def _finish(self, sample: _Sample) -> Document:
        spans = self._filled_spans(sample)
        if len(sample.tail.tokens) > 1:
            spans += self._decode_tail(sample).spans
        if sample.state.drawn is not None or len(sample.filled) != len(sample.holes):
            raise LayoutError(f"Document {sample.document.id!r} ended inside a picture: this is a defect of the state machine.")
        return replace(sample.document, spans=tuple(spans), ends=True)
