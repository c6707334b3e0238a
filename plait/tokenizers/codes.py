"""The offline cache of codes: pictures are encoded once, then read by image id.

A folder with one flat file per code level (uint16 where every code fits, else uint32; little endian; pictures in the order of
the manifest, codes in raster order) and `manifest.json`: image ids, grid shapes, code and digit sizes, the hash of the
tokenizer, the fingerprint of the data, and shape and hash of every file; and where pictures were cut into tiles, how many each
has (its tiles follow each other). Written beside its target, flushed and renamed, so
that a folder under its final name is whole. Does not know where pictures come from, nor what a code means.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.axes import Images
from plait.errors import CheckpointError
from plait.protocols import VisionTokenizer

FORMAT = "plait-codes-1"
MANIFEST = "manifest.json"
KINDS = ("<u2", "<u4")
"""whole numbers of 2 or 4 bytes, as `numpy.dtype.str` writes them"""


class CodeCache:
    """Codes of encoded pictures by image id.

    Args:
        folder: what `write_codes` wrote.
        tokenizer_hash: refuse the cache unless this tokenizer made it (`hash_tokenizer`); None accepts any.
        data_fingerprint: refuse the cache unless it was made from this data; None accepts any.
        verify: compare the hash of every file, not only its size (about 1 s per GB).

    Raises:
        CheckpointError: the cache is missing, damaged, or made by another tokenizer or from other data.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer_hash: str | None = None,
        data_fingerprint: str | None = None,
        verify: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        for name, expected in (("tokenizer_hash", tokenizer_hash), ("data_fingerprint", data_fingerprint)):
            if expected is not None and self.manifest[name] != expected:
                raise CheckpointError(
                    f"Code cache {self.folder}: {name} is {self.manifest[name]!r}, expected {expected!r}. "
                    "Encode the pictures again with the present tokenizer and data (plait-encode)."
                )
        self.image_ids: tuple[str, ...] = tuple(self.manifest["image_ids"])
        self.code_sizes: tuple[int, ...] = tuple(self.manifest["code_sizes"])
        self.digit_sizes: tuple[tuple[int, ...], ...] = tuple(tuple(sizes) for sizes in self.manifest["digit_sizes"])
        self.grid_shapes: tuple[tuple[int, int], ...] = tuple((gh, gw) for gh, gw in self.manifest["grid_shapes"])
        self._row = {image_id: row for row, image_id in enumerate(self.image_ids)}
        self._starts = _find_starts(self.manifest, self.folder)
        files = self.manifest["files"]
        shapes = [tuple(entry["shape"]) for entry in files]
        if shapes != list(self.grid_shapes):
            raise CheckpointError(
                f"Code cache {self.folder}: its files hold grids {shapes}, its manifest says {list(self.grid_shapes)}. "
                "The cache is damaged: delete the folder and encode again."
            )
        self._levels = [self._map(entry, verify) for entry in files]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._row

    def __getitem__(self, image_id: str) -> tuple[np.ndarray, ...]:
        """One int64 grid (gh, gw) per level, of a picture in several tiles (t, gh, gw).

        Raises:
            CheckpointError: the picture was not encoded.
        """
        row = self._row.get(image_id)
        if row is None:
            raise CheckpointError(
                f"Code cache {self.folder} has no picture {image_id!r}: it holds {len(self)} pictures, "
                f"the first is {self.image_ids[0]!r}. Encode this picture too (plait-encode), or read another cache."
            )
        first, stop = self._starts[row], self._starts[row + 1]
        place = first if stop - first == 1 else slice(first, stop)
        return tuple(level[place].astype(np.int64) for level in self._levels)

    def level(self, index: int) -> np.ndarray:
        """All codes of one level as stored: (n gh gw) unsigned integers, read-only; n counts tiles."""
        return self._levels[index]

    def _map(self, entry: dict[str, Any], verify: bool) -> np.ndarray:
        name, kind = entry["name"], entry["dtype"]
        if not isinstance(name, str) or Path(name).name != name or kind not in KINDS:
            raise CheckpointError(
                f"Code cache {self.folder}: its manifest names the file {name!r} of {kind!r}, expected a file of the folder, of "
                f"{', '.join(KINDS)}. The cache is damaged: delete the folder and encode again."
            )
        path = self.folder / name
        shape = (int(self._starts[-1]), *entry["shape"])
        dtype = np.dtype(entry["dtype"])
        found = path.stat().st_size if path.is_file() else None
        expected = int(np.prod(shape)) * dtype.itemsize
        if found != expected:
            kind = "tiles" if "tiles" in self.manifest else "pictures"
            raise CheckpointError(
                f"Code cache file {path}: {'missing' if found is None else f'{found} bytes'}, expected {expected} bytes "
                f"for {shape[0]} {kind} of {entry['shape']} codes. The cache is damaged: delete the folder and encode again."
            )
        if verify and (digest := _hash_file(path)) != entry["sha256"]:
            raise CheckpointError(
                f"Code cache file {path}: sha256 {digest[:12]}..., the manifest says {entry['sha256'][:12]}.... "
                "The cache is damaged: delete the folder and encode again."
            )
        # the plain array over the map: indexing a np.memmap costs several times as much
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=shape))


