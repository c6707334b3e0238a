"""A saved model stands by itself: another process draws the same from it, and a recipe from elsewhere gets nothing to run."""

import inspect
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.composing.recipes import is_saved_model
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained, save_pretrained, write_folder
from lightning_modules.running.launch import adopt_run, launch, load_bases
from plait.backbones.text import PretrainedTokenizer
from plait.checkpoints import read_checkpoint, read_manifest
from plait.errors import CheckpointError, RecipeError
from plait.runs import Run
from tests.adapters.releases import write_tokenizer
from tests.conftest import ONE_THREAD


def describe(model) -> dict[str, np.ndarray]:
    """What a model draws and writes with given seeds, and its logits there."""
    from plait.document import TextSpan
    from plait.sampling.policies import SamplingPolicy

    policies = {"text": SamplingPolicy(), "image": SamplingPolicy(guidance=2.0)}
    prompts = [model.template.draw_prompt("a red car"), model.template.story_prompt((TextSpan("here is a green tree ."),))]
    documents = model.generate(prompts, policies, [3, 4], max_images=1, max_tokens=24)
    batch = model.builder.build(documents)
    with torch.inference_mode():
        logits = model.head.logits(model.hidden(batch).flatten(0, 1), range(len(model.builder.vocabulary.segments)))
        pictures = model.pictures([documents[0].images[0]])
    texts = json.dumps([document.to_json() for document in documents])
    return {"logits": logits.numpy(), "pictures": pictures.numpy(), "documents": np.array(texts)}


SCRIPT = f"""
import json, sys
import numpy as np
import torch
from lightning_modules.pretrained import from_pretrained

{inspect.getsource(describe)}

before = torch.random.get_rng_state()
model = from_pretrained(sys.argv[1])
assert torch.equal(before, torch.random.get_rng_state())
np.savez(sys.argv[2], **describe(model))
"""


@pytest.fixture(scope="module")
def saved(small_run, tmp_path_factory):
    """The model of the small run, saved."""
    return save_pretrained(small_run / "instruction", tmp_path_factory.mktemp("saved") / "mine")


@pytest.fixture
def copy(saved, tmp_path):
    """One to be damaged."""
    return shutil.copytree(saved, tmp_path / "copy")


