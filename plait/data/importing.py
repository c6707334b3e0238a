"""Rows of other people -> a collection: each row is read once, checked as a whole and written down, or refused, or left out and counted.

Why everything is written down first, also what comes as a stream: the place of a row in a shuffled stream cannot be computed, so a run on
it could be neither resumed nor repeated exactly. Afterwards batch k is a function of (seed, k), as for every other source.

A picture is opened by the loader of the house, made square (`crop`: the short side is scaled to the size, the middle kept; `pad`: it
is padded to a square first; Lanczos both times, as Liquid does) and named by the hash of the pixels that came of it.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from plait.atomic import replace_folder, write_json
from plait.data.collection import FORMAT, MANIFEST, ROWS, Collection
from plait.data.held_out import choose_held_out
from plait.data.hub import document_to_row, is_fetched, write_rows
from plait.data.kinds import DOCUMENT_KINDS, BadRow, Picture, Piece, read_row
from plait.data.tables import Table
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, RecipeError
from plait.images import check_fit, fit_square, open_image

REMEDY = "Or leave such rows out, counted and shown: data.on_bad_row=skip."


def import_rows(
    tables: Mapping[str, Table],
    target: Path,
    *,
    kind: str,
    columns: Mapping[str, str],
    image_size: int,
    fit: str = "crop",
    held_out: float = 0.1,
    skips: bool = False,
    limit: int | None = None,
    report: Callable[[int, int], None] = lambda read, left_out: None,
) -> Collection:
    """Write a collection; an older one at the target is replaced as a whole.

    Args:
        tables: "train" -> its rows, and "val" -> its own where the data has a split to hold out.
        kind, columns: see `plait.data.kinds.choose_columns`.
        held_out: share of the documents that is held out where there is no table "val".
        skips: whether a row that cannot be read is left out and counted; otherwise it is an error.
        limit: rows that are read of each table; None reads all.
        report: called after each row with (rows read, rows left out).

    Raises:
        DocumentError: a row cannot be read.
        RecipeError: no document is left for a split.
    """
    reader = _Reader(kind, columns, image_size, fit, skips, report)
    with replace_folder(target, MANIFEST) as beside:
        rows = (row for split, table in tables.items() for row in reader.read(table, split, limit))
        write_rows(rows, beside / ROWS)
        numbers = range(len(reader.splits))
        if "val" in tables:
            is_held_out = [split == "val" for split in reader.splits]
        else:
            is_held_out = choose_held_out(
                [names or [text] for names, text in zip(reader.pictures, reader.texts, strict=True)], held_out
            )
        splits = {split: [n for n in numbers if is_held_out[n] == (split == "val")] for split in ("train", "val")}
        seen = {split: {name for n in own for name in reader.pictures[n]} for split, own in splits.items()}
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "columns": dict(columns),
            "image_size": image_size,
            "fit": fit,
            "sources": {split: table.title for split, table in tables.items()},
            "imported": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "rows": {"read": reader.num_read, "left_out": dict(reader.left_out)},
            "shared_pictures": len(seen["train"] & seen["val"]),
            "contents": reader.digest.hexdigest(),
            "splits": splits,
            "pictures": reader.pictures,
        }
        for split, own in splits.items():
            if not own:
                raise RecipeError(
                    f"{' and '.join(table.title for table in tables.values())}: {len(numbers)} documents came of {reader.num_read} rows "
                    f"(left out: {dict(reader.left_out) or 'none'}), and 0 are for {split!r}, expected at least 1 for train and for val. "
                    "Next: add rows with other pictures, or change data.held_out."
                )
        write_json(beside / MANIFEST, manifest)
    return Collection(target)


class _Reader:
    """Rows -> rows of the schema, and what is known of them afterwards."""

    def __init__(
        self, kind: str, columns: Mapping[str, str], size: int, fit: str, skips: bool, report: Callable[[int, int], None]
    ) -> None:
        check_fit(fit)
        self.kind, self.columns, self.size, self.fit = kind, columns, size, fit
        self.skips, self.report = skips, report
        self.num_read, self.left_out = 0, Counter()
        self.splits: list[str] = []
        self.pictures: list[list[str]] = []
        self.texts: list[str] = []
        self.digest = hashlib.sha256()
        self._ids: dict[str, str] = {}

    def read(self, table: Table, split: str, limit: int | None) -> Iterator[dict[str, Any]]:
        for where, raw in islice(table.rows(), limit):
            self.num_read += 1
            try:
                made = self._read_row(raw, where, table)
            except DocumentError as error:
                if not self.skips:
                    raise DocumentError(f"{table.title}, row {where}: {error} {REMEDY}") from error
                self.left_out[error.reason if isinstance(error, BadRow) else "no document"] += 1
                made = []
            self.report(self.num_read, self.left_out.total())
            for document, pictures in made:
                names = list(pictures)
                text = hashlib.sha256(document.text.encode()).hexdigest()
                self.splits.append(split)
                self.pictures.append(names)
                self.texts.append(text)
                self.digest.update(json.dumps(document.to_json(), sort_keys=True).encode())
                yield document_to_row(document, pictures.__getitem__)

    def _read_row(self, raw: Any, where: str, table: Table) -> list[tuple[Document, dict[str, Image.Image]]]:
        if isinstance(raw, BadRow):
            raise raw
        found = read_row(raw, self.kind, self.columns)
        name = self._name(raw, where)
        made = []
        for order, pieces in enumerate(found):
            pictures: dict[str, Image.Image] = {}
            spans = tuple(self._span(piece, table.folder, pictures) for piece in pieces)
            made.append(
                (Document(spans, name if len(found) == 1 else f"{name}/{order}", kind=DOCUMENT_KINDS[self.kind]), pictures)
            )
        self._ids[name] = where
        return made

    def _name(self, raw: Mapping[str, Any], where: str) -> str:
        name = raw.get(self.columns["id"]) if "id" in self.columns else where
        if name is None or isinstance(name, (list, dict, bytes)):
            raise BadRow("no id", f"{self.columns['id']} holds {name!r}, expected a name or a number. Correct the row.")
        if str(name) in self._ids:
            raise BadRow(
                "id twice", f"its id {name!r} is that of row {self._ids[str(name)]} too, expected ids that differ. Rename one."
            )
        return str(name)

    def _span(self, piece: Piece, folder: Path | None, pictures: dict[str, Image.Image]) -> TextSpan | ImageSpan:
        if isinstance(piece, TextSpan):
            return piece
        picture = self._open(piece, folder)
        name = hashlib.sha256(picture.tobytes()).hexdigest()
        pictures[name] = picture
        return ImageSpan(name, loss=piece.loss, begin_loss=piece.loss)

    def _open(self, piece: Picture, folder: Path | None) -> Image.Image:
        source, shown = _locate(piece.cell, folder)
        try:
            return fit_square(open_image(source, name=shown), self.size, self.fit)
        except DocumentError as error:
            raise BadRow("unreadable picture", str(error)) from error


def _locate(cell: Any, folder: Path | None) -> tuple[Path | bytes, str]:
    """The file or the bytes of a picture, and what messages call it.

    Raises:
        BadRow: there is none, or it lies outside of the data.
    """
    if isinstance(cell, Mapping) and (cell.get("bytes") or cell.get("path")):
        if (own := cell.get("bytes")) and not isinstance(own, bytes):
            raise BadRow(
                "no picture",
                f"the bytes of a picture are given as {str(own)[:60]!r} ({type(own).__name__}), expected bytes, which JSON cannot hold. "
                "Write the path of a file, or parquet.",
            )
        if own:
            return own, str(cell.get("path") or "the picture of the row")
        cell = cell["path"]
        if folder is None and isinstance(cell, str) and is_fetched(cell):
            return Path(cell), cell
    if isinstance(cell, bytes) and cell:
        return cell, "the picture of the row"
    if not isinstance(cell, str) or not cell:
        kind = "nothing" if cell is None else f"{str(cell)[:60]!r} ({type(cell).__name__})"
        raise BadRow("no picture", f"a picture is given as {kind}, expected the path of a file, or its bytes. Correct the row.")
    if "://" in cell or cell.startswith("data:"):
        raise BadRow(
            "picture elsewhere", f"picture {cell[:80]!r} is an address, expected a file beside the rows. Download it first."
        )
    if folder is None:
        raise BadRow(
            "no picture", f"picture {cell!r} is a path, and a Hub dataset has no folder: expected its bytes. Download the data."
        )
    try:
        path = (folder / cell).resolve()
        is_there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a link to itself, a closed folder
        raise BadRow("missing picture", f"picture {cell[:80]!r} cannot be looked up ({error}). Correct the path.") from error
    if not any(path.is_relative_to(root) for root in _roots(folder)):
        raise BadRow(
            "picture outside",
            f"picture {cell!r} lies outside of {folder}, expected a path inside of it. Copy it, or name a folder above.",
        )
    if not is_there:
        raise BadRow(
            "missing picture", f"picture {cell!r} is not there: expected the file {folder / cell}. Add it, or correct the path."
        )
    return path, cell


def _roots(folder: Path) -> list[Path]:
    """Where the files of a folder may lie: in it, and in a snapshot of the Hub, whose files are links, in the store beside it."""
    here = folder.resolve()
    return [here, *(place.parent / "blobs" for place in (here, *here.parents) if place.name == "snapshots")]
