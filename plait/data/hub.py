"""One row schema for everything: documents with their pictures -> parquet, and such a folder or Hub dataset -> documents.

    id, split, source, license   strings; source says where the pictures come from ("real", "composed", ...)
    images                       the pictures of the row, encoded
    segments                     in reading order: type ("text" | "image"), text, image (index into images), image_id, loss,
                                 begin_loss
    meta                         JSON: what is known of the row (task, scene graph, ...), its "kind" ("text" | "pair" | "dialogue" |
                                 "document": how it is to be worded), "ends": false for open-ended documents
In data of your own, `image_id`, `begin_loss` and `meta` may be missing. This is the only file that imports `datasets`. It knows
no world, tokenizer or template; documents with codes are refused: codes belong to a tokenizer, rows to everybody.
"""

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from PIL import Image

from plait.document import Document, ImageSpan, Kind, Span, TextSpan
from plait.errors import DocumentError, RecipeError
from plait.images import open_image

if TYPE_CHECKING:
    import datasets

COLUMNS = ("id", "split", "source", "license", "images", "segments", "meta")
REQUIRED = ("id", "images", "segments")

_NO_DATASETS = "Reading and writing rows needs the package datasets: run `pip install datasets`."


def export_documents(
    documents: Sequence[Document],
    picture: Callable[[str], Image.Image],
    folder: str | PathLike[str],
    split: str = "train",
    rows_per_file: int = 5_000,
) -> list[Path]:
    """Write documents and their pictures as parquet files `<folder>/<split>-00000-of-00004.parquet`, which `open_rows` and
    `datasets.load_dataset(folder)` read.

    Args:
        picture: image id -> picture.
        split: name of the split for files and rows; a row keeps the split that its document names itself.

    Raises:
        DocumentError: a document holds codes instead of pictures.
        RecipeError: there are files of this split already, or `datasets` is not installed.
    """
    return write_rows((document_to_row(document, picture, split) for document in documents), folder, split, rows_per_file)