def write_codes(
    folder: str | Path,
    tokenizer: VisionTokenizer,
    image_ids: Sequence[str],
    load_pictures: Callable[[Sequence[str]], Images | Sequence[Images]],
    *,
    batch_size: int = 64,
    data_fingerprint: str = "",
    overwrite: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> CodeCache:
    """Encode pictures and store their codes.

    Args:
        folder: must not exist, unless `overwrite`.
        tokenizer: a module; it is used in evaluation mode and given back as it was.
        image_ids: pictures in the order of the cache, no name twice.
        load_pictures: names -> (b 3 h w) in [-1, 1], all of the size that the tokenizer's `grid_shapes` belong to; or for each picture
            its tiles (t 3 h w).
        report: called after each batch with (pictures done, pictures in all).

    Returns:
        The cache, opened.

    Raises:
        CheckpointError: the folder exists, a name occurs twice, there are none, or pictures and names differ in number.
    """
    folder = Path(folder)
    image_ids = list(image_ids)
    _check_request(folder, image_ids, overwrite)
    grids, tiles = _encode(tokenizer, image_ids, load_pictures, batch_size, report)
    temporary = folder.with_name(f"{folder.name}.writing-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        files = []
        for index, grid in enumerate(grids):
            path = temporary / f"codes_{index}.bin"
            _write_flushed(path, grid.tobytes())
            files.append(
                {"name": path.name, "dtype": grid.dtype.str, "shape": list(grid.shape[1:]), "sha256": _hash_file(path)}
            )
        manifest = {
            "format": FORMAT,
            "tokenizer_hash": hash_tokenizer(tokenizer),
            "data_fingerprint": data_fingerprint,
            "code_sizes": list(tokenizer.code_sizes),
            "digit_sizes": [list(sizes) for sizes in tokenizer.digit_sizes],
            "grid_shapes": [list(shape) for shape in tokenizer.grid_shapes],
            "files": files,
            "image_ids": image_ids,
        }
        manifest |= {"tiles": tiles} if tiles else {}
        _write_flushed(temporary / MANIFEST, json.dumps(manifest).encode())
        _put_in_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return CodeCache(folder)


def hash_tokenizer(tokenizer: nn.Module) -> str:
    """Hash of everything that decides a tokenizer's codes: class, code sizes, settings and weights."""
    digest = hashlib.sha256()
    digest.update(f"{type(tokenizer).__name__} {tokenizer.code_sizes} {tokenizer.digit_sizes} ".encode())
    digest.update(tokenizer.extra_repr().encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_request(folder: Path, image_ids: list[str], overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise CheckpointError(f"{folder} exists: expected a new folder. Delete it, or pass overwrite=True.")
    if not image_ids:
        raise CheckpointError(f"No pictures to encode into {folder}: expected at least one image id.")
    if len(set(image_ids)) != len(image_ids):
        seen: set[str] = set()
        twice = next(name for name in image_ids if name in seen or seen.add(name))
        raise CheckpointError(
            f"{len(image_ids)} image ids, {len(set(image_ids))} different: {twice!r} occurs twice. Pass each picture once."
        )


def _encode(
    tokenizer: VisionTokenizer,
    image_ids: list[str],
    load_pictures: Callable[[Sequence[str]], Images | Sequence[Images]],
    batch_size: int,
    report: Callable[[int, int], None] | None,
) -> tuple[list[np.ndarray], list[int]]:
    """Codes per level, and how many tiles each picture has; empty where pictures were not cut."""
    dtypes = [np.dtype("<u2") if size <= 2**16 else np.dtype("<u4") for size in tokenizer.code_sizes]
    grids: list[list[np.ndarray]] = [[] for _ in dtypes]
    tiles: list[int] = []
    was_training = tokenizer.training
    device = next(iter(tokenizer.state_dict().values())).device
    tokenizer.eval()
    try:
        for start in range(0, len(image_ids), batch_size):
            names = image_ids[start : start + batch_size]
            pictures = load_pictures(names)
            if len(pictures) != len(names):
                raise CheckpointError(
                    f"load_pictures gave {len(pictures)} pictures for {len(names)} names ({names[0]!r}, ...)."
                )
            if not isinstance(pictures, torch.Tensor):
                tiles += map(len, pictures)
                pictures = torch.cat(list(pictures))
            if not bool((pictures.abs() <= 1.0).all()):  # not a number is not at most 1 either
                raise CheckpointError(
                    f"Pictures from {names[0]!r} on hold values from {pictures.min():g} to {pictures.max():g}, expected -1 to 1. "
                    "Let load_pictures scale them (plait.images.to_tensor)."
                )
            with torch.no_grad():
                levels = tokenizer.encode(pictures.to(device))
            for grid, shape, dtype, codes in zip(grids, tokenizer.grid_shapes, dtypes, levels, strict=True):
                if tuple(codes.shape[1:]) != tuple(shape):
                    raise CheckpointError(
                        f"Pictures from {names[0]!r} on give grids {tuple(codes.shape[1:])}, expected {tuple(shape)}: "
                        "load_pictures must return pictures of the size that the tokenizer was built for."
                    )
                grid.append(codes.cpu().numpy().astype(dtype))
            if report is not None:
                report(start + len(names), len(image_ids))
    finally:
        tokenizer.train(was_training)
    return [np.concatenate(grid) for grid in grids], tiles


def _find_starts(manifest: dict[str, Any], folder: Path) -> Sequence[int] | np.ndarray:
    """The first row of each picture, and behind the last one the number of rows."""
    count = len(manifest["image_ids"])
    if "tiles" not in manifest:
        return range(count + 1)
    tiles = manifest["tiles"]
    if len(tiles) != count or not all(isinstance(number, int) and number > 0 for number in tiles):
        raise CheckpointError(
            f"Code cache {folder}: its manifest has {len(tiles)} numbers of tiles for {count} pictures, expected one of at least 1 "
            "for each. The cache is damaged: delete the folder and encode again."
        )
    return np.concatenate([[0], np.cumsum(tiles)])


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"No code cache at {folder}: {MANIFEST} is missing, expected there. Make one with plait-encode.")
    try:
        manifest = json.loads(path.read_text())
        missing = {"tokenizer_hash", "data_fingerprint", "code_sizes", "digit_sizes", "grid_shapes", "files", "image_ids"}
        missing -= manifest.keys()
        found = manifest.get("format")
        if found == FORMAT and not all(
            {"name", "dtype", "shape", "sha256"} <= entry.keys() for entry in manifest.get("files", ())
        ):
            raise ValueError("an entry of `files` lacks name, dtype, shape or sha256")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Expected the JSON of a cache. The cache is damaged: delete the folder and encode again."
        ) from error
    if found != FORMAT or missing:
        raise CheckpointError(
            f"{path}: format {found!r}, missing keys {sorted(missing)}; expected {FORMAT!r}. Encode again (plait-encode)."
        )
    return manifest


def _put_in_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f"{folder.name}.replaced-{os.getpid()}")
    folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old)


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
