"""The released Liquid: the same logits, the same pictures and the same tensors on both sides, and errors that name what differs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from plait.adapters.liquid import INPUT, OUTPUT, to_released, to_unified
from plait.adapters.shards import INDEX, read_shards, write_shards
from plait.backbones.causal_lm import CausalLM
from plait.backbones.text import PretrainedTokenizer
from plait.checkpoints import assign_weights, check_weights, load_weights, save_checkpoint
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import CheckpointError
from plait.sampling.policies import SamplingPolicy
from plait.systems.liquid import LiquidTemplate, build
from plait.tokenizers.vqgan import VQGAN
from tests.adapters.releases import MARKERS, NUM_CODES, TEXT_ROWS, write_release

GRID = (2, 3)


class Tokenizer:
    """A stand-in with the published number of codes."""

    code_sizes, digit_sizes, grid_shapes, image_size = (NUM_CODES,), ((NUM_CODES,),), (GRID,), (4, 6)

    def encode(self, images):
        raise NotImplementedError("no pictures here")

    def loss(self, batch):
        raise NotImplementedError("no pictures here")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """(folder, model of transformers)"""
    folder = tmp_path_factory.mktemp("release")
    return folder, write_release(folder)


def unified(folder, code_rows="dense", **settings):
    torch.manual_seed(1)
    return build(
        backbone=CausalLM.from_folder(folder, vocab_size=TEXT_ROWS),
        vision_tokenizer=Tokenizer(),
        text_tokenizer=PretrainedTokenizer(folder, markers=MARKERS),
        template=LiquidTemplate(),
        code_rows=code_rows,
        **settings,
    )


def sizes(model) -> list[int]:
    return [segment.size for segment in model.builder.vocabulary.segments]


@pytest.fixture(scope="module")
def loaded(release):
    """The release as a unified model."""
    folder, _ = release
    model = unified(folder)
    weights = to_unified(read_shards(folder), sizes(model), model.backbone.is_tied)
    assign_weights(model, weights, str(folder))
    return model.eval()


def picture(rng) -> ImageSpan:
    return ImageSpan("i", form="codes", codes=(rng.integers(NUM_CODES, size=GRID),))


def test_ids_are_the_released_ones(release, loaded) -> None:
    folder, _ = release
    assert (folder / INDEX).is_file()  # the weights of this test are sharded
    vocabulary = loaded.builder.vocabulary
    assert [(s.name, s.offset, s.size) for s in vocabulary.segments] == [("text", 0, 256_000), ("codes_0", 256_000, 8192)]
    names = ("pad", "end_document", "begin_document", "begin_image", "end_image", "unconditional")
    assert [vocabulary.specials[name] for name in names] == [0, 1, 2, 7, 8, 9]
    image = picture(np.random.default_rng(0))
    tokens = loaded.builder.encode(loaded.template.question_prompt(image, "What?"))
    assert tokens.ids[0] == 2
    start = list(tokens.ids).index(7)
    assert tokens.ids[start + 1 : start + 7].tolist() == (image.codes[0].reshape(-1) + 256_000).tolist()
    assert tokens.ids[start + 7] == 8


@torch.no_grad()
def test_logits_equal_those_of_transformers_over_the_whole_vocabulary(release, loaded) -> None:
    _, reference = release
    rng = np.random.default_rng(0)
    document = Document((TextSpan("a red car"), picture(rng), TextSpan(" and <unconditional> more"), picture(rng)))
    batch = loaded.builder.build([document])
    assert (batch.ids >= TEXT_ROWS).sum() == 12
    ours = loaded.head.logits(loaded.hidden(batch)[0], [0, 1])
    theirs = reference(batch.ids).logits[0]
    assert ours.shape == theirs.shape == (batch.ids.shape[1], 264_192)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_greedy_picture_is_that_of_the_released_loop(release, loaded) -> None:
    """The published loop: all logits, those of text ids struck out, the best id, six times; ids minus 256,000 are codes."""
    _, reference = release
    prompt = loaded.template.draw_prompt("a red car to the left of a blue key")
    policy = SamplingPolicy(temperature=0.0)
    (drawn,) = loaded.generate([prompt], {"text": policy, "image": policy}, [0], max_tokens=1)
    ids = torch.from_numpy(loaded.builder.encode(prompt).ids)[None]
    start = ids.shape[1]
    for _ in range(6):
        logits = reference(ids).logits[0, -1]
        logits[:TEXT_ROWS] = -torch.inf
        ids = torch.cat([ids, logits.argmax()[None, None]], 1)
    assert (ids[0, start:] - TEXT_ROWS).tolist() == drawn.images[0].codes[0].reshape(-1).tolist()


def test_both_directions_keep_every_bit(release, loaded, tmp_path) -> None:
    folder, reference = release
    released = to_released(loaded.state_dict())
    original = read_shards(folder)
    assert set(released) == set(original)
    assert OUTPUT not in original
    assert all(torch.equal(released[name], value) for name, value in original.items())
    again = to_unified(released, sizes(loaded), is_tied=True)
    assert all(torch.equal(again[name], value) for name, value in loaded.state_dict().items())
    assert set(again) == set(loaded.state_dict())

    write_shards(tmp_path, released, max_shard_size="12MB")
    vocabulary = loaded.builder.vocabulary
    loaded.backbone.save_config(tmp_path, vocab_size=vocabulary.size)
    exported, loading = AutoModelForCausalLM.from_pretrained(str(tmp_path), output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert exported.config.vocab_size == 264_192
    ids = torch.tensor([[2, 300, 7, 256_000, 264_191, 8, 1]])
    with torch.no_grad():
        assert torch.equal(exported(ids).logits, reference(ids).logits)


def test_a_checkpoint_folder_made_of_it_is_a_base(release, tmp_path) -> None:
    folder, _ = release
    source = unified(folder)
    weights = to_unified(read_shards(folder), sizes(source), is_tied=True)
    manifest = save_checkpoint(tmp_path / "converted", weights, model="")
    assert manifest.aliases == {"backbone.model.lm_head.weight": "backbone.model.model.embed_tokens.weight"}
    load_weights(source, tmp_path / "converted")
    assert all(torch.equal(value, weights[name]) for name, value in source.state_dict().items())


def test_a_head_that_is_stored_too_must_be_the_table(release, loaded) -> None:
    folder, _ = release
    weights = read_shards(folder)
    same = to_unified({**weights, OUTPUT: weights[INPUT].clone()}, sizes(loaded), is_tied=True)
    check_weights(loaded, same, "the release")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        to_unified({**weights, OUTPUT: weights[INPUT] + 1}, sizes(loaded), is_tied=True)


def test_an_untied_table_is_split_on_both_sides(tmp_path) -> None:
    reference = write_release(tmp_path, vocab_size=300 + NUM_CODES, tie_word_embeddings=False)
    backbone = CausalLM.from_folder(tmp_path, vocab_size=300)
    text = PretrainedTokenizer(tmp_path, markers=MARKERS)
    model = build(backbone=backbone, vision_tokenizer=Tokenizer(), text_tokenizer=text, template=LiquidTemplate()).eval()
    weights = to_unified(read_shards(tmp_path), sizes(model), is_tied=False)
    assign_weights(model, weights, "the release")
    batch = model.builder.build([Document((TextSpan("a car"), picture(np.random.default_rng(0))))])
    with torch.no_grad():
        ours = model.head.logits(model.hidden(batch)[0], [0, 1])
        torch.testing.assert_close(ours, reference(batch.ids).logits[0], atol=1e-5, rtol=1e-5)
    released = to_released(model.state_dict())
    assert all(torch.equal(released[name], value) for name, value in reference.state_dict().items())


def test_what_does_not_fit_is_named(release, loaded) -> None:
    folder, _ = release
    weights, rows = read_shards(folder), sizes(loaded)
    norm = "model.norm.weight"

    def check(**changes):
        changed = {name: value for name, value in {**weights, **changes}.items() if value is not None}
        check_weights(loaded, to_unified(changed, rows, is_tied=True), "the release")

    check()
    with pytest.raises(
        CheckpointError, match=r"the release does not fit.*1 of \d+ tensors are missing \(backbone\.model\.model\.norm"
    ):
        check(**{norm: None})
    with pytest.raises(CheckpointError, match=r"1 are unexpected \(backbone\.model\.model\.extra"):
        check(**{"model.extra": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"another shape \(backbone\.model\.model\.norm\.weight: \(17,\) saved, \(16,\) here"
    ):
        check(**{norm: torch.zeros(17)})
    with pytest.raises(CheckpointError, match=r"lacks model\.embed_tokens\.weight"):
        check(**{INPUT: None})
    with pytest.raises(CheckpointError, match=r"has 264191 rows, expected 264192.*\[256000, 8192\]"):
        check(**{INPUT: weights[INPUT][1:]})


def test_what_has_no_place_in_the_layout_is_refused(release) -> None:
    folder, _ = release
    with pytest.raises(CheckpointError, match=r"1 tensors have no place.*image_positions\.weight"):
        to_released(unified(folder, image_positions=True).state_dict())
    names = ["backbone.model.model.embed_tokens.weight", "backbone.model.lm_head.weight"]
    factorised = dict.fromkeys(names, torch.zeros(3, 2))
    factorised |= {f"head.own_rows.0.{name}": torch.zeros(4, 2) for name in ("weight", "output_weight", "output_bias")}
    with pytest.raises(CheckpointError, match=r"1 tensors have no place.*output_bias"):
        to_released(factorised)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights: expected model.safetensors, or"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be read"),
        (lambda folder: (folder / INDEX).write_text("{}"), "index.json is damaged: KeyError"),
        (lambda folder: write_index(folder, {"a": "../a.safetensors"}), r"names 1 of 1 files that are not beside it"),
        (lambda folder: write_index(folder, {"a": "gone.safetensors"}), r"not beside it: \['gone"),
        (lambda folder: write_index(folder, {"b": "model.safetensors"}), r"holds 1 tensors and .* says 1: \['a', 'b'\]"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert read_shards(tmp_path)["a"].shape == (1,)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        read_shards(tmp_path)


def write_index(folder, weight_map) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="says of which file a piece of memory is: Linux")
def test_tensors_are_mapped_and_not_read(release) -> None:
    folder, _ = release
    first = read_shards(folder)[INPUT]
    file = folder / json.loads((folder / INDEX).read_text())["weight_map"][INPUT]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        held = [line.split()[0].split("-") for line in maps if line.rstrip().endswith(file.name)]
    assert any(int(start, 16) <= first.data_ptr() < int(stop, 16) for start, stop in held)
    assert torch.equal(first, load_file(file)[INPUT])


def test_the_full_layout_has_the_published_size() -> None:
    """Gemma-7B with 8,192 more rows and the VQGAN of Chameleon, through the same builder, without a byte of weights."""
    with torch.device("meta"):
        backbone = CausalLM.from_config(
            "gemma",
            vocab_size=TEXT_ROWS,
            hidden_size=3072,
            intermediate_size=24576,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=16,
            head_dim=256,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        )
        vision = VQGAN()
        model = build(backbone=backbone, vision_tokenizer=vision, text_tokenizer=Text(), template=LiquidTemplate())
    assert backbone.is_tied
    assert backbone.embedding_scale == pytest.approx(3072**0.5)
    assert model.head.rows[1].embedding_scale == backbone.embedding_scale
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_562_846_720
    assert sum(parameter.numel() for parameter in vision.parameters()) == 68_718_467
    assert [segment.size for segment in model.builder.vocabulary.segments] == [256_000, 8192]
    released = to_released(model.state_dict())
    assert released[INPUT].shape == (264_192, 3072)
    shapes = {name.split(".", 3)[-1]: tuple(value.shape) for name, value in released.items() if ".layers.27." in name}
    assert shapes == {
        "input_layernorm.weight": (3072,),
        "post_attention_layernorm.weight": (3072,),
        **{f"self_attn.{name}_proj.weight": (4096, 3072) for name in "qkv"},
        "self_attn.o_proj.weight": (3072, 4096),
        "mlp.gate_proj.weight": (24576, 3072),
        "mlp.up_proj.weight": (24576, 3072),
        "mlp.down_proj.weight": (3072, 24576),
    }
    assert len(released) == 28 * 9 + 2
    again = to_unified(released, [256_000, 8192], is_tied=True)
    own = model.state_dict()
    assert {name: value.shape for name, value in again.items()} == {name: value.shape for name, value in own.items()}


class Text:
    """The ids of the release alone: 256,000 of text, six of them markers."""

    size, pad_id, eos_id, bos_id = TEXT_ROWS, 0, 1, 2
    special_ids = frozenset({0, 1, 2, 7, 8, 9})

    def __init__(self) -> None:
        self.markers = {"pad": 0, "end_document": 1, "begin_document": 2, "begin_image": 7, "end_image": 8, "unconditional": 9}

    def encode(self, text):
        raise NotImplementedError("ids alone")

    def decode(self, ids):
        raise NotImplementedError("ids alone")