def write_rows(
    rows: Iterable[Mapping[str, Any]], folder: str | PathLike[str], split: str = "train", rows_per_file: int = 5_000
) -> list[Path]:
    """Write rows of the schema as they come, a file at a time; all of them, or nothing where one is refused.

    Raises:
        RecipeError: there are files of this split already, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise RecipeError(_NO_DATASETS) from error
    folder, features = Path(folder), _list_features()
    if found := _find_files(folder, split):
        raise RecipeError(
            f"{folder} already holds {len(found)} files of the split {split!r}: remove them or take another folder."
        )
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")  # a document that is refused leaves nothing behind
    beside.mkdir(parents=True)
    try:
        stream, count = iter(rows), 0
        while (chunk := list(islice(stream, rows_per_file))) or not count:
            columns = {name: [row[name] for row in chunk] for name in features}
            datasets.Dataset.from_dict(columns, features=features).to_parquet(beside / f"{count}")
            count += 1
        paths = [folder / f"{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(paths):
            os.replace(beside / f"{number}", path)
    finally:
        shutil.rmtree(beside)
    return paths


def document_to_row(document: Document, picture: Callable[[str], Image.Image], split: str = "") -> dict[str, Any]:
    """One row of the schema; a picture that occurs twice is stored once.

    Raises:
        DocumentError: the document holds codes, a form or a hole.
    """
    names: list[str] = []
    segments = []
    for span in document.spans:
        segment = {"type": "text", "text": "", "image": -1, "image_id": "", "loss": span.loss, "begin_loss": False}
        if isinstance(span, TextSpan):
            segment["text"] = span.text
        elif span.form is not None or span.codes is not None:
            raise DocumentError(
                f"Document {document.id!r}: picture {span.image_id!r} is already encoded (form {span.form!r}); "
                "export the raw document."
            )
        else:
            if span.image_id not in names:
                names.append(span.image_id)
            segment |= {"type": "image", "image": names.index(span.image_id), "image_id": span.image_id}
            segment["begin_loss"] = span.begin_loss
        segments.append(segment)
    own = ({} if document.ends else {"ends": False}) | ({"kind": document.kind} if document.kind else {})
    meta = {**document.meta, **own}
    return {
        "id": document.id,
        "split": document.meta.get("split", split),
        "source": document.meta.get("source", ""),
        "license": document.meta.get("license", ""),
        "images": [{"bytes": _to_png(picture(name)), "path": None} for name in names],
        "segments": segments,
        "meta": json.dumps(meta, sort_keys=True),
    }


def row_to_document(row: Mapping[str, Any]) -> Document:
    """The raw document of a row; inverse of `document_to_row`. Pictures are not touched.

    Raises:
        DocumentError: the row does not follow the schema.
    """
    name = row.get("id", "?")
    try:
        meta = json.loads(row.get("meta") or "{}")
        spans = tuple(_read_segment(segment, name) for segment in row["segments"])
        if not isinstance(meta, dict):
            raise TypeError(f"meta is {meta!r}, no JSON object")
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise DocumentError(
            f"Row {name!r} does not follow the schema, {error!r}: expected {COLUMNS}. Correct the row, or write it with "
            "export_documents."
        ) from error
    ends, kind = bool(meta.pop("ends", True)), meta.pop("kind", None)
    if kind not in (*get_args(Kind), None):
        raise DocumentError(
            f"Row {name!r} has the kind {kind!r} in its meta, expected one of {get_args(Kind)}. Correct the row."
        )
    facts = {key: row[key] for key in ("split", "source", "license") if row.get(key)}
    return Document(spans, id=str(name), ends=ends, kind=kind, meta={**facts, **meta})


class Rows(Sequence[Document]):
    """Documents of a parquet folder or Hub dataset, and their pictures by image id.

    Args:
        table: a dataset with the columns of the schema.
        folder: that the rows were read from; pictures that are no bytes lie in it, or in the cache of the Hub.
    """

    def __init__(self, table: "datasets.Dataset", folder: Path | None = None) -> None:
        self._folder = folder
        missing = [column for column in REQUIRED if column not in table.column_names]
        if missing:
            raise DocumentError(
                f"The data has the columns {table.column_names}, {missing} are missing: expected {COLUMNS}. Rename its columns, "
                "or write it with export_documents."
            )
        try:
            self._images, wanted = table.select_columns(["images"]), _list_features()["images"]
            if table.features["images"] != wanted:  # a cast reads every picture
                self._images = self._images.cast_column("images", wanted)
        except (TypeError, ValueError) as error:
            raise DocumentError(
                f"The column images has the type {table.features['images']}, expected a list of encoded pictures. Write the "
                "rows with export_documents."
            ) from error
        self._texts = table.remove_columns(["images"])
        self._places: dict[str, list[tuple[int, int]]] | None = None

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Document:
        return row_to_document(self._texts[index])

    def picture(self, image_id: str) -> Image.Image:
        """The picture as RGB.

        Raises:
            DocumentError: no row has it, two rows have different pictures of this name, or it cannot be read.
        """
        if self._places is None:
            self._places = {}
            for name, place in self._list_places():
                self._places.setdefault(name, []).append(place)
        if image_id not in self._places:
            raise DocumentError(
                f"None of {len(self)} rows has a picture {image_id!r}, expected one whose segments name it. Check the id."
            )
        first, *others = self._places[image_id]
        found = self._find_image(*first, image_id)
        for place in others:
            if self._find_image(*place, image_id) != found:
                one, other = (self._texts[row]["id"] for row, _ in (first, place))
                raise DocumentError(
                    f"Rows {one!r} and {other!r} have different pictures of the name {image_id!r}, expected one picture per "
                    "name. Rename one, or leave image_id out: pictures are then named after their row."
                )
        self._places[image_id] = [first]  # compared once
        return open_image(found, name=image_id)

    def _find_image(self, row: int, index: int, image_id: str) -> bytes | str:
        images, name = self._images[row]["images"], self._texts[row]["id"]
        if not 0 <= index < len(images):
            raise DocumentError(
                f"Row {name!r} has {len(images)} pictures, a segment names number {index}, expected a number below "
                f"{len(images)}. Correct the segment of {image_id!r}."
            )
        found, path = images[index]["bytes"], images[index]["path"]
        if not found and path and is_fetched(path, self._folder):
            return path
        if not found:
            raise DocumentError(
                f"Row {name!r}: picture {index} ({image_id!r}) has 0 bytes{f' and the path {path!r}' if path else ''}, expected its bytes: "
                "or the path of a file in the folder of the rows. Write them with export_documents."
            )
        return found

    def _list_places(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for row, (name, segments) in enumerate(zip(self._texts["id"], self._texts["segments"], strict=True)):
            for segment in segments:
                if segment["type"] == "image":
                    yield _name_image(segment, name), (row, segment["image"])


def open_rows(
    path: str | PathLike[str], split: str = "train", cache_dir: str | None = None, revision: str | None = None
) -> Rows:
    """Read a folder of parquet files, or a dataset of the Hub, that follows the schema.

    Args:
        path: the folder, or a name such as "user/name".
        cache_dir: where `datasets` keeps its working copy; None is its own choice.
        revision: commit of a Hub dataset; give one where results have to stay the same.

    Raises:
        RecipeError: there is no such folder, dataset or split, or `datasets` is not installed.
        DocumentError: columns are missing, or a file is damaged or absent.
    """
    try:
        import datasets
    except ImportError as error:
        raise RecipeError(_NO_DATASETS) from error
    folder = Path(path)
    if folder.is_dir():
        files = _find_files(folder, split)
        if not files:
            raise RecipeError(
                f"{folder} holds no parquet files of the split {split!r}: found {sorted(p.name for p in folder.iterdir())}, "
                f"expected {split}.parquet or {split}-00000-of-00001.parquet. Name another split or folder."
            )
        _check_files(files)
        try:
            table = datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=cache_dir)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise DocumentError(
                f"{folder}: {[file.name for file in files]} cannot be read as rows ({error}). Expected parquet files of one "
                "schema. Export or download them again."
            ) from error
        return Rows(table, folder)
    try:
        return Rows(datasets.load_dataset(str(path), split=split, cache_dir=cache_dir, revision=revision))
    except (FileNotFoundError, ConnectionError, ValueError) as error:
        raise RecipeError(
            f"{path} is neither a folder nor a dataset that can be reached, or has no split {split!r}: {error} Expected a "
            "folder of parquet files or a name such as user/name. Check the spelling and the network."
        ) from error


def is_fetched(path: str, folder: Path | None = None) -> bool:
    """Whether a path is that of a file which `datasets` or the Hub's own client has put into its cache, or of one in this folder."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    places = (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE, *(() if folder is None else (folder,)))
    try:
        return Path(path).is_absolute() and any(Path(path).resolve().is_relative_to(Path(place).resolve()) for place in places)
    except (OSError, RuntimeError, ValueError):
        return False


