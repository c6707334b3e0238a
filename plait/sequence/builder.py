"""Documents -> a packed batch of rows, and the exact inverse."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from plait.document import Document
from plait.errors import LayoutError
from plait.records import CodesRead, Layout, PicturesRead, Placed, Reading, Targets, find_routes
from plait.sequence.batch import TERMS, DocumentPlace, ImagePlace, SequenceBatch
from plait.sequence.layout import DocumentLayout, Tokens
from plait.sequence.packing import group_by_length, pack


class SequenceBuilder:
    """Builds batches.

    Args:
        layout: how one document becomes tokens.
    """

    def __init__(self, layout: DocumentLayout) -> None:
        self.layout = layout
        self.vocabulary = layout.vocabulary

    def encode(self, document: Document) -> Tokens:
        """Tokens of one document (see `DocumentLayout.encode`)."""
        return self.layout.encode(document)

    def build(
        self, documents: Sequence[Document], row_length: int | None = None, counts: Mapping[str, float] | None = None
    ) -> SequenceBatch:
        """Lay out and pack documents.

        Args:
            documents: encoded documents (every image has its form and codes).
            row_length: tokens per row; None: one row per document, as long as the longest.
            counts: targets per term of the whole optimiser step; None: those of this batch.

        Raises:
            LayoutError: there is no document, one does not fit a row, or one breaks the layout.
            VocabularyError: an unknown word or code.
        """
        return self.assemble([self.encode(document) for document in documents], row_length, counts)

    def assemble(
        self, tokens: Sequence[Tokens], row_length: int | None = None, counts: Mapping[str, float] | None = None
    ) -> SequenceBatch:
        """Pack documents that are laid out already (see `build`)."""
        if not tokens:
            raise LayoutError("A batch of 0 documents was asked for, expected at least 1. Check what selects them.")
        lengths, names = [len(item) for item in tokens], [item.document_id for item in tokens]
        rows = [[index] for index in range(len(tokens))] if row_length is None else pack(lengths, row_length, names)
        return self.arrange([[tokens[member] for member in row] for row in rows], row_length or max(lengths), counts)

    def count_targets(self, tokens: Sequence[Tokens]) -> dict[str, float]:
        """Targets per term of documents that are laid out already."""
        owners = [item.owners[1:][item.loss[1:]] for item in tokens]
        found = np.bincount(np.concatenate(owners or [[]]).astype(np.int64), minlength=len(TERMS))
        counts = {name: float(count) for name, count in zip(TERMS, found, strict=True)}
        return counts | {"image": counts["image"] * self.layout.codes_per_position}

    def arrange(
        self, rows: Sequence[Sequence[Tokens]], row_length: int, counts: Mapping[str, float] | None = None
    ) -> SequenceBatch:
        """A batch of rows whose documents are assigned already (see `build`)."""
        shape = (len(rows), row_length)
        pad = self.vocabulary.specials["pad"]
        ids, targets = np.full(shape, pad, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        positions, owner = np.zeros(shape, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        cells, terms = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        patches = np.full((*shape, self.layout.codes_per_position), -1, dtype=np.int64)
        images: list[ImagePlace] = []
        places: list[DocumentPlace] = []
        for row, members in enumerate(rows):
            start = 0
            for order, item in enumerate(members):
                stop = start + len(item)
                ids[row, start:stop] = item.ids
                # The one shift by one of the house: position t predicts the token at t + 1 of the same document.
                targets[row, start : stop - 1] = np.where(item.loss[1:], item.ids[1:], -1)
                terms[row, start : stop - 1] = np.where(item.loss[1:], item.owners[1:], -1)
                positions[row, start:stop] = np.arange(len(item))
                owner[row, start:stop] = order
                cells[row, start:stop] = item.cells
                patches[row, start:stop] = item.patches
                images += [ImagePlace(row, start + first, length, span) for first, length, span in item.images]
                places.append(DocumentPlace(row, start, len(item), item.document_id))
                start = stop
        groups = group_by_length([place.row * row_length + place.start for place in places], [place.length for place in places])
        batch = SequenceBatch(
            torch.from_numpy(ids),
            torch.from_numpy(patches),
            torch.from_numpy(targets),
            torch.from_numpy(terms),
            Layout(torch.from_numpy(positions), torch.from_numpy(owner), groups),
            self.place(ids, cells, patches, images, groups),
            self._want(targets, terms, patches),
            tuple(images),
            tuple(places),
            dict(counts) if counts is not None else {},
        )
        if counts is None:
            batch.counts.update(batch.own_counts())
        return batch

    def place(
        self,
        ids: np.ndarray,
        cells: np.ndarray,
        patches: np.ndarray,
        images: Sequence[ImagePlace] = (),
        groups: Sequence[torch.Tensor] = (),
    ) -> Reading:
        """The only road from tokens to the tensors that enter a backbone, for training and for sampling.

        Args:
            ids: (b s) global ids, the pad id where nothing stands.
            cells: (b s) see `Reading`.
            patches: (b s f) global ids of codes, -1 where there is none.
            images: where pictures stand; of those that come as pixels, `ImageSpan.pixels` is read.
            groups: of the layout (`Layout.groups`); none where the call goes through a cache.

        Raises:
            VocabularyError: an id lies outside the vocabulary.
        """
        flat, places = ids.ravel(), cells.ravel()
        segments, local = self.vocabulary.split(flat)
        visual = np.flatnonzero(places >= 0)
        first = patches.reshape(len(flat), -1)[visual]
        coded = visual if not len(first) or first.min() >= 0 else visual[first[:, 0] >= 0]
        codes = patches.reshape(len(flat), -1)[coded]
        return Reading(
            torch.from_numpy(cells),
            tuple(
                Placed(*map(torch.from_numpy, (where, local[where])))
                for where in (np.flatnonzero(segments == index) for index in range(len(self.vocabulary.segments)))
            ),
            CodesRead(*map(torch.from_numpy, (coded, self.vocabulary.split(codes)[1], places[coded]))),
            _stack_pictures(images, ids.shape[1]),
            find_routes(torch.from_numpy(cells >= 0), groups),
        )

    def _want(self, targets: np.ndarray, terms: np.ndarray, patches: np.ndarray) -> dict[str, Targets]:
        """Per term what its head must predict: one id, or for codes those of the next position."""
        row_length, wanted = targets.shape[1], {}
        for index, name in enumerate(TERMS):
            places = np.flatnonzero(terms == index)
            is_single = name == "text" or patches.shape[2] == 1  # the codes of a position are several targets
            ids = targets.ravel()[places, None] if is_single else patches.reshape(terms.size, -1)[places + 1]
            segments, local = self.vocabulary.split(ids)
            wanted[name] = Targets(*map(torch.from_numpy, (places, segments, local, places // row_length)))
        return wanted

    def read(self, batch: SequenceBatch) -> list[Document]:
        """The documents of a batch in row order: `read(build(d)) == d` up to the order of packing and `Document.merged`."""
        ids, targets = batch.ids.cpu().numpy(), batch.targets.cpu().numpy()
        patches, cells, terms = (each.cpu().numpy() for each in (batch.patches, batch.cells, batch.terms))
        documents = []
        for place in batch.documents:
            start, stop = place.start, place.start + place.length
            run = (each[place.row, start:stop] for each in (ids, patches))
            loss = np.concatenate([[False], targets[place.row, start : stop - 1] >= 0])
            images = tuple(
                (image.start - start, image.length, image.span)
                for image in batch.images
                if image.row == place.row and start <= image.start < stop
            )
            owners = np.concatenate([[-1], terms[place.row, start : stop - 1]])
            documents.append(self.layout.decode(Tokens(*run, loss, cells[place.row, start:stop], owners, images, place.id)))
        return documents


def _stack_pictures(images: Sequence[ImagePlace], row_length: int) -> tuple[PicturesRead, ...]:
    """Pictures with pixels by their size, tile after tile."""
    found: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
    for image in images:
        if image.span.form == "features":
            tiles = image.span.pixels if image.span.pixels.ndim == 4 else image.span.pixels[None]
            first = image.row * row_length + image.start
            found.setdefault(tiles.shape[1:], []).append(
                (tiles, np.arange(first, first + image.length).reshape(len(tiles), -1))
            )
    stacks = (map(np.concatenate, zip(*members, strict=True)) for members in found.values())
    return tuple(PicturesRead(*map(torch.from_numpy, stack)) for stack in stacks)
