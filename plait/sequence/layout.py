"""One document as a run of tokens: markers, text ids, image codes, which of them carry loss, and the exact inverse.

    begin_document  { text ids | begin_image  codes (raster order, level after level)  end_image }  end_document

The end marker of an image carries loss if the image does, the begin marker if `begin_loss` says so, the end of the document if the
last span does (Liquid: specs section 4, formats a to f). A hole (a picture still to be drawn) is its begin marker and nothing more.
Knows ids through the vocabulary only and never shifts them: a loss flag sits on the token that must be predicted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from plait.document import Document, ImageSpan, Span, TextSpan
from plait.errors import LayoutError, VocabularyError
from plait.protocols import TextTokenizer
from plait.sequence.vocabulary import Vocabulary

UNCONDITIONAL, BEGIN_IMAGE, END_IMAGE, END = "<unconditional>", "<boi>", "<eoi>", "<eos>"
"""How markers are written in the text of a document, whatever the text tokenizer calls them (Liquid: specs section 4). An end inside a
document stands after every answer of a released dialogue. Those of images belong to prompts only: a begin marker in a text is no
image, and such a document cannot be read back."""
WRITTEN = {UNCONDITIONAL: "unconditional", BEGIN_IMAGE: "begin_image", END_IMAGE: "end_image", END: "end_document"}


@dataclass(frozen=True)
class Tokens:
    """A laid-out document.

    Args:
        ids: global ids.
        loss: per token, whether it must be predicted.
        images: (start, length, span) of the content of each image.
        document_id: the id of the document.
    """

    ids: np.ndarray
    loss: np.ndarray
    images: tuple[tuple[int, int, ImageSpan], ...]
    document_id: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cells(self) -> np.ndarray:
        """Per token of an image, its place in that image (counted in raster order, level after level); -1 for every other token."""
        cells = np.full(len(self.ids), -1, dtype=np.int64)
        for start, length, _ in self.images:
            cells[start : start + length] = np.arange(length)
        return cells


class DocumentLayout:
    """Documents <-> tokens.

    Args:
        vocabulary: the id space.
        text: the text tokenizer.
        grid_shapes: (gh, gw) per code level of an image: fixes how many codes an image has. Images of another size are an error.
    """

    def __init__(self, vocabulary: Vocabulary, text: TextTokenizer, grid_shapes: Sequence[tuple[int, int]]) -> None:
        self.vocabulary, self.text = vocabulary, text
        self.grid_shapes = tuple((int(h), int(w)) for h, w in grid_shapes)
        if len(self.grid_shapes) != len(vocabulary.code_segments):
            raise LayoutError(
                f"{len(self.grid_shapes)} grid shapes for {len(vocabulary.code_segments)} code segments: expected one per level."
            )
        self.num_codes = sum(h * w for h, w in self.grid_shapes)
        self._text_ids: dict[str, np.ndarray] = {}

    def encode_text(self, text: str) -> np.ndarray:
        """Ids of one text span; the strings of `WRITTEN` are those markers (cached: captions and instructions repeat)."""
        ids = self._text_ids.get(text)
        if ids is None:
            joined: list[int] = []
            for part in re.split(f"({'|'.join(WRITTEN)})", text):
                if part in WRITTEN:
                    joined.append(self.vocabulary.specials[WRITTEN[part]])
                elif part:
                    joined += self.text.encode(part)
            ids = np.asarray(joined, dtype=np.int64)
            if len(self._text_ids) < 200_000:
                self._text_ids[text] = ids
        return ids

    def encode_codes(self, span: ImageSpan) -> np.ndarray:
        """Global ids of the codes of an image in raster order, level after level.

        Raises:
            LayoutError: number or shape of the grids is not what the layout expects.
            VocabularyError: a code lies outside its codebook.
        """
        segments = self.vocabulary.code_segments
        shapes = tuple(np.shape(grid) for grid in span.codes or ())
        if shapes != self.grid_shapes:
            raise LayoutError(
                f"Image {span.image_id!r} has code grids {shapes}, expected {self.grid_shapes}. Bring the picture to the size "
                "of the tokenizer and encode it again."
            )
        runs = []
        for grid, segment in zip(span.codes or (), segments, strict=True):
            codes = np.asarray(grid).reshape(-1)
            if not np.issubdtype(codes.dtype, np.integer):
                raise LayoutError(
                    f"Image {span.image_id!r} has codes of type {codes.dtype}, expected whole numbers. Encode it again."
                )
            codes = codes.astype(np.int64)
            if codes.min() < 0 or codes.max() >= segment.size:
                raise VocabularyError(
                    f"Image {span.image_id!r}: codes run from {codes.min()} to {codes.max()}, outside the {segment.size} "
                    f"codes of segment {segment.name!r}. Was it encoded with another tokenizer? Encode it with this one."
                )
            runs.append(codes + segment.offset)
        return np.concatenate(runs)

    def decode_codes(self, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """The inverse of `encode_codes`: global ids (num_codes,) -> one grid per level. Raises LayoutError for an id that is no code."""
        grids, start = [], 0
        for (height, width), segment in zip(self.grid_shapes, self.vocabulary.code_segments, strict=True):
            local = ids[start : start + height * width] - segment.offset
            if local.min() < 0 or local.max() >= segment.size:
                raise LayoutError(f"ids {int(ids.min())} to {int(ids.max())} are not all codes of segment {segment.name!r}.")
            grids.append(local.reshape(height, width))
            start += height * width
        return tuple(grids)

    def encode(self, document: Document) -> Tokens:
        """Lay out one document.

        Raises:
            LayoutError: a text is empty, an image has no form, is a feature image (no system with features is laid out here yet), a
                hole is not the last span, or grids have the wrong shape.
            VocabularyError: a word or code is unknown. Both name document and span.
        """
        specials = self.vocabulary.specials
        ids: list[np.ndarray] = [np.array([specials["begin_document"]])]
        loss: list[np.ndarray] = [np.array([False])]
        images: list[tuple[int, int, ImageSpan]] = []
        position = 1
        for index, span in enumerate(document.spans):
            try:
                run, flags = self._encode_span(span, is_last=index == len(document.spans) - 1)
            except (LayoutError, VocabularyError) as error:
                raise type(error)(f"Document {document.id!r}, span {index}: {error}") from error
            if isinstance(span, ImageSpan) and not span.is_hole:
                images.append((position + 1, len(run) - 2, span))
            ids.append(run)
            loss.append(flags)
            position += len(run)
        last = document.spans[-1]
        if document.ends and not (isinstance(last, ImageSpan) and last.is_hole):
            ids.append(np.array([specials["end_document"]]))
            loss.append(np.array([last.loss]))
        return Tokens(np.concatenate(ids), np.concatenate(loss), tuple(images), document.id)

    def _encode_span(self, span: Span, is_last: bool) -> tuple[np.ndarray, np.ndarray]:
        """Ids and loss flags of one span."""
        begin, end = self.vocabulary.specials["begin_image"], self.vocabulary.specials["end_image"]
        if isinstance(span, TextSpan):
            run = self.encode_text(span.text)
            if not len(run):
                raise LayoutError(f"The text {span.text!r} has 0 tokens, expected at least 1. Write something or leave it out.")
            return run, np.full(len(run), span.loss)
        if span.form == "features":
            raise LayoutError(
                f"Image {span.image_id!r} has form 'features', expected 'codes': no system here reads features yet. "
                "Use a template that sets the form 'codes'."
            )
        if span.form != "codes":
            raise LayoutError(
                f"Image {span.image_id!r} has form {span.form!r}, expected 'codes'. "
                "A template sets the form: wrap the document first."
            )
        if not span.is_hole:
            codes = self.encode_codes(span)
            flags = np.full(len(codes) + 2, span.loss)
            flags[0] = span.begin_loss
            return np.concatenate([[begin], codes, [end]]), flags
        if not is_last:
            raise LayoutError(
                f"Image {span.image_id!r} has no codes and is not the last span, expected codes. "
                "Encode it first, or let `generate` draw it."
            )
        return np.array([begin]), np.array([span.begin_loss])

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
        while position < stop:
            if ids[position] == specials["begin_image"]:
                span, position = self._decode_image(tokens, position, stop, len([s for s in spans if isinstance(s, ImageSpan)]))
                spans.append(span)
                continue
            start = position
            while position < stop and ids[position] != specials["begin_image"] and loss[position] == loss[start]:
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
        ids, loss, specials = tokens.ids, tokens.loss, self.vocabulary.specials
        known = tokens.images[index][2] if index < len(tokens.images) else None
        image_id = known.image_id if known else f"{tokens.document_id}/drawn-{index}"
        begin_loss = bool(loss[position])
        if position + 1 == stop:
            return ImageSpan(image_id, loss=begin_loss, begin_loss=begin_loss, form="codes"), position + 1
        end = position + 1 + self.num_codes
        if end >= stop or ids[end] != specials["end_image"]:
            raise LayoutError(
                f"Document {tokens.document_id!r}: the image at position {position} is not followed by {self.num_codes} codes "
                "and an end_image id."
            )
        try:
            grids = self.decode_codes(ids[position + 1 : end])
        except LayoutError as error:
            raise LayoutError(f"Document {tokens.document_id!r}, image {image_id!r}: {error}") from error
        span = ImageSpan(image_id, bool(loss[end]), begin_loss, "codes", grids)
        return span, end + 1
