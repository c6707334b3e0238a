"""A model of transformers taken apart and put together gives the logits of the whole."""

import json
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file, save_file

from plait.backbones.causal_lm import CausalLM
from plait.backbones.mllm import split_mllm
from plait.errors import RecipeError
from plait.protocols import Backbone, Connector, VisionEncoder
from plait.systems.mllm_parts import MLLMParts, join_parts, open_parts
from tests.backbones.conftest import pack
from tests.backbones.mllms import IMAGE_TOKEN, KINDS, build_whole

STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
PROCESSOR = json.dumps({f"image_{name}": values for name, values in STATISTICS.items()})
TILES = {"one picture": [1], "several pictures": [1, 1, 1], "tiles": [3, 1]}


def split(whole, **settings) -> MLLMParts:
    return join_parts(split_mllm(deepcopy(whole), **STATISTICS, **settings))


def draw_ids(tokens_per_tile: int, tiles: list[int]) -> torch.Tensor:
    """Words, and a run of image tokens per picture between two of them."""
    generator = torch.Generator().manual_seed(3)
    pieces = [torch.randint(IMAGE_TOKEN, (3,), generator=generator)]
    for number in tiles:
        pieces += [torch.full((number * tokens_per_tile,), IMAGE_TOKEN), torch.randint(IMAGE_TOKEN, (2,), generator=generator)]
    return torch.cat(pieces)


def read(parts: MLLMParts, documents: list[torch.Tensor], tiles: torch.Tensor) -> list[torch.Tensor]:
    """Logits of documents that are packed in one row, from the tiles of all their pictures in order."""
    layout, ids = pack([[len(document) for document in documents]]), torch.cat(documents)[None]
    embeddings = parts.backbone.embed_text(ids)
    where = (ids == parts.image_token_id).nonzero(as_tuple=True)
    embeddings = embeddings.index_put(where, parts.look(tiles).flatten(0, 1))
    return list(
        parts.backbone.text_scores(parts.backbone(embeddings, layout))[0].split([len(document) for document in documents])
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_together_are_the_whole(kind: str) -> None:
    """With one picture, with several, and with tiles; each document alone in the whole, all of them packed in the parts."""
    whole = build_whole(kind)
    parts = split(whole)
    assert isinstance(parts.encoder, VisionEncoder)
    assert isinstance(parts.connector, Connector)
    assert isinstance(parts.backbone, Backbone)
    documents = [draw_ids(parts.connector.tokens_per_tile, tiles) for tiles in TILES.values()]
    numbers = [sum(tiles) for tiles in TILES.values()]
    images = torch.rand(sum(numbers), 3, 28, 28) * 2 - 1
    found = read(parts, documents, images)
    for logits, ids, own in zip(found, documents, images.split(numbers), strict=True):
        expected = whole(input_ids=ids[None], pixel_values=parts.encoder.input(own)).logits[0]
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
        other = whole(input_ids=ids[None], pixel_values=parts.encoder.input(own.flip(2))).logits[0]
        assert (other - expected).abs().max() > 0.01, "the picture must matter"


def test_parts_have_the_weights_of_the_whole_and_no_others() -> None:
    whole = build_whole("internvl")
    split_up = split_mllm(whole, **STATISTICS)
    parts = join_parts(split_up)
    assert parts.backbone.is_tied
    ours = {id(p): p for part in (parts.encoder, parts.connector, parts.backbone) for p in part.parameters()}
    theirs = {p.data_ptr() for p in whole.parameters()}
    assert {p.data_ptr() for p in ours.values()} == theirs, "moved, not copied"
    assert all(p.requires_grad for p in ours.values())
    assert parts.encoder.input.mean.flatten().tolist() == pytest.approx(STATISTICS["mean"])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["internvl", "llava"])
def test_a_release_opens_from_a_folder(kind: str, tmp_path) -> None:
    whole = build_whole(kind)
    whole.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"name_or_folder=.* cannot read it.*preprocessor_config\.json"):
        open_parts(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(PROCESSOR)
    parts, expected = open_parts(tmp_path), split(whole)
    ids, image = draw_ids(parts.connector.tokens_per_tile, [1]), torch.rand(1, 3, 28, 28)
    assert torch.equal(read(parts, [ids], image)[0], read(expected, [ids], image)[0])
    with pytest.raises(TypeError, match="trust_remote_code"):
        open_parts(tmp_path, trust_remote_code=True)


def test_a_release_brings_no_code_and_all_of_its_weights(tmp_path) -> None:
    build_whole("internvl").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    with pytest.raises(RecipeError, match=r"does not say image_std, expected both.*Add them to preprocessor_config\.json"):
        open_parts(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(PROCESSOR)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "projector" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(
        RecipeError, match=r"lacks 6 tensors of a 'internvl' \(model\.multi_modal_projector.*Fetch the release again"
    ):
        open_parts(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attn_implementation": "evil/kernel"}))
    with pytest.raises(RecipeError, match="names the attention 'evil/kernel', code of a repository"):
        open_parts(tmp_path)


def test_a_backbone_of_parts_is_a_backbone_like_any_other(tmp_path) -> None:
    backbone = split(build_whole("internvl"), gradient_checkpointing=True).backbone
    backbone.save_pretrained(tmp_path)
    again, layout = CausalLM.from_pretrained(tmp_path), pack([[4]])
    ids = torch.tensor([[1, 2, 3, 4]])
    assert again.is_tied
    assert torch.equal(again(again.embed_text(ids), layout), backbone(backbone.embed_text(ids), layout))


def test_what_does_not_fit_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"'qwen2' is not supported: expected .* families internvl or llava"):
        split_mllm(build_whole("internvl").model.language_model, **STATISTICS)
    with pytest.raises(RecipeError, match=r"'llava' has vision_feature_layer=\[-2, -1\].* expected one layer"):
        split_mllm(build_whole("llava", vision_feature_layer=[-2, -1]), **STATISTICS)
    with pytest.raises(RecipeError, match="projector_hidden_act='relu'"):
        split_mllm(build_whole("llava", projector_hidden_act="relu"), **STATISTICS)
    with pytest.raises(RecipeError, match="leaves out 0 tokens before its features and its encoder has 1"):
        join_parts(split_mllm(build_whole("llava", vision_feature_select_strategy="full"), **STATISTICS))
