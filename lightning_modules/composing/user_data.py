"""Data of one's own for recipes (conf/data/hub.yaml): it is imported once into the cache, and its documents are checked against the model
that will read them before the first step. How rows are read is `plait.data`'s affair, how documents are worded the template's.
"""

import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from lightning_modules.processes.ranks import own_rank
from plait.data.collection import FORMAT, MANIFEST, TASK, Collection, Part
from plait.data.filling import Pictures, fill_images
from plait.data.importing import import_rows
from plait.data.kinds import choose_columns
from plait.data.tables import open_table
from plait.document import Document, TextSpan
from plait.errors import DocumentError, MarkerError, RecipeError
from plait.sequence.chat import split_turns

log = logging.getLogger(__name__)


def open_collection(
    *,
    path: str,
    kind: str | None,
    columns: Mapping[str, Any],
    image_size: Any,
    cache: str,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
    held_out: Any = 0.1,
    fit: str = "crop",
    on_bad_row: Literal["error", "skip"] = "error",
    limit: int | None = None,
) -> Collection:
    """The documents of a folder, file or Hub dataset; imported at first, afterwards read from the cache as long as nothing has changed.

    Args:
        image_size: side of the pictures, or (height, width) of a square.
        cache: folder of all imports.
        held_out: share of the documents, by content; or the name of a split of the data itself.
        limit: rows that are read of each split.

    Raises:
        DocumentError: a row cannot be read.
        RecipeError: there is no such data, its kind or a column is not clear, or a setting makes no sense.
    """
    sides = {image_size} if isinstance(image_size, int) else set(image_size)
    if len(sides) != 1:
        raise RecipeError(
            f"Pictures of {tuple(image_size)} pixels were asked for, expected a square. Set vision_tokenizer.image_size."
        )
    own = isinstance(held_out, str)
    if not own and not 0 < held_out < 1:
        raise RecipeError(
            f"data.held_out is {held_out}, expected a share between 0 and 1, or the name of a split of the data. Set it."
        )
    if limit is not None and limit < 1:
        raise RecipeError(f"data.limit is {limit}, expected at least 1 row, or null for all. Set data.limit.")
    table = {"name": name, "revision": revision, "streaming": streaming}
    tables = {"train": open_table(path, split, is_named=own, **table)}
    if own:
        tables["val"] = open_table(path, held_out, is_named=True, **table)
    kind, found = choose_columns(tables["train"].columns, kind, columns)
    settings = {
        "kind": kind,
        "columns": found,
        "image_size": sides.pop(),
        "fit": fit,
        "limit": limit,
        "skips": on_bad_row == "skip",
    }
    settings["held_out"] = 0.0 if own else held_out
    facts = [FORMAT, path, split, held_out, {split: table.state for split, table in tables.items()}, settings]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    target = Path(cache) / f"{re.sub(r'[^a-z0-9]+', '-', Path(path).name.lower()).strip('-')}-{key}"
    while own_rank() != 0 and not (target / MANIFEST).is_file():
        time.sleep(1.0)  # rank 0 imports, for all that share its disk
    if (target / MANIFEST).is_file():
        collection = Collection(target)
    else:
        with tqdm(desc=f"importing {path}", unit=" rows", disable=None) as bar:
            collection = import_rows(
                tables, target, report=lambda _, left_out: bar.update() and bar.set_postfix(left_out=left_out), **settings
            )
    _say(collection, limit)
    return collection


def _say(collection: Collection, limit: int | None) -> None:
    facts = collection.manifest
    rows, counts = facts["rows"], ", ".join(f"{len(own)} {split}" for split, own in facts["splits"].items())
    read = f"{rows['read']} rows{f' (data.limit={limit})' if limit else ''}"
    log.info(
        "%s: %s -> %s documents (%s), imported %s", facts["sources"]["train"], read, facts["kind"], counts, facts["imported"]
    )
    if rows["left_out"]:
        log.warning("%d of %s left out: %s", sum(rows["left_out"].values()), read, _count(rows["left_out"]))
    if facts["shared_pictures"]:
        log.warning(
            "%d pictures are both in train and in val: held-out losses are not of new pictures", facts["shared_pictures"]
        )


def open_documents(
    *,
    world: Collection,
    template: Any,
    builder: Any,
    row_length: int,
    split: str = "train",
    on_bad_row: Literal["error", "skip"] = "error",
) -> Mapping[str, Sequence[Document]]:
    """The documents of a split as a source for a mixture, each checked once: that it fits a row, and that its texts hold no marker.

    Args:
        builder: of the model, to count tokens.
        row_length: tokens of a row; nothing is ever cut.
        on_bad_row: "skip" leaves out what does not fit, counted and shown.

    Raises:
        DocumentError: a document is too long or holds a marker.
        RecipeError: none is left.
    """
    source = world.source(TASK, split)
    documents = Dialogues(source, template) if world.kind == "chat" else source
    frame = builder.layout.frames[template.form]
    blank = Pictures(
        lambda _: tuple(np.zeros(shape, np.int64) for shape in frame.grid_shapes), lambda _: np.zeros((1, 1, 3), np.uint8)
    )
    # pairs are worded in several ways, of which one is counted: the longest wording is added to it
    slack = max(len(builder.layout.encode_text(text)) for text in template.texts()) if world.kind == "caption" else 0
    kept, left_out = [], Counter()
    for number, raw in enumerate(tqdm(source, desc=f"measuring {split}", disable=None)):
        try:
            for span in raw.spans:
                if isinstance(span, TextSpan):  # a wording may leave a text out: what it holds is looked at all the same
                    builder.layout.encode_text(template.plain(span.text, "Its text"))
            length = len(builder.encode(fill_images(template.wrap(documents[number], 0), blank))) + slack
        except MarkerError as error:
            reason, finding = "marker in a text", str(error).removesuffix(".")
        else:
            if length <= row_length:
                kept.append(number)
                continue
            reason = "too long"
            finding = (
                f"it takes up to {length} tokens, of which {frame.positions} for each of {len(raw.images)} pictures, "
                f"expected at most {row_length}. Set data.row_length={length}, or shorten it"
            )
        if on_bad_row == "error":
            raise DocumentError(f"Document {raw.id!r}: {finding}, or leave such documents out: data.on_bad_row=skip.")
        left_out[reason] += 1
    if left_out:
        log.warning("%s: %d of %d documents left out: %s", split, left_out.total(), len(source), _count(left_out))
    if not kept:
        raise RecipeError(
            f"0 of {len(source)} documents of {split} are left ({_count(left_out)}), expected at least 1. Next: raise data.row_length."
        )
    chosen = Part(source.rows, [source.numbers[number] for number in kept])
    return {TASK: Dialogues(chosen, template) if world.kind == "chat" else chosen}


class Dialogues(Sequence[Document]):
    """Raw dialogues in the wording of a template."""

    def __init__(self, documents: Sequence[Document], template: Any) -> None:
        self.documents, self.template = documents, template

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> Document:
        raw = self.documents[index]
        return self.template.chat(split_turns(raw), raw.id)


def _count(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"
