"""plait-convert and plait-export: a release of small sizes goes in, draws, is a base, and comes out as it was."""

import logging

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained
from lightning_modules.running.launch import launch, load_bases
from plait.adapters.shards import read_shards
from plait.checkpoints import read_manifest
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import CheckpointError, RecipeError
from plait.tokenizers.vqgan import VQGAN
from tests.adapters.releases import write_release

ROWS, CODES = 300, 64
VISION = {"image_size": [32, 32], "width": 32, "multipliers": [1, 1, 1, 1, 1], "blocks_per_level": 1}
VISION |= {"latent_channels": 8, "num_codes": CODES, "code_width": 8}
SIZES = [f"vision_tokenizer.{name}={value}".replace(" ", "") for name, value in VISION.items()]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """(folder with Gemma and tokenizer, vqgan.ckpt, the two models)"""
    folder = tmp_path_factory.mktemp("release")
    model = write_release(folder / "liquid", shard_size="20KB", vocab_size=ROWS + CODES, max_position_embeddings=1024)
    torch.manual_seed(0)
    vqgan = VQGAN(**VISION).eval()
    torch.save({"state_dict": {**vqgan.state_dict(), "loss.logvar": torch.zeros(())}}, folder / "vqgan.ckpt")
    return folder / "liquid", folder / "vqgan.ckpt", model, vqgan


def convert(release, tmp_path, *overrides: str):
    source, vqgan, *_ = release
    given = [f"source={source}", f"vqgan={vqgan}", f"target={tmp_path / 'converted'}", f"paths.folder={tmp_path / 'job'}"]
    return launch(compose_job("convert", [*given, f"backbone.vocab_size={ROWS}", *SIZES, *overrides]))


@pytest.fixture(scope="module")
def converted(release, tmp_path_factory) -> str:
    return convert(release, tmp_path_factory.mktemp("converted"))


@torch.no_grad()
def test_a_release_becomes_a_saved_model(release, converted) -> None:
    _, _, reference, vqgan = release
    model = from_pretrained(converted)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(model.vision_tokenizer.encode(images)[0], vqgan.encode(images)[0])
    image = ImageSpan("i", form="codes", codes=(model.vision_tokenizer.encode(images)[0][0].numpy(),))
    batch = model.builder.build([Document((TextSpan("a car"), image))])
    logits = model.head.logits(model.hidden(batch)[0], [0, 1])
    torch.testing.assert_close(logits, reference(batch.ids).logits[0], atol=1e-5, rtol=1e-5)
    assert model.builder.vocabulary.specials["unconditional"] == 9
    assert str(release[0]) not in str(read_manifest(converted).config)


def test_it_draws_by_command(converted, tmp_path) -> None:
    prompt = ["prompt='a red car'", "num_samples=1", f"paths.folder={tmp_path}"]
    files = launch(compose_job("generate", [f"run={converted}", *prompt]))
    assert any(file.endswith(".png") for file in files)


def test_it_is_a_base_of_recipes(release, converted) -> None:
    bases = ["backbone=saved", f"base.model={converted}", f"base.vision_tokenizer={converted}/vision_tokenizer"]
    recipe = ["experiment=liquid/instruction", "scale=paper", *bases, *SIZES]
    config = compose_job("train", recipe)
    assembly = Assembly(config)
    assert set(load_bases(config, assembly)) == {"vision_tokenizer", "model"}
    table = read_shards(release[0])["model.embed_tokens.weight"]
    model = assembly.build("model")
    assert torch.equal(model.backbone.text_table, table[:ROWS])
    assert torch.equal(model.head.rows[1].weight, table[ROWS:])


def test_it_comes_out_as_it_was(release, converted, tmp_path, caplog) -> None:
    source, _, reference, vqgan = release
    caplog.set_level(logging.INFO)
    given = [f"run={converted}", f"target={tmp_path / 'out'}", "layout=released", f"paths.folder={tmp_path / 'export'}"]
    launch(compose_job("export", given))
    before, after = read_shards(source), read_shards(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    weights = load_file(tmp_path / "out" / "vision_tokenizer.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in vqgan.state_dict().items())
    theirs = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    assert theirs.config.to_dict()["vocab_size"] == ROWS + CODES
    assert [theirs.config.pad_token_id, theirs.config.eos_token_id, theirs.config.bos_token_id] == [0, 1, 2]
    ids = torch.arange(ROWS + CODES)[None, ::7]
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, reference(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert tokenizer.encode("<boi><eoi><unconditional>", add_special_tokens=False) == [7, 8, 9]
    assert f"{sum(p.numel() for p in reference.parameters()):,} parameters (rows: 300 text, 64 codes_0)" in caplog.text
    again = convert((tmp_path / "out", tmp_path / "out" / "vision_tokenizer.safetensors"), tmp_path)
    assert read_manifest(again).identity == read_manifest(converted).identity


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.vocab_size=299"], r"has 364 rows, expected 363: .*\[299, 64\]"),
        (["vision_tokenizer.num_codes=32"], r"has 364 rows, expected 332"),
        (["vision_tokenizer.code_width=4"], r"vqgan\.ckpt does not fit VQGAN: .* have another shape"),
        (["source=nowhere"], "nowhere is no folder and no name of the Hub"),
        (["vqgan=nowhere.ckpt"], r"No VQGAN at nowhere\.ckpt"),
        (["model.image_positions=true"], r"1 of \d+ tensors are missing \(image_positions\.weight\)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(release, tmp_path, overrides, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(release, tmp_path, *overrides)
    assert not (tmp_path / "converted").exists()


def test_an_unknown_layout_is_refused(converted, tmp_path) -> None:
    given = [f"run={converted}", f"target={tmp_path / 'out'}", "layout=gguf", f"paths.folder={tmp_path / 'job'}"]
    with pytest.raises(RecipeError, match="layout is 'gguf', expected plait or released"):
        launch(compose_job("export", given))
