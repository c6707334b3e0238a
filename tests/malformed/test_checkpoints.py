"""Malformed checkpoints and code caches: damaged on disk byte by byte, then read as users read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from plait.backbones.text import WordTokenizer
from plait.checkpoints import file_hash, load_weights, read_checkpoint, save_checkpoint
from plait.runs import Run
from plait.tokenizers.codes import CodeCache, hash_tokenizer
from plait.tokenizers.encoding import write_codes
from tests.malformed.standard import Attempt, Case, assert_refused, table
from tests.malformed.test_images import tiny_tokenizer


class Tied(nn.Module):
    """An embedding whose table is the output matrix too."""

    def __init__(self, rows: int = 5, is_tied: bool = True) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(rows, 3), nn.Linear(3, rows, bias=False)
        if is_tied:
            self.head.weight = self.embed.weight


Damage = Callable[[Path], Any]


def nothing(folder: Path) -> None:
    """Leave it whole."""


def flip(name: str) -> Damage:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-5] ^= 1
        (folder / name).write_bytes(data)

    return damage


def cut(name: str, size: int = 6) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-size])


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def edit(**entries: Any) -> Damage:
    """Change entries of the manifest."""

    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return damage


def weights(
    damage: Damage, model: Callable[[], nn.Module] = Tied, saved: Callable[[], nn.Module] = Tied, **options: Any
) -> Any:
    """A damaged checkpoint, read into a model."""

    def prepare(folder: Path) -> tuple[Attempt, nn.Module]:
        save_checkpoint(folder / "base", saved())
        damage(folder / "base")
        module = model()
        return lambda: load_weights(module, folder / "base", **options), module

    return prepare


def spoil(value: float) -> Damage:
    """Put a value into the weights that is no number, and the hash that fits: nothing of ours writes such a file."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["embed.weight"][1, 2] = value
        save_file(tensors, folder / "model.safetensors")
        edit(hashes={"model.safetensors": file_hash(folder / "model.safetensors")})(folder)

    return damage


def broken_weights(folder: Path) -> Attempt:
    """A model whose training has diverged is to replace one that has not."""
    save_checkpoint(folder / "last.ckpt", Tied())
    model = Tied()
    with torch.no_grad():
        model.embed.weight[1, 2] = float("nan")
    return lambda: save_checkpoint(folder / "last.ckpt", model)


def state(damage: Damage, has_state: bool = True, **options: Any) -> Any:
    """A damaged training state, read for a resume."""

    def prepare(folder: Path) -> Attempt:
        save_checkpoint(folder / "last.ckpt", Tied(), state={"moments": [torch.ones(2)]} if has_state else None)
        damage(folder / "last.ckpt")
        return lambda: read_checkpoint(folder / "last.ckpt", with_state=True, **options)

    return prepare


def aim(**facts: Any) -> Damage:
    """Let the manifest of a cache say something else of its file."""

    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][0].update(facts)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def cache(damage: Damage, picture: str = "p0", **options: Any) -> Any:
    """A damaged cache of codes, opened and read."""

    def prepare(folder: Path) -> Attempt:
        pictures = {f"p{index}": torch.rand(3, 32, 32) for index in range(4)}
        tokenizer = tiny_tokenizer()
        write_codes(folder / "codes", tokenizer, list(pictures), lambda names: torch.stack([pictures[name] for name in names]))
        damage(folder / "codes")
        return lambda: CodeCache(folder / "codes", hash_tokenizer(tokenizer), **options)[picture]

    return prepare


def cache_of_another_tokenizer(folder: Path) -> Attempt:
    write_codes(folder / "codes", tiny_tokenizer(), ["p0"], lambda names: torch.zeros(1, 3, 32, 32))
    other = tiny_tokenizer()
    nn.init.ones_(other.encoder.patch_in.bias)
    return lambda: CodeCache(folder / "codes", hash_tokenizer(other))


