"""One document as a run of tokens: markers, text ids, positions of pictures, which of them carry loss, and the exact inverse.

    begin_document  { text ids | a picture in its frame }  end_document

What a picture is in a sequence is the affair of its frame (`plait.sequence.frames`). The markers after a picture carry loss if the picture
does, those before it if `begin_loss` says so, the end of the document if the last span does (Liquid: specs section 4, formats a to f). A
hole (a picture still to be drawn) is the markers before it and nothing more.
Knows ids through the vocabulary only and never shifts them: a loss flag sits on the token that must be predicted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np

from plait.document import Document, ImageSpan, Span, TextSpan
from plait.errors import LayoutError, MarkerError, VocabularyError
from plait.protocols import TextTokenizer
from plait.sequence.batch import TERMS
from plait.sequence.frames import Frame, Marker, by_form
from plait.sequence.markers import WRITTEN, match_any
from plait.sequence.vocabulary import Vocabulary

_MARKERS = re.compile(f"({'|'.join(WRITTEN)})")


@dataclass(frozen=True)
class Tokens:
    """A laid-out document.

    Args:
        ids: global ids; of a position that holds several codes, that of the first.
        patches: (s f) global ids of the codes at each position; -1 where there is no code.
        loss: per token, whether it must be predicted.
        cells: per token of an image, its place in that image (raster order, level after level; each tile counts for itself); -1 for
            every other token.
        owners: per token, the index into TERMS of the term (and head) that its prediction belongs to.
        images: (start, length, span) of the content of each image.
        document_id: the id of the document.
    """

    ids: np.ndarray
    patches: np.ndarray
    loss: np.ndarray
    cells: np.ndarray
    owners: np.ndarray
    images: tuple[tuple[int, int, ImageSpan], ...]
    document_id: str = ""

    def __len__(self) -> int:
        return len(self.ids)


class DocumentLayout:
    """Documents <-> tokens.

    Args:
        vocabulary: the id space.
        text: the text tokenizer.
        frames: what a picture is, one per form in which pictures stand here.
        marks: strings in texts that are markers of the wording (`Template.marks`); an id that is special to the text tokenizer and written
            by none of them is refused.

    Raises:
        LayoutError: two frames of one form.
        VocabularyError: a frame has a marker that the vocabulary lacks.
    """

    def __init__(
        self, vocabulary: Vocabulary, text: TextTokenizer, frames: Sequence[Frame] = (), marks: Sequence[str] = ()
    ) -> None:
        self.vocabulary, self.text = vocabulary, text
        self.marks, self._mark_pattern = tuple(marks), match_any(marks)
        self.frames = by_form(frames)
        missing = {marker.name for frame in frames for marker in (*frame.before, *frame.after)} - set(vocabulary.specials)
        if missing:
            raise VocabularyError(
                f"The frames of pictures have the markers {sorted(missing)}, the vocabulary has {sorted(vocabulary.specials)}: name them "
                "when the vocabulary is made (`further`)."
            )
        self.codes_per_position = max((frame.codes_per_position for frame in frames), default=0) or 1
        self._text_ids: dict[str, np.ndarray] = {}

    @property
    def drawn_frame(self) -> Frame | None:
        """Of the pictures that are drawn: codes, or pictures that a head finishes as a whole. None: nothing is drawn."""
        features = self.frames.get("features")
        return self.frames.get("codes") or (features if features and features.target == "picture" else None)

    def encode_text(self, text: str) -> np.ndarray:
        """Ids of one text span; the strings of `WRITTEN` are those markers (cached: captions and instructions repeat).

        Raises:
            VocabularyError: a word is unknown.
            MarkerError: a text holds a marker of the text tokenizer that the wording did not write.
        """
        ids = self._text_ids.get(text)
        if ids is None:
            joined: list[int] = []
            for part in _MARKERS.split(text):
                if part in WRITTEN:
                    joined.append(self.vocabulary.specials[WRITTEN[part]])
                elif part:
                    joined += self._encode_part(part)
            ids = np.asarray(joined, dtype=np.int64)
            if len(self._text_ids) < 200_000:
                self._text_ids[text] = ids
        return ids

    def _encode_part(self, part: str) -> list[int]:
        """Ids of a text without markers of `WRITTEN`; special ids are those of the wording's markers, in their order, and no others."""
        ids = self.text.encode(part)
        found = [index for index in ids if index in self.text.special_ids]
        if found:
            worded = [self._mark_ids[mark] for mark in self._mark_pattern.findall(part) if mark in self._mark_ids]
            if found != worded:
                typed = next((one for one, other in zip_longest(found, worded) if one is not None and one != other), found[0])
                raise MarkerError(
                    f"{part[:200]!r} holds {self.text.decode([typed])!r}, which is a marker of the text tokenizer (id {typed}) and no "
                    "text, expected words. Next: reword it; markers of the wording are the template's to write."
                )
        return ids

    def encode(self, document: Document) -> Tokens:
        """Lay out one document.

        Raises:
            LayoutError: a text is empty, an image has no form or one that this system has no frame for, a hole is not the last span, or a
                frame refuses its picture.
            VocabularyError: a word or code is unknown.
            MarkerError: a text holds a marker that no wording wrote. All name document and span.
        """
        runs = [_Run.of([self.vocabulary.specials["begin_document"]], False)]
        images: list[tuple[int, int, ImageSpan]] = []
        position, last = 1, document.spans[-1]
        for index, span in enumerate(document.spans):
            try:
                if isinstance(span, TextSpan):
                    added = [self._encode_text_span(span)]
                else:
                    added = self._encode_image(span, is_last=index == len(document.spans) - 1)
            except (LayoutError, VocabularyError, MarkerError) as error:
                raise type(error)(f"Document {document.id!r}, span {index}: {error}") from error
            if len(added) == 3:
                images.append((position + len(added[0].ids), len(added[1].ids), span))
            runs += added
            position += sum(len(run.ids) for run in added)
        if document.ends and not (isinstance(last, ImageSpan) and last.is_hole):
            runs.append(_Run.of([self.vocabulary.specials["end_document"]], last.loss))
        patches = np.full((sum(len(run.ids) for run in runs), self.codes_per_position), -1, dtype=np.int64)
        start = 0
        for run in runs:
            if run.codes is not None and run.codes.shape[1]:
                patches[start : start + len(run.ids)] = run.codes
            start += len(run.ids)
        ids, loss, cells, owners = (np.concatenate(each) for each in zip(*(run.flat for run in runs), strict=True))
        return Tokens(ids, patches, loss, cells, owners, tuple(images), document.id)

    def _encode_text_span(self, span: TextSpan) -> "_Run":
        ids = self.encode_text(span.text)
        if not len(ids):
            raise LayoutError(f"The text {span.text!r} has 0 tokens, expected at least 1. Write something or leave it out.")
        return _Run.of(ids, span.loss)

    def _encode_image(self, span: ImageSpan, is_last: bool) -> "list[_Run]":
        """The markers before a picture, its content, the markers after it; of a hole the first alone."""
        frame = self.frames.get(span.form)
        if frame is None:
            forms = " or ".join(map(repr, self.frames)) or "no pictures"
            raise LayoutError(
                f"Image {span.image_id!r} has form {span.form!r}, expected {forms}. "
                + (
                    "A template sets the form: wrap the document first."
                    if span.form is None
                    else "Use a template that sets it."
                )
            )
        before = self._put(frame.before, span.begin_loss)
        if span.is_hole:
            if not is_last:
                raise LayoutError(
                    f"Image {span.image_id!r} has no {'codes' if span.form == 'codes' else 'pixels'} and is not the last span, expected "
                    "them. Encode it first, or let `generate` draw it."
                )
            return [before]
        codes = frame.encode(span)
        has_loss = span.loss and frame.target == "positions"
        if has_loss and span.form == "features":
            raise LayoutError(
                f"Image {span.image_id!r} carries loss and has form 'features', expected 'codes': the next of several features has no "
                "probability. A template asks for the form of what is drawn."
            )
        ids = codes[:, 0] if codes.shape[1] else np.full(len(codes), self.vocabulary.specials["pad"])
        cells = np.arange(len(codes)) % frame.positions
        content = _Run(ids, np.full(len(ids), has_loss), cells, np.full(len(ids), TERMS.index(frame.head)), codes)
        return [before, content, self._put(frame.after, span.loss)]

    def _put(self, markers: Sequence[Marker], loss: bool) -> "_Run":
        ids = [self.vocabulary.specials[marker.name] for marker in markers]
        return _Run.of(ids, loss, [TERMS.index(marker.head) for marker in markers])

    def decode(self, tokens: Tokens) -> Document:
        """The exact inverse of `encode`, text in the tokenizer's normal form and neighbouring text spans of equal loss merged.

        Image ids come from `tokens.images` (in order); images beyond them (drawn ones) are named "<document id>/drawn-<n>".

        Raises:
            LayoutError: the tokens break the grammar (no begin marker, an image cut short, a code outside an image ...).
        """
        specials = self.vocabulary.specials
        ids, loss = tokens.ids, tokens.loss
        where = f"Document {tokens.document_id!r}"
        if len(ids) == 0 or ids[0] != specials["begin_document"]:
            raise LayoutError(f"{where} does not start with the begin_document id {specials['begin_document']}.")
        spans: list[Span] = []
        text_stop = self.vocabulary.segments[0].stop
        position, stop = 1, len(ids)
        ends = bool(ids[-1] == specials["end_document"]) and stop > 1
        stop -= int(ends)
        begins = {specials[frame.before[0].name] for frame in self.frames.values()}
        while position < stop:
            if ids[position] in begins:
                span, position = self._decode_image(tokens, position, stop, len([s for s in spans if isinstance(s, ImageSpan)]))
                spans.append(span)
                continue
            start = position
            while position < stop and ids[position] not in begins and loss[position] == loss[start]:
                if ids[position] >= text_stop and ids[position] != specials["unconditional"]:
                    raise LayoutError(
                        f"{where}: id {ids[position]} at position {position} is no text and stands outside an image."
                    )
                position += 1
            spans.append(TextSpan(self._decode_text(ids[start:position]), bool(loss[start])))
        if ends and loss[-1] != spans[-1].loss:
            raise LayoutError(f"{where}: the loss flag of its end marker differs from that of its last span.")
        return Document(tuple(spans), id=tokens.document_id, ends=ends)

    @cached_property
    def _mark_ids(self) -> dict[str, int]:
        """The marks that are special to the text tokenizer; others are text to it, or no words that it knows."""
        return {mark: index for mark in self.marks if (index := _find_special(self.text, mark)) is not None}

    @cached_property
    def _foreign(self) -> dict[int, str]:
        """Ids of written markers that the tokenizer itself would write in another way or not at all; the others are left to it."""
        specials, stop = self.vocabulary.specials, self.vocabulary.segments[0].stop
        ids = {specials[name]: literal for literal, name in WRITTEN.items()}
        return {id: literal for id, literal in ids.items() if id >= stop or self.text.decode([id]) != literal}

    def _decode_text(self, ids: np.ndarray) -> str:
        parts: list[str] = []
        for run in np.split(ids, np.flatnonzero(np.isin(ids, list(self._foreign)))):
            if len(run) and run[0] in self._foreign:
                parts.append(self._foreign[run[0]])
                run = run[1:]
            parts.append(self.text.decode(run.tolist()))
        return " ".join(part for part in parts if part)

    def _decode_image(self, tokens: Tokens, position: int, stop: int, index: int) -> tuple[ImageSpan, int]:
        """The picture whose first marker stands at `position`, and where what follows it begins. What is known of it (its form, its tiles,
        the pixels behind features) is known from the span that it was laid out from; a drawn one is one tile of the drawn frame."""
        ids, loss, specials = tokens.ids, tokens.loss, self.vocabulary.specials
        starts = {start - len(self.frames[span.form].before): (length, span) for start, length, span in tokens.images}
        length, known = starts.get(position, (None, None))
        frame = self.frames[known.form] if known else self.drawn_frame
        image_id = known.image_id if known else f"{tokens.document_id}/drawn-{index}"
        length = frame.positions if length is None else length
        first = position + len(frame.before)
        begin_loss = bool(loss[position])
        if first == stop:
            return ImageSpan(image_id, loss=begin_loss, begin_loss=begin_loss, form=frame.form), first
        end, where = first + length, f"Document {tokens.document_id!r}"
        around = [specials[marker.name] for marker in (*frame.before, *frame.after)]
        if end + len(frame.after) > stop or [*ids[position:first], *ids[end : end + len(frame.after)]] != around:
            raise LayoutError(
                f"{where}: the image at position {position} is not followed by {length} positions and the markers "
                f"{[marker.name for marker in frame.after]}."
            )
        held = tokens.patches[first:end, 0] if frame.codes_per_position else specials["pad"]
        if not np.array_equal(ids[first:end], np.broadcast_to(held, length)):
            raise LayoutError(
                f"{where}, image {image_id!r}: the ids {ids[first:end][:8]} ... are not all codes or places of features."
            )
        try:
            content = frame.decode(tokens.patches[first:end], known)
        except LayoutError as error:
            raise LayoutError(f"{where}, image {image_id!r}: {error}") from error
        has_loss = bool(loss[first]) if frame.target == "positions" else bool(known and known.loss)
        return ImageSpan(image_id, has_loss, begin_loss, frame.form, **content), end + len(frame.after)


@dataclass(frozen=True)
class _Run:
    """A few tokens in a row (see `Tokens`)."""

    ids: np.ndarray
    loss: np.ndarray
    cells: np.ndarray
    owners: np.ndarray
    codes: np.ndarray | None = None

    @classmethod
    def of(cls, ids: Sequence[int] | np.ndarray, loss: bool, owners: Sequence[int] | None = None) -> "_Run":
        """Tokens that are no content of a picture; text's, unless said otherwise."""
        count = len(ids)
        owner = np.zeros(count, dtype=np.int64) if owners is None else np.asarray(owners, dtype=np.int64)
        return cls(np.asarray(ids, dtype=np.int64), np.full(count, loss), np.full(count, -1), owner)

    @property
    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What is one number per token."""
        return self.ids, self.loss, self.cells, self.owners


def _find_special(text: TextTokenizer, mark: str) -> int | None:
    """The special id that a marker has in a text tokenizer; None where it is text to it, or no word that it knows."""
    try:
        ids = text.encode(mark)
    except VocabularyError:
        return None
    return ids[0] if len(ids) == 1 and ids[0] in text.special_ids else None
