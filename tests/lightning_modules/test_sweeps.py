"""Searches: what their files vary exists, what they aim at is written, and a search by Optuna finds a best trial."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import read_metric
from lightning_modules.running.refusals import explain
from plait.errors import RecipeError
from plait.runs import Run
from tests.conftest import ONE_THREAD

ROOT = Path(__file__).resolve().parents[2]
AGENT_FILES = sorted((ROOT / "conf" / "sweeps").glob("*.yaml"))
RECIPE = ["experiment=liquid/pretraining", "base.vision_tokenizer=random"]


def ends(parameter: dict) -> list:
    """The outermost values of a parameter of a W&B sweep."""
    return [parameter["values"][0], parameter["values"][-1]] if "values" in parameter else [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("path", AGENT_FILES, ids=lambda path: path.stem)
def test_a_sweep_of_wandb_runs_our_command_with_parameters_it_has(path: Path, small_run: Path) -> None:
    sweeps = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = yaml.safe_load(path.read_text())
    assert sweep["program"] in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert sweep["command"][:2] == ["${env}", "${program}"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    fixed = sweep["command"][2:-1]
    plain = compose_job("train", fixed)
    for index in range(2):
        values = {name: {"value": ends(parameter)[index]} for name, parameter in sweep["parameters"].items()}
        words = sweeps.create_sweep_command_args({"args": values})["args_no_hyphens"]
        config = compose_job("train", [*fixed, *words])
        for name, value in values.items():
            assert OmegaConf.select(plain, name) is not None, f"{name} is no value of the recipe"
            assert OmegaConf.select(config, name) == value["value"]
    (stage,) = (word.rpartition("/")[2] for word in fixed if word.startswith("experiment="))
    assert sweep["metric"]["name"] in Run(small_run / stage).metrics.keys


def test_what_optuna_varies_and_aims_at_is_in_the_recipe(small_run: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    with initialize_config_module("plait.conf", version_base="1.3"):
        config = compose("train", [*RECIPE, "hparams_search=liquid_pretraining"], return_hydra_config=True)
    sweeper = config.hydra.sweeper
    assert sweeper._target_.endswith(".OptunaSweeper")
    assert sweeper.sampler.seed == 1
    for name in sweeper.params:
        assert OmegaConf.select(config, name) is not None, f"{name} is no value of the recipe"
    assert config.optimized_metric in Run(small_run / "pretraining").metrics.keys
    for path in AGENT_FILES:
        assert yaml.safe_load(path.read_text())["metric"]["name"] == config.optimized_metric


def test_a_search_of_two_trials_side_by_side(tmp_path: Path, root: Path) -> None:
    """Three plugins at once: Optuna's sweeper, our launcher, real (tiny) trainings that return their objective."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    sweep = tmp_path / "sweep"
    command = [
        *(
            sys.executable,
            "-m",
            "lightning_modules.commands.train",
            "-m",
            "hparams_search=optuna",
            "experiment=liquid/tokenizer",
        ),
        *("scale=tiny", "logger=none", "~callbacks.gallery", f"hydra.sweep.dir={sweep}"),
        *("hydra/launcher=gpus", "hydra.launcher.devices=[a,b]", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"),
        "stage.optimizer.lr=tag(log, interval(1e-4, 1e-2))",
    ]
    done = subprocess.run(command, cwd=root, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    losses = {Run(sweep / name).config["stage"]["optimizer"]["lr"]: Run(sweep / name).metrics.last("val/loss") for name in "01"}
    assert best.best_value == pytest.approx(min(losses.values()))
    assert losses[best.best_params["stage.optimizer.lr"]] == min(losses.values())


@pytest.mark.parametrize(
    ("result", "finding"),
    [
        ({"train/loss": 1.5}, "is None, expected .* train/loss"),
        ({"val/loss": float("nan")}, "is nan, expected a finite"),
        (None, "no names at all"),
    ],
)
def test_an_objective_that_is_not_there_is_refused(result, finding: str) -> None:
    assert read_metric({"val/loss": 0.5}, "val/loss") == 0.5
    with pytest.raises(RecipeError, match=rf"optimized_metric=val/loss .*{finding}"):
        read_metric(result, "val/loss")


@pytest.mark.parametrize(("file", "extra"), [("hydra/launcher/submitit_slurm", "slurm"), ("hydra/sweeper/optuna", "sweeps")])
def test_what_is_not_installed_is_named_with_its_extra(file: str, extra: str) -> None:
    error = MissingConfigException("", missing_cfg_file=file)
    assert f"Next: pip install 'plait[{extra}]'" in str(explain(error))


@pytest.mark.parametrize("launcher", ["slurm", "submitit_slurm"])
def test_slurm_composes(launcher: str) -> None:
    plugin = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    settings = compose_launcher(launcher)
    assert settings._target_ == plugin.SlurmQueueConf._target_
    if launcher == "slurm":
        assert (settings.tasks_per_node, settings.gpus_per_node, settings.nodes) == (1, 1, 1)


def test_what_slurm_is_told() -> None:
    """The batch script that submitit writes of these settings."""
    slurm = pytest.importorskip("submitit.slurm.slurm")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = OmegaConf.to_container(compose_launcher("slurm"), resolve=False)
    names = ("nodes", "gpus_per_node", "cpus_per_task", "additional_parameters", "stderr_to_stdout", "array_parallelism")
    script = slurm._make_sbatch_string(
        command="run",
        folder="here",
        map_count=3,
        ntasks_per_node=launcher["tasks_per_node"],
        time=launcher["timeout_min"],
        **{name: launcher[name] for name in names},
    )
    lines = script.splitlines()
    for line in ("signal=USR1@120", "requeue", "gpus-per-node=1", "ntasks-per-node=1", "array=0-2%3", "time=240"):
        assert f"#SBATCH --{line}" in lines, script
    assert sum("--signal" in line for line in lines) == 1, "submitit's own signal would begin the run anew"


def compose_launcher(name: str) -> DictConfig:
    with initialize_config_module("plait.conf", version_base="1.3"):
        return compose("train", [*RECIPE, f"hydra/launcher={name}"], return_hydra_config=True).hydra.launcher
