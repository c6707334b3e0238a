"""The offline cache of codes: pictures are encoded once, then read by image id.

A folder with one flat file per code level (uint16 where every code fits, else uint32; little endian; pictures in the order of
the manifest, codes in raster order) and `manifest.json`: image ids, grid shapes, code and digit sizes, the hash of the
tokenizer, the fingerprint of the data, and shape and hash of every file; and where pictures were cut into tiles, how many each
has (its tiles follow each other). Written whole or not at all (`plait.tokenizers.encoding`).
Does not know where pictures come from, nor what a code means.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.errors import CheckpointError

FORMAT = "plait-codes-1"
MANIFEST = "manifest.json"
KINDS = ("<u2", "<u4")
"""whole numbers of 2 or 4 bytes, as `numpy.dtype.str` writes them"""


class CodeCache:
    """Codes of encoded pictures by image id.

    Args:
        folder: what `plait.tokenizers.encoding.write_codes` wrote.
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
        if verify and (digest := hash_file(path)) != entry["sha256"]:
            raise CheckpointError(
                f"Code cache file {path}: sha256 {digest[:12]}..., the manifest says {entry['sha256'][:12]}.... "
                "The cache is damaged: delete the folder and encode again."
            )
        # the plain array over the map: indexing a np.memmap costs several times as much
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=shape))


def hash_tokenizer(tokenizer: nn.Module) -> str:
    """Hash of everything that decides a tokenizer's codes: class, code sizes, settings and weights."""
    digest = hashlib.sha256()
    digest.update(f"{type(tokenizer).__name__} {tokenizer.code_sizes} {tokenizer.digit_sizes} ".encode())
    digest.update(tokenizer.extra_repr().encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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


def hash_file(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