def write_recipe(folder, change) -> None:
    """Change the recipe in a manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest["config"]["recipe"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_folder_holds_everything_and_nothing_that_runs(saved, small_run) -> None:
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert files == {
        *("manifest.json", "model.safetensors", "backbone/config.json", "text_tokenizer/tokenizer.json"),
        *("vision_tokenizer/manifest.json", "vision_tokenizer/model.safetensors"),
    }
    manifest = read_manifest(saved)
    assert set(manifest.config["recipe"]) == {
        *("backbone", "model", "objective", "seed", "template", "text_tokenizer", "vision_tokenizer")
    }
    checkpoint = Run(small_run / "instruction").checkpoint
    assert manifest.identity == read_manifest(checkpoint).identity
    assert manifest.parents == [{"part": "model", "identity": manifest.identity}]
    assert str(small_run) not in (saved / "manifest.json").read_text()


def test_a_fresh_process_gives_the_same_logits_and_the_same_documents(saved, small_run, tmp_path) -> None:
    """A process of its own, and a folder that was moved, against the model that the commands build from the run."""
    away = shutil.copytree(saved, tmp_path / "away")
    command = [sys.executable, "-c", SCRIPT, str(away), str(tmp_path / "found.npz")]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    config = compose_job("generate", [f"run={small_run / 'instruction'}"])
    adopt_run(config)
    expected = describe(model_with_bases(config))
    with np.load(tmp_path / "found.npz") as found:
        assert set(found.files) == set(expected)
        for name, value in expected.items():
            assert np.array_equal(found[name], value), name
    assert expected["logits"].std() > 0.01


def model_with_bases(config):
    """The model of a config with the weights of its bases."""
    assembly = Assembly(config)
    load_bases(config, assembly)
    return assembly.build("model").eval()


def test_commands_take_it_for_a_run(saved, tmp_path) -> None:
    assert is_saved_model(saved)
    drawn = launch(
        compose_job("generate", [f"run={saved}", "prompt='a red car'", "num_samples=1", f"paths.folder={tmp_path / 'drawn'}"])
    )
    assert any(path.endswith(".png") for path in drawn)
    again = launch(compose_job("export", [f"run={saved}", f"target={tmp_path / 'again'}", f"paths.folder={tmp_path / 'job'}"]))
    assert read_manifest(again).identity == read_manifest(saved).identity
    assert read_manifest(again).config == read_manifest(saved).config


def test_recipes_go_on_from_it(saved) -> None:
    bases = ["backbone=saved", f"base.model={saved}", f"base.vision_tokenizer={saved}/vision_tokenizer"]
    model = model_with_bases(compose_job("train", ["experiment=liquid/instruction", "scale=tiny", *bases]))
    weights = read_checkpoint(saved).weights
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    ours, theirs = model.builder.layout.text, from_pretrained(saved).builder.layout.text
    assert ours.encode("a red car") == theirs.encode("a red car")
    assert model.template.text_to_image_ratio == 0.3  # the recipe is that of the new stage


def test_a_tokenizer_of_transformers_is_saved_with_the_chat_template(tmp_path) -> None:
    release = write_tokenizer(tmp_path / "release")
    config = compose_job("train", ["experiment=liquid/pretraining", "scale=tiny", "backbone.vocab_size=400"])
    config.text_tokenizer = OmegaConf.create(
        {
            "_target_": "plait.backbones.text.PretrainedTokenizer",
            "name_or_folder": str(release),
            "markers": {"begin_image": "<boi>", "end_image": "<eoi>"},
        }
    )
    write_folder(tmp_path / "saved", model_with_bases(config), config)
    shutil.rmtree(release)
    model = from_pretrained(tmp_path / "saved")
    assert isinstance(model.builder.layout.text, PretrainedTokenizer)
    assert [model.builder.vocabulary.specials[name] for name in ("begin_image", "end_image", "unconditional")] == [7, 8, 400]
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "saved" / "text_tokenizer"))
    string = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert string == "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "evil.run",
        "builtins.eval",
        "torch.load",
        "torch.optim.AdamW",
        "plait.atomic.write_json",
        "plait.backbones.text.PretrainedTokenizer",
        "plait.backbones.causal_lm.CausalLM.from_pretrained",
        "plait.tokenizers.encoding.write_codes",
        "lightning_modules.running.launch.launch",
        None,
        ["os", "system"],
    ],
)
def test_a_recipe_may_not_name_anything_else(copy, tmp_path, monkeypatch, target) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_recipe(copy, lambda recipe: recipe["model"].update(extra={"_target_": target, "path": str(tmp_path / "x")}))
    with pytest.raises(RecipeError, match=r"model\.extra of the recipe has the _target_ .*may not name"):
        from_pretrained(copy)
    assert "evil" not in sys.modules
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${oc.decode:x}", "${part_of:model.template}", "${${seed}}", "${"])
def test_a_recipe_may_not_read_the_environment(copy, text) -> None:
    write_recipe(copy, lambda recipe: recipe["template"].update(seed=text))
    with pytest.raises(RecipeError, match="Expected references to its own nodes only"):
        from_pretrained(copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "is no folder and no name of the Hub"),
        (lambda folder: (folder / "manifest.json").unlink(), "is no checkpoint: it has no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged"),
        (
            lambda folder: write_recipe(folder, lambda recipe: recipe.pop("model")),
            "no saved model: it has no recipe.*plait-export",
        ),
        (lambda folder: shutil.rmtree(folder / "backbone"), r"No backbone in .*expected a config\.json"),
        (lambda folder: shutil.rmtree(folder / "text_tokenizer"), "No word tokenizer at"),
        (lambda folder: shutil.rmtree(folder / "vision_tokenizer"), "vision_tokenizer is no checkpoint: it does not exist"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "model.safetensors is damaged: its sha256"),
        (
            lambda folder: write_recipe(folder, lambda recipe: recipe["model"].update(image_positions=True)),
            "1 of .* are missing",
        ),
    ],
)
def test_a_folder_that_is_no_saved_model_is_named(copy, damage, message) -> None:
    from_pretrained(copy)
    damage(copy)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(copy)


def test_a_run_is_no_saved_model_and_no_run_cannot_be_saved(small_run, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="is no checkpoint: it has no manifest"):
        from_pretrained(small_run / "instruction")
    with pytest.raises(CheckpointError, match="it has no recipe"):
        from_pretrained(small_run / "instruction" / "checkpoints" / "last.ckpt")
    with pytest.raises(RecipeError, match="is no run folder"):
        save_pretrained(tmp_path, tmp_path / "saved")
    with pytest.raises(RecipeError, match="A PatchFSQ is no unified model"):
        save_pretrained(small_run / "tokenizer", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
