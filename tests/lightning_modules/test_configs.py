"""Every composition that is shipped: it composes at every scale, resolves, and names only things that exist."""

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lightning_modules.composing.instantiate import Assembly, iterate_targets, locate
from lightning_modules.loops.curriculum import check_stages, compose_job
from lightning_modules.running.launch import config_hash, launch, load_bases, resolve
from plait.errors import RecipeError

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = sorted(str(p.relative_to(CONF / "experiment").with_suffix("")) for p in (CONF / "experiment").rglob("*.yaml"))
GROUPS = sorted(
    p.name
    for p in CONF.iterdir()
    if p.is_dir()
    and p.name not in ("experiment", "sizes", "sources", "hydra", "hparams_search", "sweeps", "weights", "__pycache__")
)
"""groups of `plait-train` whose options stand by themselves"""


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("scale", options("scale"))
def test_every_experiment_composes_at_every_scale(experiment, scale):
    config = compose_job("train", [f"experiment={experiment}", f"scale={scale}", "paths.folder=here"])
    assert config.name in experiment
    assert config.tags
    for part in config.base:
        config.base[part] = "random"  # what is read from the folder of a base cannot be resolved while it is missing
    resolved = resolve(config)
    trains = config.job._target_.endswith(".fit")
    if trains:  # a study trains through the jobs that it composes; what runs there is tested with it
        assert resolved["trainer"]["max_steps"] >= 1
    for path, target in iterate_targets(resolved):
        locate(target, path)
    if trains and scale != "paper":  # whose backbone must still be fetched
        OmegaConf.resolve(config)  # as `--cfg job --resolve` does


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_says_how_to_run_it(experiment):
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert f"# Command: plait-train experiment={experiment}" in text
    assert "# Expected:" in text


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_every_group_composes(group):
    for option in options(group):
        config = compose_job("train", ["experiment=liquid/pretraining", f"{group}={option}"])
        Assembly(config)
        for path, target in iterate_targets(OmegaConf.to_container(config)):
            locate(target, path)


@pytest.mark.parametrize(
    "command", ["compare", "convert", "encode", "evaluate", "export", "fetch", "generate", "report", "sync"]
)
def test_every_command_composes(command):
    for path, target in iterate_targets(OmegaConf.to_container(compose_job(command, []))):
        locate(target, path)


@pytest.mark.parametrize("weights", options("weights"))
def test_whatever_is_converted_composes(weights):
    config = compose_job("convert", [f"weights={weights}", "source=here", "target=there"])
    assert (
        f"plait-convert {'' if weights == 'liquid' else f'weights={weights} '}source="
        in (CONF / f"weights/{weights}.yaml").read_text()
    )
    for path, target in iterate_targets(OmegaConf.to_container(config)):
        locate(target, path)


def test_scale_shrinks_and_the_command_line_wins_whole():
    tiny = compose_job("train", ["experiment=liquid/pretraining", "scale=tiny"])
    assert (tiny.backbone.hidden_size, tiny.trainer.max_steps, tiny.base.vision_tokenizer) == (32, 2, "random")
    chosen = compose_job("train", ["experiment=liquid/pretraining", "scale=tiny", "backbone=smollm2", "trainer.max_steps=7"])
    assert chosen.backbone == {"_target_": "plait.backbones.causal_lm.CausalLM.from_pretrained", "name_or_folder": "${smollm2}"}
    assert chosen.trainer.max_steps == 7


def test_the_hash_counts_what_is_computed_and_nothing_else():
    base = ["experiment=liquid/pretraining", "scale=tiny"]

    def hash_with(*overrides: str) -> str:
        return config_hash(compose_job("train", [*base, *overrides]))

    plain = hash_with("paths.folder=here")
    assert plain == hash_with("paths.folder=there", "logger=none", "checkpoint=last", "tags=[x]", "callbacks=none")
    for change in ("seed=2", "trainer.max_steps=3", "template.caption_dropout=0.2", "world.seed=1", "base.model=null"):
        assert plain != hash_with("paths.folder=here", change), change


def test_a_base_that_is_missing_names_the_command_that_makes_it(tmp_path):
    config = compose_job("train", ["experiment=liquid/pretraining", f"paths.folder={tmp_path}"])
    with pytest.raises(RecipeError, match=r"tokenizer is not set\. Next: plait-train experiment=liquid/tokenizer.*random"):
        load_bases(config, Assembly(config))
    config.base.vision_tokenizer = str(tmp_path / "nowhere")
    with pytest.raises(RecipeError, match=r"nowhere holds no checkpoint.*Next: plait-train experiment=liquid/tokenizer"):
        load_bases(config, Assembly(config))


def test_without_a_recipe_or_a_folder_the_message_says_what_to_choose(tmp_path):
    with pytest.raises(RecipeError, match="No recipe chosen"):
        launch(compose_job("train", [f"paths.folder={tmp_path}"]))
    assert not HydraConfig.initialized()
    with pytest.raises(RecipeError, match=r"paths\.folder is not set"):
        launch(compose_job("train", ["experiment=liquid/pretraining", "base.vision_tokenizer=random"]))


def test_the_demo_is_a_plan_that_holds():
    check_stages(OmegaConf.to_container(compose_job("train", ["curriculum=demo"]).job.stages))