def cache_in_the_way(folder: Path) -> Attempt:
    cache(nothing)(folder)
    return lambda: write_codes(folder / "codes", tiny_tokenizer(), ["p9"], lambda names: torch.zeros(1, 3, 32, 32))


def unwritable_state(folder: Path) -> Attempt:
    return lambda: save_checkpoint(folder / "last.ckpt", Tied(), state={"callbacks": {"mine": object()}})


def words(folder: Path) -> Attempt:
    (folder / "tokenizer.json").write_text('{"model": ')
    return lambda: WordTokenizer.load(folder)


def metrics(folder: Path) -> Attempt:
    (folder / "metrics.jsonl").write_text('{"step": 0, "train/loss": 1.5}\n{"step": 1, "train/lo')
    return lambda: Run(folder).metrics


ANOTHER = "Take another checkpoint"
ENCODE = "delete the folder and encode again"


@table(
    Case(
        "missing",
        lambda f: lambda: load_weights(Tied(), f / "none"),
        "none is no checkpoint",
        "does not exist.*Exp",
        "Check the",
    ),
    Case("no-manifest", weights(remove("manifest.json")), "base is no", r"has no manifest\.json. Expected", "Check the path"),
    Case("no-weights", weights(remove("model.safetensors")), "base is", r"model\.safetensors is missing, expected", ANOTHER),
    Case(
        "one-bit-flipped",
        weights(flip("model.safetensors")),
        r"model\.safet",
        r"its sha256 is \w+\.\.\., the manifest",
        ANOTHER,
    ),
    Case("cut", weights(cut("model.safetensors")), r"model\.safetensors", "its sha256 is .*changed or cut", ANOTHER),
    Case(
        "cut-unverified",
        weights(cut("model.safetensors"), verify=False),
        r"model\.saf",
        "cannot be read.*Expected whole",
        ANOTHER,
    ),
    Case(
        "manifest-no-json",
        weights(write("manifest.json", "{")),
        r"manifest\.json is damaged",
        "line 1 .*Expected",
        "Take an earlier",
    ),
    Case(
        "manifest-a-list",
        weights(write("manifest.json", "[1]")),
        r"manifest\.json is",
        "holds a list, no JSON",
        "Take an earlier",
    ),
    Case(
        "manifest-strange-key",
        weights(edit(colour="red")),
        r"manifest\.json is damaged",
        "'colour'.*Expected",
        "Take an earlier",
    ),
    Case(
        "manifest-wrong-kinds", weights(edit(aliases=[1])), r"manifest\.json is damaged", "no JSON objects", "Take an earlier"
    ),
    Case(
        "other-format",
        weights(edit(format="plait-9")),
        "base has format",
        "'plait-9', this version reads 'plait-c",
        "Read it with",
    ),
    Case(
        "other-shapes", weights(nothing, lambda: Tied(7)), r"embed\.weight", r"\(5, 3\) saved, \(7, 3\) here", "Build the model"
    ),
    Case(
        "too-few",
        weights(nothing, saved=lambda: nn.Linear(2, 2)),
        r"embed\.weight",
        "2 of 2 tensors are missing",
        "is_strict=False",
    ),
    Case(
        "too-many", weights(nothing, lambda: nn.Embedding(5, 3)), r"base.*weight", r"\d are unexpected", "Build the model from"
    ),
    Case(
        "weights-of-nan",
        weights(spoil(float("nan"))),
        r"base holds broken weights: \d of \d tensors.*embed\.weight",
        "1 of 15.*Expected numbers",
        "take an earlier checkpoint",
    ),
    Case(
        "weights-of-infinity",
        weights(spoil(float("-inf")), is_strict=False),
        r"base holds broken.*embed\.weight",
        "not finite",
        "at a lower rate",
    ),
    Case(
        "saving-broken-weights",
        broken_weights,
        r"last\.ckpt is not written: .* holds broken weights: 1 of \d|2 of",
        r"embed\.weight: 1 of 15.*Expected numbers",
        "take an earlier checkpoint",
    ),
    Case(
        "torn-tie",
        weights(nothing, saved=lambda: Tied(is_tied=False)),
        r"head\.weight = embed",
        "different values",
        "Build the",
    ),
    Case(
        "tie-to-nothing",
        weights(edit(aliases={"head.weight": "x"})),
        r"model\.safetensors",
        r"lacks 1 tensors.*\['x'\]",
        ANOTHER,
    ),
    Case(
        "weights-only",
        state(nothing, has_state=False),
        r"last\.ckpt",
        r"weights only, expected state\.json",
        "Use it as a base",
    ),
    Case("state-flipped", state(flip("state.safetensors")), r"state\.safetensors", "its sha256 is", ANOTHER),
    Case(
        "state-no-json", state(write("state.json", "{"), verify=False), r"state\.json is damaged", "line 1 .*Expected", ANOTHER
    ),
    Case("state-torn", state(write("state.json", '{"tensor": "x"}'), verify=False), "'x'", "expected among 1", ANOTHER),
    Case("state-unwritable", unwritable_state, "callbacks/mine", "object.*cannot be written without pickle", "Turn it into"),
    Case(
        "cache-missing",
        lambda f: lambda: CodeCache(f / "none"),
        "cache at .*none",
        r"manifest\.json is missing, exp",
        "plait-encode",
    ),
    Case(
        "cache-of-another-tokenizer",
        cache_of_another_tokenizer,
        "codes: tokenizer_hash",
        "is '.*', expected '",
        "Encode the pict",
    ),
    Case(
        "cache-of-other-data", cache(nothing, data_fingerprint="x"), "data_fingerprint", "is '', expected 'x'", "plait-encode"
    ),
    Case("cache-cut", cache(cut("codes_0.bin")), r"codes_0\.bin", "26 bytes, expected 32 bytes for 4 pictures", ENCODE),
    Case("cache-flipped", cache(flip("codes_0.bin")), r"codes_0\.bin", r"sha256 \w+\.\.\., the manifest says", ENCODE),
    Case("cache-without-codes", cache(remove("codes_0.bin")), r"codes_0\.bin", "missing, expected 32 bytes", ENCODE),
    Case("cache-manifest-no-json", cache(write("manifest.json", "{")), r"manifest\.json", "line 1 .*Expected the JSON", ENCODE),
    Case("cache-manifest-incomplete", cache(edit(files=[{}])), r"manifest\.json", "an entry of `files` lacks name", ENCODE),
    Case(
        "cache-elsewhere",
        cache(aim(name="../codes_0.bin")),
        r"codes: its manifest",
        r"'\.\./codes_0\.bin' of '<u2', expected a file of",
        ENCODE,
    ),
    Case("cache-of-objects", cache(aim(dtype="|O")), r"codes: its manifest", r"of '\|O', expected .*of <u2, <u4", ENCODE),
    Case("cache-of-other-grids", cache(edit(grid_shapes=[[3, 3]])), "codes: its", r"\[\(2, 2\)\].*\[\(3, 3\)\]", ENCODE),
    Case("cache-without-picture", cache(nothing, "p7"), "'p7'", "holds 4 pictures, the first is 'p0'", "Encode this picture"),
    Case("cache-in-the-way", cache_in_the_way, "codes exists", "expected a new folder", "Delete it, or pass overwrite"),
    Case("words-cut", words, r"tokenizer\.json is damaged", "line 1 .*Expected what", "Save or copy it again"),
    Case("metrics-cut", metrics, r"metrics\.jsonl, line 2", "Unterminated string", "Delete the line"),
)
def test_a_malformed_checkpoint_is_refused(case: Case, tmp_path: Path) -> None:
    assert_refused(case, tmp_path / "given")
