"""SynerGen-VL's stages, one after the other at scale=tiny: what they train, what they hand over, and a model that stands by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.composing.published import find_published
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained, save_pretrained
from lightning_modules.running.launch import adopt_run, launch, load_bases, resolve
from lightning_modules.workbench import open_run
from plait.errors import MarkerError, RecipeError
from plait.runs import Run
from plait.sampling.policies import SamplingPolicy

STAGES = ("align_1", "align_2", "instruction")
POLICIES = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(guidance=2.0)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """The folder of each stage, trained for two steps from the one before."""
    place, before = tmp_path_factory.mktemp("stages"), "random"
    folders = {}
    for stage in STAGES:
        folders[stage] = place / stage
        start = [] if stage == "align_1" else [f"base.model={before}"]
        overrides = [f"experiment=synergen_vl/{stage}", "scale=tiny", "logger=none", f"paths.folder={place / stage}", *start]
        launch(compose_job("train", overrides))
        before = place / stage
    return folders


def test_each_stage_trains_what_it_says(runs) -> None:
    ledgers = {stage: Run(folder).ledger for stage, folder in runs.items()}
    assert all(ledger.proof.is_kept for ledger in ledgers.values())
    trained = {
        stage: {row.part: row.parameters for row in ledger.rows if row.is_trainable and row.part == "backbone"}
        for stage, ledger in ledgers.items()
    }
    frozen = {
        stage: sum(row.parameters for row in ledger.rows if not row.is_trainable and row.part == "backbone")
        for stage, ledger in ledgers.items()
    }
    assert frozen["align_1"] > frozen["align_2"] > frozen["instruction"] == 0
    assert 0 < trained["align_1"]["backbone"] < trained["align_2"]["backbone"]
    for stage in STAGES:
        assert {row.part for row in ledgers[stage].rows if row.is_trainable} == {
            "backbone",
            "head",
            "image_input",
            "image_head",
        }
        assert all(Run(runs[stage]).metrics.series(f"train/{term}_loss_nats")[1] for term in ("text", "image"))


def test_the_last_stage_stands_by_itself_and_draws_the_same(runs, tmp_path) -> None:
    config = OmegaConf.create({"run": str(runs["instruction"])})
    adopt_run(config)
    assembly = Assembly(config)
    load_bases(config, assembly)
    model = assembly.build("model").eval()
    again = from_pretrained(save_pretrained(runs["instruction"], tmp_path / "saved"))
    prompts = [
        model.template.draw_prompt("a red car"),
        model.template.caption_prompt(model.generate([model.template.draw_prompt("a car")], POLICIES, [1])[0].images[0]),
    ]
    ours, theirs = (each.generate(prompts, POLICIES, [3, 4], max_tokens=6) for each in (model, again))
    assert json.dumps([d.to_json() for d in ours]) == json.dumps([d.to_json() for d in theirs])
    assert np.array_equal(ours[0].images[0].codes[0].shape, model.vision_tokenizer.grid_shapes[0])


@pytest.mark.parametrize(
    ("stage", "steps", "rate", "decay", "documents"),
    [
        ("align_1", 95_000, 1e-4, 0.05, 2 * 6_988),
        ("align_2", 35_000, 5e-5, 0.05, 2 * 5_090),
        ("instruction", 12_000, 5e-5, 0.01, 2 * 1_760),
    ],
)
def test_the_published_numbers(stage, steps, rate, decay, documents) -> None:
    recipe = OmegaConf.create(
        resolve(compose_job("train", [f"experiment=synergen_vl/{stage}", "scale=paper", "paths.folder=here"]))
    )
    assert recipe.trainer.max_steps == steps
    assert (recipe.stage.optimizer.lr, recipe.stage.optimizer.weight_decay, recipe.stage.optimizer.betas) == (
        rate,
        decay,
        [0.9, 0.95],
    )
    assert recipe.stage.schedule.warmup_steps == 200
    assert (
        recipe.stage.schedule._target_
        == f"lightning_modules.training.schedules.{'constant' if stage == 'align_1' else 'cosine'}"
    )
    assert (recipe.batches.documents_per_window, recipe.stage.term_weights.image) == (documents, 2.0)
    assert (list(recipe.model.fold), recipe.model.head_layers, recipe.backbone.num_hidden_layers) == ([2, 8], 4, 24)
    assert (recipe.image_policy.guidance, recipe.vision_tokenizer._target_) == (
        7.5,
        "plait.tokenizers.emu3.Emu3Tokenizer",
    )


def test_a_system_without_published_options_says_so() -> None:
    assert find_published("vision_encoder", "backbone", None) == "gemma_7b"
    assert find_published("synergen_vl", "schedule", None) == "cosine"
    with pytest.raises(RecipeError, match="says no vision for system=synergen_vl"):
        find_published("synergen_vl", "vision", "align_1")


def test_a_fold_that_does_not_divide_is_refused(tmp_path) -> None:
    config = compose_job(
        "train", ["experiment=synergen_vl/align_1", "scale=tiny", "model.fold=[3,2]", f"paths.folder={tmp_path}"]
    )
    with pytest.raises(RecipeError, match=r"fold of 3 x 2.*code grid of 4 x 4"):
        launch(config)


def test_a_desk_asks_it_in_its_own_wording(runs) -> None:
    desk = open_run(runs["instruction"])
    shown = desk.world.image_ids("val", "scenes")[0]
    asked = {
        "draw": desk.draw("a red car", num_samples=2),
        "edit": desk.edit(shown, "they change places ."),
        "ask": desk.ask(shown, "what is on the left ?", max_tokens=3),
        "tell": desk.tell(["here is a red car .", shown], max_images=1, max_tokens=4),
    }
    assert [len(asked[name].pictures) for name in ("draw", "edit")] == [2, 1]
    assert all(answers[0].document.spans[0].text.startswith("<|im_start|>user\n") for answers in list(asked.values())[:3])
    with pytest.raises(MarkerError, match="im_end"):
        desk.draw("a red <|im_end|> car")
