"""The code cache: round trip, refusal of what does not fit, damage, speed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plait.errors import CheckpointError
from plait.records import LossTerms
from plait.tokenizers.codes import CodeCache, hash_tokenizer
from plait.tokenizers.encoding import write_codes
from plait.tokenizers.patch_fsq import PatchFSQ

IDS = [f"scene/{index}" for index in range(11)]


def make(seed: int = 0, **settings) -> PatchFSQ:
    torch.manual_seed(seed)
    sizes = {"image_size": (16, 24), "patch_size": 8, "width": 16, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2}
    return PatchFSQ(**{**sizes, "levels": (8, 8, 5), **settings})


def load_pictures(names: list[str]) -> torch.Tensor:
    return torch.stack([picture(name) for name in names])


def picture(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(name.split("/")[1]))
    return torch.rand(3, 16, 24, generator=generator) * 2 - 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "codes"
    write_codes(folder, make(), IDS, load_pictures, batch_size=4, data_fingerprint="world-1")
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "codes"))


def test_holds_what_the_tokenizer_says(written: Path) -> None:
    cache, tokenizer = CodeCache(written), make().eval()
    assert len(cache) == 11
    assert cache.image_ids == tuple(IDS)
    assert (cache.code_sizes, cache.digit_sizes, cache.grid_shapes) == ((320,), ((8, 8, 5),), ((2, 3),))
    for name in IDS:
        (grid,) = cache[name]
        assert grid.dtype == np.int64
        np.testing.assert_array_equal(grid, tokenizer.encode(picture(name)[None])[0][0].numpy())
    assert "scene/3" in cache
    assert "scene/99" not in cache
    assert sorted(path.name for path in written.parent.iterdir()) == ["codes"], "a temporary folder was left behind"


@pytest.mark.parametrize(("levels", "dtype"), [((8, 8, 5), "<u2"), ((256, 256), "<u2"), ((256, 257), "<u4")])
def test_takes_the_smallest_integers_that_hold_every_code(tmp_path: Path, levels: tuple[int, ...], dtype: str) -> None:
    cache = write_codes(tmp_path / "codes", make(levels=levels), IDS[:3], load_pictures)
    assert cache.level(0).dtype == np.dtype(dtype)
    assert cache.level(0).shape == (3, 2, 3)


class TwoLevels(torch.nn.Module):
    """A tokenizer with two grids of different size, whose codes are plain functions of the picture."""

    code_sizes, digit_sizes = (7, 70_000), ((7,), (70_000,))
    grid_shapes, image_size = ((1, 2), (2, 3)), (16, 24)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(69_000))

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = (images[:, 0, ::8, ::8].abs() * 900).long() + self.shift
        return fine[:, :1, :2] % 7, fine

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        return LossTerms()  # nothing to train


def test_levels_keep_their_own_shapes_and_integers(tmp_path: Path) -> None:
    tokenizer = TwoLevels()
    cache = write_codes(tmp_path / "codes", tokenizer, IDS, load_pictures, batch_size=3)
    assert [cache.level(index).dtype.str for index in (0, 1)] == ["<u2", "<u4"]
    expected = tokenizer.encode(picture("scene/5")[None])
    for grid, codes in zip(cache["scene/5"], expected, strict=True):
        np.testing.assert_array_equal(grid, codes[0].numpy())


def load_tiles(names: list[str]) -> list[torch.Tensor]:
    """One tile more from picture to picture, up to three."""
    return [torch.stack([picture(name)] * (1 + int(name.split("/")[1]) % 3)).mul(0.5) for name in names]


def test_tiles_of_a_picture_are_kept_together(tmp_path: Path) -> None:
    cache, tokenizer = write_codes(tmp_path / "codes", make(), IDS, load_tiles, batch_size=4), make().eval()
    assert len(cache) == 11
    assert cache.level(0).shape == (4 * 1 + 4 * 2 + 3 * 3, 2, 3)
    for name in IDS:
        ((tiles,), (grid,)) = load_tiles([name]), cache[name]
        expected = tokenizer.encode(tiles)[0].numpy()
        np.testing.assert_array_equal(grid, expected if len(tiles) > 1 else expected[0])
    path = tmp_path / "codes" / "manifest.json"
    manifest = json.loads(path.read_text())
    for tiles in (manifest["tiles"][:-1], [0, *manifest["tiles"][1:]]):
        path.write_text(json.dumps({**manifest, "tiles": tiles}))
        with pytest.raises(CheckpointError, match=r"numbers of tiles for 11 pictures, expected one of at least 1"):
            CodeCache(tmp_path / "codes")


def test_encoding_leaves_the_tokenizer_in_its_mode(tmp_path: Path) -> None:
    tokenizer = make().train()
    write_codes(tmp_path / "codes", tokenizer, IDS[:2], load_pictures)
    assert tokenizer.training


def test_hash_follows_weights_and_settings() -> None:
    assert hash_tokenizer(make()) == hash_tokenizer(make())
    others = [make(seed=1), make(num_heads=1), make(levels=(8, 5, 8)), make(encoder_attends=True)]
    assert len({hash_tokenizer(tokenizer) for tokenizer in [make(), *others]}) == 5


def test_refuses_another_tokenizer_and_other_data(written: Path) -> None:
    CodeCache(written, tokenizer_hash=hash_tokenizer(make()), data_fingerprint="world-1")
    with pytest.raises(CheckpointError, match=r"tokenizer_hash is '\w+', expected '\w+'.*Encode the pictures again"):
        CodeCache(written, tokenizer_hash=hash_tokenizer(make(seed=1)))
    with pytest.raises(CheckpointError, match="data_fingerprint is 'world-1', expected 'world-2'"):
        CodeCache(written, data_fingerprint="world-2")


def test_names_a_missing_picture(written: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no picture 'scene/99': it holds 11 pictures"):
        CodeCache(written)["scene/99"]


def test_finds_damage(copied: Path) -> None:
    path = copied / "codes_0.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(CheckpointError, match="130 bytes, expected 132 bytes for 11 pictures"):
        CodeCache(copied)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(CheckpointError, match=r"sha256 .* the manifest says .* damaged"):
        CodeCache(copied)
    path.unlink()
    with pytest.raises(CheckpointError, match="missing, expected 132 bytes"):
        CodeCache(copied)


def test_finds_a_broken_manifest(copied: Path) -> None:
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": "other"}))
    with pytest.raises(CheckpointError, match="format 'other'"):
        CodeCache(copied)
    del manifest["tokenizer_hash"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"missing keys \['tokenizer_hash'\]"):
        CodeCache(copied)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        CodeCache(copied)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        CodeCache(copied)


def test_a_failed_run_leaves_the_old_cache_and_no_rest(copied: Path) -> None:
    before = CodeCache(copied)["scene/0"]
    with pytest.raises(CheckpointError, match="exists: expected a new folder"):
        write_codes(copied, make(seed=1), IDS, load_pictures)
    with pytest.raises(CheckpointError, match="gave 1 pictures for 2 names"):
        write_codes(copied, make(seed=1), IDS[:2], lambda names: load_pictures(names[:1]), overwrite=True)
    with pytest.raises(CheckpointError, match=r"grids \(2, 2\), expected \(2, 3\)"):
        write_codes(copied, make(), IDS, lambda names: load_pictures(names)[..., :16], overwrite=True)
    with pytest.raises(CheckpointError, match="'scene/0' occurs twice"):
        write_codes(copied, make(), ["scene/0", "scene/0"], load_pictures, overwrite=True)
    np.testing.assert_array_equal(CodeCache(copied)["scene/0"], before)
    write_codes(copied, make(seed=1), IDS[:2], load_pictures, overwrite=True)
    assert len(CodeCache(copied, tokenizer_hash=hash_tokenizer(make(seed=1)))) == 2
    assert [path.name for path in copied.parent.iterdir()] == ["codes"]