def load_table(
    source: str | Sequence[Path], split: str, name: str | None = None, revision: str | None = None, streaming: bool = False
) -> "datasets.IterableDataset":
    """Rows of any columns, one after the other, pictures left encoded.

    Args:
        source: name of a dataset on the Hub, or parquet files.
        split: of the dataset; files are one split, whatever it is called.
        name: configuration of a Hub dataset.
        revision: its commit.
        streaming: nothing of a Hub dataset is downloaded ahead.

    Raises:
        RecipeError: there is no such dataset, configuration or split, or `datasets` is not installed.
        DocumentError: a file is damaged.
    """
    try:
        import datasets
    except ImportError as error:
        raise RecipeError(_NO_DATASETS) from error
    try:
        if isinstance(source, str):
            table = datasets.load_dataset(source, name, split=split, revision=revision, streaming=streaming)
        else:
            _check_files(source)
            files = [str(file) for file in source]
            table = datasets.load_dataset("parquet", data_files={"train": files}, split="train", streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RecipeError(
            f"{source if isinstance(source, str) else files} cannot be opened as a dataset with the split {split!r}: "
            f"{str(error).splitlines()[0]} Expected a folder, a file, or a name such as user/name that can be reached. Check the "
            "spelling, the split, the configuration and the network."
        ) from error
    if isinstance(table, datasets.Dataset):
        table = table.to_iterable_dataset()  # whose cast is done row by row
    return table if table.features is None else table.cast(_leave_encoded(table.features))


def _leave_encoded(feature: Any) -> Any:
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List):
        return datasets.List(_leave_encoded(feature.feature), feature.length)
    if isinstance(feature, dict):
        return type(feature)({name: _leave_encoded(own) for name, own in feature.items()})
    return feature


def _list_features() -> "datasets.Features":
    import datasets

    segment = {name: datasets.Value("string") for name in ("type", "text", "image_id")}
    segment |= {"image": datasets.Value("int32"), "loss": datasets.Value("bool"), "begin_loss": datasets.Value("bool")}
    features = {name: datasets.Value("string") for name in ("id", "split", "source", "license")}
    # Not decoded by `datasets`: pictures go through plait's own loader, which refuses what it cannot read faithfully.
    features |= {"images": datasets.List(datasets.Image(decode=False)), "segments": datasets.List(segment)}
    return datasets.Features({**features, "meta": datasets.Value("string")})


def _find_files(folder: Path, split: str) -> list[Path]:
    return sorted({*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*-of-*.parquet")})


def _check_files(files: Sequence[Path]) -> None:
    """Every file of the split is there, and is whole at both ends: a part of the data must not pass for all of it."""
    counts = {int(file.stem.rpartition("-of-")[2]) for file in files if "-of-" in file.stem}
    if counts and counts != {len(files)}:
        raise DocumentError(
            f"{files[0].parent} holds {len(files)} files of the split, expected {max(counts)} as {files[-1].name} says. "
            "Download or export the missing ones, and remove what belongs to another export."
        )
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(4)
            stream.seek(-min(4, size), os.SEEK_END)
            tail = stream.read(4)
        if size < 12 or head != b"PAR1" or tail != b"PAR1":
            raise DocumentError(
                f"{file} is damaged: {size} bytes that begin with {head!r} and end with {tail!r}, expected "
                "b'PAR1' at both ends. It was cut short or is no parquet file: export or download it again."
            )


def _read_segment(segment: Mapping[str, Any], row: str) -> Span:
    if segment["type"] == "text":
        if not isinstance(segment["text"], str):
            raise TypeError(f"a segment of type 'text' has the text {segment['text']!r}")
        return TextSpan(segment["text"], bool(segment.get("loss")))
    if segment["type"] == "image":
        return ImageSpan(_name_image(segment, row), bool(segment.get("loss")), bool(segment.get("begin_loss")))
    raise DocumentError(f"Row {row!r} has a segment of type {segment['type']!r}: expected 'text' or 'image'. Correct the row.")


def _name_image(segment: Mapping[str, Any], row: str) -> str:
    return segment.get("image_id") or f"{row}/{segment['image']}"


def _to_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
