"""One document as a run of tokens: markers, text ids, image codes, which of them carry loss, and the exact inverse.

    begin_document  { text ids | begin_image  codes (raster order, level after level)  end_image }  end_document

A position of an image holds one code, or several that were folded into one (SynerGen-VL): `patches` of the layout says which.
The end marker of an image carries loss if the image does, the begin marker if `begin_loss` says so, the end of the document if the
last span does (Liquid: specs section 4, formats a to f). A hole (a picture still to be drawn) is its begin marker and nothing more.
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
        images: (start, length, span) of the content of each image.
        document_id: the id of the document.
    """

    ids: np.ndarray
    patches: np.ndarray
    loss: np.ndarray
    cells: np.ndarray
    images: tuple[tuple[int, int, ImageSpan], ...]
    document_id: str = ""

    def __len__(self) -> int:
        return len(self.ids)


class DocumentLayout:
    """Documents <-> tokens.

    Args:
        vocabulary: the id space.
        text: the text tokenizer.
        grid_shapes: (gh, gw) per code level of an image: fixes how many codes an image has. Images of another size are an error.
        patches: (n f) per level: the places (raster order) of the codes that stand at one position together. None: every code has a
            position of its own.
        marks: strings in texts that are markers of the wording (`Template.marks`); an id that is special to the text tokenizer and written
            by none of them is refused.

    Raises:
        LayoutError: not one grid and one set of patches per level, or patches that do not hold every place once.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        text: TextTokenizer,
        grid_shapes: Sequence[tuple[int, int]],
        patches: Sequence[np.ndarray] | None = None,
        marks: Sequence[str] = (),
    ) -> None:
        self.vocabulary, self.text = vocabulary, text
        self.marks, self._mark_pattern = tuple(marks), match_any(marks)
        self.grid_shapes = tuple((int(h), int(w)) for h, w in grid_shapes)
        self.patches = tuple(patches or (np.arange(h * w)[:, None] for h, w in self.grid_shapes))
        if len(self.grid_shapes) != len(vocabulary.code_segments):
            raise LayoutError(
                f"{len(self.grid_shapes)} grid shapes for {len(vocabulary.code_segments)} code segments: expected one per level."
            )
        places = [sorted(each.flat) for each in self.patches]
        if places != [list(range(h * w)) for h, w in self.grid_shapes] or len({each.shape[1] for each in self.patches}) > 1:
            raise LayoutError(
                f"Patches of shapes {[each.shape for each in self.patches]} on grids {self.grid_shapes}: expected every place of every "
                "level once, and as many codes at every position."
            )
        self.num_codes = sum(h * w for h, w in self.grid_shapes)
        self.codes_per_position = self.patches[0].shape[1] if self.patches else 1
        self.num_positions = self.num_codes // self.codes_per_position
        self._text_ids: dict[str, np.ndarray] = {}

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

    def encode_codes(self, span: ImageSpan) -> np.ndarray:
        """Global ids (n f) of the codes of an image, position after position, level after level. An image may come in tiles: then each
        grid has them as its first axis, and they follow each other.

        Raises:
            LayoutError: number or shape of the grids is not what the layout expects.
            VocabularyError: a code lies outside its codebook.
        """
        segments = self.vocabulary.code_segments
        grids = tuple(np.asarray(grid) for grid in span.codes or ())
        shapes = tuple(grid.shape for grid in grids)
        tiles = {1 if len(shape) == 2 else shape[0] for shape in shapes}
        if tuple(shape[-2:] for shape in shapes) != self.grid_shapes or len(tiles) != 1 or any(len(s) > 3 for s in shapes):
            raise LayoutError(
                f"Image {span.image_id!r} has code grids {shapes}, expected {self.grid_shapes}. Bring the picture to the size "
                "of the tokenizer and encode it again."
            )
        runs = []
        for grid, segment, places in zip(grids, segments, self.patches, strict=True):
            if not np.issubdtype(grid.dtype, np.integer):
                raise LayoutError(
                    f"Image {span.image_id!r} has codes of type {grid.dtype}, expected whole numbers. Encode it again."
                )
            codes = grid.astype(np.int64)
            if codes.min() < 0 or codes.max() >= segment.size:
                raise VocabularyError(
                    f"Image {span.image_id!r}: codes run from {codes.min()} to {codes.max()}, outside the {segment.size} "
                    f"codes of segment {segment.name!r}. Was it encoded with another tokenizer? Encode it with this one."
                )
            runs.append(codes.reshape(*tiles, -1)[:, places] + segment.offset)
        return np.concatenate(runs, axis=1).reshape(-1, self.codes_per_position)

    def decode_codes(self, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """The inverse of `encode_codes`: global ids (n f) -> one grid per level, with a first axis for tiles where there are several.

        Raises:
            LayoutError: an id is no code of its level, or they are not those of whole images.
        """
        if not len(ids) or len(ids) % self.num_positions:
            raise LayoutError(f"{len(ids)} positions of an image, expected {self.num_positions} for each tile.")
        tiles = ids.reshape(-1, self.num_positions, self.codes_per_position)
        grids, start = [], 0
        for shape, segment, places in zip(self.grid_shapes, self.vocabulary.code_segments, self.patches, strict=True):
            local = tiles[:, start : start + len(places)] - segment.offset
            if local.min() < 0 or local.max() >= segment.size:
                raise LayoutError(f"ids {int(ids.min())} to {int(ids.max())} are not all codes of segment {segment.name!r}.")
            grid = np.empty((len(tiles), places.size), dtype=np.int64)
            grid[:, places] = local
            grids.append(grid.reshape(-1, *shape) if len(tiles) > 1 else grid.reshape(shape))
            start += len(places)
        return tuple(grids)

    def encode(self, document: Document) -> Tokens:
        """Lay out one document.

        Raises:
            LayoutError: a text is empty, an image has no form, is a feature image (no system with features is laid out here yet), a
                hole is not the last span, grids have the wrong shape, or an image that carries loss has several tiles.
            VocabularyError: a word or code is unknown.
            MarkerError: a text holds a marker that no wording wrote. All name document and span.
        """
        specials = self.vocabulary.specials
        runs: list[np.ndarray] = [_one(specials["begin_document"])]
        loss: list[np.ndarray] = [np.array([False])]
        images: list[tuple[int, int, ImageSpan]] = []
        contents: list[np.ndarray] = []
        position = 1
        for index, span in enumerate(document.spans):
            try:
                run, flags, codes = self._encode_span(span, is_last=index == len(document.spans) - 1)
            except (LayoutError, VocabularyError, MarkerError) as error:
                raise type(error)(f"Document {document.id!r}, span {index}: {error}") from error
            if codes is not None:
                images.append((position + 1, len(codes), span))
                contents.append(codes)
            runs.append(run)
            loss.append(flags)
            position += len(run)
        last = document.spans[-1]
        if document.ends and not (isinstance(last, ImageSpan) and last.is_hole):
            runs.append(_one(specials["end_document"]))
            loss.append(np.array([last.loss]))
        ids = np.concatenate(runs)
        patches = np.full((len(ids), self.codes_per_position), -1, dtype=np.int64)
        cells = np.full(len(ids), -1, dtype=np.int64)
        for (start, length, _), codes in zip(images, contents, strict=True):
            patches[start : start + length] = codes
            cells[start : start + length] = np.arange(length) % self.num_positions
        return Tokens(ids, patches, np.concatenate(loss), cells, tuple(images), document.id)

    def _encode_span(self, span: Span, is_last: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Ids and loss flags (s) of one span, and the codes (n f) of an image that has them."""
        begin, end = self.vocabulary.specials["begin_image"], self.vocabulary.specials["end_image"]
        if isinstance(span, TextSpan):
            run = self.encode_text(span.text)
            if not len(run):
                raise LayoutError(f"The text {span.text!r} has 0 tokens, expected at least 1. Write something or leave it out.")
            return run, np.full(len(run), span.loss), None
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
            if span.loss and len(codes) != self.num_positions:
                raise LayoutError(
                    f"Image {span.image_id!r} carries loss and has {len(codes) // self.num_positions} tiles, expected one: what is drawn "
                    "is one tile always. Encode it with tiling=small, or only ask about such pictures (template.text_to_image_ratio=0)."
                )
            flags = np.full(len(codes) + 2, span.loss)
            flags[0] = span.begin_loss
            return np.concatenate([_one(begin), codes[:, 0], _one(end)]), flags, codes
        if not is_last:
            raise LayoutError(
                f"Image {span.image_id!r} has no codes and is not the last span, expected codes. "
                "Encode it first, or let `generate` draw it."
            )
        return _one(begin), np.array([span.begin_loss]), None

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
        ids, loss, specials = tokens.ids, tokens.loss, self.vocabulary.specials
        known = tokens.images[index][2] if index < len(tokens.images) else None
        image_id = known.image_id if known else f"{tokens.document_id}/drawn-{index}"
        begin_loss = bool(loss[position])
        if position + 1 == stop:
            return ImageSpan(image_id, loss=begin_loss, begin_loss=begin_loss, form="codes"), position + 1
        ends = np.flatnonzero(ids[position + 1 : stop] == specials["end_image"])
        end = position + 1 + (int(ends[0]) if len(ends) else -1)
        if not len(ends) or end == position + 1 or (end - position - 1) % self.num_positions:
            raise LayoutError(
                f"Document {tokens.document_id!r}: the image at position {position} is not followed by {self.num_positions} positions "
                "of codes (or a multiple, for tiles) and an end_image id."
            )
        try:
            grids = self.decode_codes(tokens.patches[position + 1 : end])
        except LayoutError as error:
            raise LayoutError(f"Document {tokens.document_id!r}, image {image_id!r}: {error}") from error
        span = ImageSpan(image_id, bool(loss[end]), begin_loss, "codes", grids)
        return span, end + 1


def _find_special(text: TextTokenizer, mark: str) -> int | None:
    """The special id that a marker has in a text tokenizer; None where it is text to it, or no word that it knows."""
    try:
        ids = text.encode(mark)
    except VocabularyError:
        return None
    return ids[0] if len(ids) == 1 and ids[0] in text.special_ids else None


def _one(id: int) -> np.ndarray:
    return np.array([id], dtype=np.int64)
