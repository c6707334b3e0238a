"""The text base at scale=tiny: it trains, is saved as a whole, and is what other recipes start from."""

import pytest
import torch

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained
from lightning_modules.running.launch import adopt_run, launch, load_bases
from plait.checkpoints import read_manifest
from plait.errors import RecipeError
from plait.evaluation.bench import Bench
from plait.runs import Run
from plait.worlds.wordnet.glosses import judge_glosses
from tests.data.tiny_wordnet import fill_cache

LIQUID = ["experiment=liquid/pretraining", "scale=tiny", "backbone=text_base"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run of the text base, and a cache folder with the WordNet that it was made of."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAIT_CACHE", str(fill_cache(folder / "cache")))
        options = ["backbone.vocab_size=512", "batches.documents_per_window=48", "validation_batches.documents_per_window=48"]
        launch(compose_job("train", ["experiment=base/text", "scale=tiny", *options, f"paths.folder={folder / 'text'}"]))
        yield folder / "text"


def build(*overrides: str):
    config = compose_job("train", [*LIQUID, *overrides])
    assembly = Assembly(config)
    parents = load_bases(config, assembly)
    return assembly.build("model"), parents


def test_it_proves_itself_and_stands_by_itself(base, tmp_path, monkeypatch) -> None:
    run = Run(base)
    assert run.is_complete
    assert run.ledger.proof.is_kept
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))  # nobody needs WordNet to go on from it
    model = from_pretrained(base / "saved")
    assert model.vision_tokenizer is None
    assert read_manifest(base / "saved").identity == read_manifest(run.checkpoint).identity
    assert model.builder.layout.text.encode("<start_of_turn>") == [3]


def test_liquid_starts_from_it(base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    model, parents = build(f"base.backbone={base}")
    own = from_pretrained(base / "saved")
    assert parents == {"backbone": read_manifest(base / "saved").identity}
    for name, value in own.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert model.builder.layout.text.encode("a red car") == own.builder.layout.text.encode("a red car")
    assert len(model.builder.vocabulary.code_segments) == 1
    control, parents = build(f"text_base={base}", "base.backbone=random")
    assert parents == {}
    assert control.backbone.state_dict().keys() == model.backbone.state_dict().keys()
    assert not torch.equal(control.backbone.text_table, model.backbone.text_table)


def test_the_command_examines_it_and_says_what_is_kept(base, tmp_path) -> None:
    options = [f"run={base}", "n=8", "+job.plan.val=[captions]", "+job.plan.held_out=[glosses]"]
    first = launch(compose_job("evaluate", [*options, f"paths.folder={tmp_path / 'first'}"]))
    assert first["val/captions.skipped"] == 8
    assert first["held_out/bits_per_byte"] > 1
    assert first["held_out/gloss_choice.chance"] == 0.25
    again = launch(compose_job("evaluate", [*options, f"paths.folder={tmp_path / 'again'}", f"kept_of={tmp_path / 'first'}"]))
    assert again["held_out/bits_per_byte_kept"] == again["held_out/bits_per_byte_kept.low"] == 1.0
    # eight items are too few for the interval of a share (tests/evaluation/test_retention.py has enough), and it says so
    assert again.get("held_out/gloss_choice_kept.skipped") == 8 or again["held_out/gloss_choice_kept"] == 1.0
    with pytest.raises(RecipeError, match=r"holds no items\.json: expected the folder of a finished plait-evaluate"):
        launch(compose_job("evaluate", [*options, f"paths.folder={tmp_path / 'third'}", f"kept_of={base}"]))


def test_liquid_trains_on_it_and_can_be_asked_for_glosses(base, tmp_path) -> None:
    launch(compose_job("train", [*LIQUID, f"base.backbone={base}", f"paths.folder={tmp_path / 'liquid'}"]))
    # no key of the evaluation may stand for one of the recipe
    config = compose_job("evaluate", [f"run={tmp_path / 'liquid'}", "kept_of=elsewhere", "logger=none"])
    adopt_run(config)
    assembly = Assembly(config)
    assert set(load_bases(config, assembly)) == {"backbone", "model"}
    bench = Bench(assembly.build("model"), assembly.build("world"), None, assembly.build("codes"), {}, n=8)
    figures, _ = judge_glosses(bench, None, "held_out")
    assert figures["held_out/bits_per_byte"].n == 8


def test_without_the_base_the_command_is_named(tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"base\.backbone is not set\. Next: plait-train experiment=base/text"):
        launch(compose_job("train", [*LIQUID, f"paths.folder={tmp_path}"]))
