"""Pictures -> codes, shard after shard: however many processes share the work and however often it is stopped, the cache is the same.

A shard is a fixed run of the pictures, encoded in fixed batches (how many pictures are encoded together decides the last bits of a latent,
and so a code now and then). It is written whole or not at all beside the target, in `<folder>.encoding-<key>`, whose key names tokenizer,
pictures and batches: who comes back later, alone or as several, makes only what is missing. When all shards are there the first
process joins them, one in memory at a time. Pictures are loaded by workers while others are encoded. It does not know where pictures
come from, nor what a code means.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn
from torch.utils.data import DataLoader, Dataset

from plait.atomic import check_replaceable, replace_folder, write_bytes
from plait.axes import Images
from plait.errors import CheckpointError
from plait.protocols import VisionTokenizer
from plait.tokenizers.codes import FORMAT, MANIFEST, CodeCache, hash_file, hash_tokenizer

LoadPictures = Callable[[Sequence[str]], Images | Sequence[Images]]
Shard = Mapping[str, np.ndarray]
"""codes_0, codes_1, ...: per level (n gh gw); tiles (pictures), where pictures were cut"""
LOOK_EVERY_S = 0.2


def write_codes(
    folder: str | Path,
    tokenizer: VisionTokenizer,
    image_ids: Sequence[str],
    load_pictures: LoadPictures,
    *,
    batch_size: int = 64,
    batches_per_shard: int = 4,
    num_workers: int = 0,
    share: tuple[int, int] = (0, 1),
    data_fingerprint: str = "",
    overwrite: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> CodeCache:
    """Encode pictures and store their codes; what a stopped call has made is not made again.

    Args:
        folder: must not exist, unless `overwrite`.
        tokenizer: a module; it is used where it is, in evaluation mode, and given back as it was.
        image_ids: pictures in the order of the cache, no name twice.
        load_pictures: names -> (b 3 h w) in [-1, 1], all of the size that the tokenizer's `grid_shapes` belong to; or for each picture
            its tiles (t 3 h w).
        batch_size, batches_per_shard: pictures that are encoded together, and how many such batches are written at a time.
        num_workers: processes that load pictures; 0 loads them in this one.
        share: (rank, ranks): every rank calls with the same arguments, and all return when the cache is there.
        report: called after each shard with (pictures of this rank done, pictures of this rank).

    Returns:
        The cache, opened.

    Raises:
        CheckpointError: the folder exists, a name occurs twice, there are none, pictures and names differ in number, or a shard that was
            left is damaged.
    """
    folder, image_ids, (rank, ranks) = Path(folder), list(image_ids), share
    _check_request(folder, image_ids, overwrite)
    description = {
        "format": FORMAT,
        "tokenizer_hash": hash_tokenizer(tokenizer),
        "data_fingerprint": data_fingerprint,
        "code_sizes": list(tokenizer.code_sizes),
        "digit_sizes": [list(sizes) for sizes in tokenizer.digit_sizes],
        "grid_shapes": [list(shape) for shape in tokenizer.grid_shapes],
    }
    size = batch_size * batches_per_shard
    key = hashlib.sha256(json.dumps([description, batch_size, size, image_ids]).encode()).hexdigest()
    beside = folder.with_name(f"{folder.name}.encoding-{key[:16]}")
    if rank and not beside.exists() and _is_made(folder, description, image_ids):
        return CodeCache(folder)  # the others were faster and left nothing to do
    shards = {beside / f"{start:012d}.safetensors": image_ids[start : start + size] for start in range(0, len(image_ids), size)}
    try:
        beside.mkdir(parents=True, exist_ok=True)
        _make_missing(dict(list(shards.items())[rank::ranks]), tokenizer, load_pictures, batch_size, num_workers, report)
    except BaseException:
        with suppress(OSError):  # there are shards to go on from
            beside.rmdir()
        raise
    if rank == 0:
        while not all(path.is_file() for path in shards):  # others are still at theirs
            time.sleep(LOOK_EVERY_S)
        _join(folder, list(shards), {**description, "image_ids": image_ids})
        shutil.rmtree(beside.rename(f"{beside}.joined"))  # away at once: no rank sees half of it
    while beside.exists():
        time.sleep(LOOK_EVERY_S)
    return CodeCache(folder)


def _is_made(folder: Path, description: Mapping[str, Any], image_ids: Sequence[str]) -> bool:
    try:
        cache = CodeCache(folder, description["tokenizer_hash"], description["data_fingerprint"], verify=False)
    except CheckpointError:
        return False
    return cache.image_ids == tuple(image_ids)


def _make_missing(
    shards: Mapping[Path, Sequence[str]],
    tokenizer: VisionTokenizer,
    load_pictures: LoadPictures,
    batch_size: int,
    num_workers: int,
    report: Callable[[int, int], None] | None,
) -> None:
    missing = {path: names for path, names in shards.items() if not path.is_file()}
    total, left = (sum(map(len, some.values())) for some in (shards, missing))
    made = _encode_shards(tokenizer, list(missing.values()), load_pictures, batch_size, num_workers)
    for (path, names), shard in zip(missing.items(), made, strict=True):
        write_bytes(path, save(dict(shard)))
        left -= len(names)
        if report is not None:
            report(total - left, total)


def _check_request(folder: Path, image_ids: list[str], overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise CheckpointError(f"{folder} exists: expected a new folder. Delete it, or pass overwrite=True.")
    check_replaceable(folder, MANIFEST)  # before the work, not after it
    if not image_ids:
        raise CheckpointError(f"No pictures to encode into {folder}: expected at least one image id.")
    if len(set(image_ids)) != len(image_ids):
        seen: set[str] = set()
        twice = next(name for name in image_ids if name in seen or seen.add(name))
        raise CheckpointError(
            f"{len(image_ids)} image ids, {len(set(image_ids))} different: {twice!r} occurs twice. Pass each picture once."
        )


class _Batches(Dataset):
    """Pictures of each batch of names, as (tiles of all of them (n 3 h w), number of tiles of each or None)."""

    def __init__(self, batches: Sequence[Sequence[str]], load_pictures: LoadPictures) -> None:
        self.batches, self.load_pictures = batches, load_pictures

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, list[int] | None]:
        names = self.batches[index]
        pictures = self.load_pictures(names)
        if len(pictures) != len(names):
            raise CheckpointError(f"load_pictures gave {len(pictures)} pictures for {len(names)} names ({names[0]!r}, ...).")
        tiles = None
        if not isinstance(pictures, torch.Tensor):
            tiles = [len(picture) for picture in pictures]
            pictures = torch.cat(list(pictures))
        if not bool((pictures.abs() <= 1.0).all()):  # not a number is not at most 1 either
            raise CheckpointError(
                f"Pictures from {names[0]!r} on hold values from {pictures.min():g} to {pictures.max():g}, expected -1 to 1. "
                "Let load_pictures scale them (plait.images.to_tensor)."
            )
        return pictures, tiles


def _encode_shards(
    tokenizer: VisionTokenizer, shards: Sequence[Sequence[str]], load_pictures: LoadPictures, batch_size: int, num_workers: int
) -> Iterator[Shard]:
    batches = [[names[i : i + batch_size] for i in range(0, len(names), batch_size)] for names in shards]
    device = next(iter(tokenizer.state_dict().values())).device
    loader = DataLoader(
        _Batches([names for shard in batches for names in shard], load_pictures),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # a loader without one draws from the global generator
    )
    with _resting(tokenizer):
        loaded = iter(loader)
        for shard in batches:
            yield _encode_shard(tokenizer, shard, loaded, device)


def _encode_shard(
    tokenizer: VisionTokenizer, batches: Sequence[Sequence[str]], loaded: Iterator[Any], device: torch.device
) -> Shard:
    dtypes = [np.dtype("<u2") if size <= 2**16 else np.dtype("<u4") for size in tokenizer.code_sizes]
    grids: list[list[np.ndarray]] = [[] for _ in dtypes]
    cut: list[int] = []
    for names in batches:
        pictures, tiles = next(loaded)
        cut += tiles or ()
        with torch.no_grad():
            levels = tokenizer.encode(pictures.to(device, non_blocking=True))
        for grid, shape, dtype, codes in zip(grids, tokenizer.grid_shapes, dtypes, levels, strict=True):
            if tuple(codes.shape[1:]) != tuple(shape):
                raise CheckpointError(
                    f"Pictures from {names[0]!r} on give grids {tuple(codes.shape[1:])}, expected {tuple(shape)}: "
                    "load_pictures must return pictures of the size that the tokenizer was built for."
                )
            grid.append(codes.cpu().numpy().astype(dtype))
    shard = {f"codes_{index}": np.concatenate(grid) for index, grid in enumerate(grids)}
    return shard | ({"tiles": np.array(cut)} if cut else {})


def _join(folder: Path, shards: Sequence[Path], manifest: dict[str, Any]) -> None:
    """The cache of all shards, in place of what was there."""
    with replace_folder(folder, MANIFEST) as beside:
        names = [f"codes_{index}" for index in range(len(manifest["code_sizes"]))]
        tiles, kinds = [], {}
        for path in shards:
            shard = _read(path)
            tiles += shard["tiles"].tolist() if "tiles" in shard else ()
            for name in names:
                kinds[name] = {"dtype": shard[name].dtype.str, "shape": list(shard[name].shape[1:])}
                with (beside / f"{name}.bin").open("ab") as file:
                    file.write(shard[name].tobytes())
        manifest["files"] = [
            {"name": f"{name}.bin", **kinds[name], "sha256": hash_file(beside / f"{name}.bin")} for name in names
        ]
        manifest |= {"tiles": tiles} if tiles else {}
        (beside / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _read(path: Path) -> Shard:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}. Expected a shard of codes. Next: delete this file and encode again; the other shards are kept."
        ) from error


@contextmanager
def _resting(tokenizer: nn.Module) -> Iterator[None]:
    was_training = tokenizer.training
    tokenizer.eval()
    try:
        yield
    finally:
        tokenizer.train(was_training)


def _as_it_is(batch: Any) -> Any:
    return batch
