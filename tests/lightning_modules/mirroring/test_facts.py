"""What W&B is told of a job: names that tell jobs apart, refusals in our words, no secrets."""

import json
from pathlib import Path

import pytest
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch, resolve
from lightning_modules.tracking.mirroring import facts
from lightning_modules.tracking.mirroring.job import find_swept, named_variables
from plait.errors import RecipeError

REFUSED = {
    "project": (["a/b", "a" * 129, "", " ", "what?", "a\nb"], "lab-1"),
    "tags": (["a" * 70, "", "a\tb"], "a" * 64),
    "name": (["a" * 129, "a\nb"], "a" * 128),
}


@pytest.mark.parametrize("key", REFUSED)
def test_names_that_w_and_b_does_not_take_are_refused_by_name(key: str) -> None:
    refused, allowed = REFUSED[key]
    wrap = (lambda value: [value]) if key == "tags" else (lambda value: value)
    for value in refused:
        with pytest.raises(RecipeError, match=rf"W&B: .*{key}=.* Expected 1 to \d+ printable characters.* Next: "):
            facts.check_names(**{"project": "plait", key: wrap(value)})
    facts.check_names(**{"project": "plait", key: wrap(allowed)})
    wandb.Settings(**{{"tags": "run_tags", "name": "run_name"}.get(key, key): wrap(allowed)})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["curriculum=demo", "logger.wandb.project=a/b"], r"logger\.wandb\.project='a/b' holds '/'"),
        (["experiment=liquid/tokenizer", f"tags=[{'x' * 70}]"], "tags='x+' has 70 characters"),
        (
            ["experiment=liquid/tokenizer", "logger=online"],
            "logger=online, and nobody is logged in to .* Next: `wandb login`",
        ),
    ],
)
def test_they_are_refused_before_anything_is_built(tmp_path: Path, monkeypatch, overrides: list[str], message: str) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(RecipeError, match=message):
        launch(compose_job("train", ["scale=tiny", f"paths.folder={tmp_path / 'run'}", *overrides]))
    assert not (tmp_path / "run").exists()


def test_names_that_are_too_long_end_in_a_hash() -> None:
    swept = {"data.path": "x" * 200}
    name, other = facts.name_run("pretraining", swept), facts.name_run("pretraining", {"data.path": "x" * 200 + "y"})
    assert len(name) == 128
    assert name != other
    assert name[:60] == other[:60]
    assert facts.tag_run(["a"], {"seed": "1", "seed ": "1"}) == ["a", "seed=1", "seed =1"]
    assert [len(tag) for tag in facts.tag_run([], swept)] == [64]


def test_ids_are_kept_and_the_variable_names_one_job_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    first, second = (facts.choose_id(tmp_path, None, True) for _ in range(2))
    assert first != second
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert facts.choose_id(tmp_path, None, True) == "mine"
    assert [facts.choose_id(tmp_path, stage, True) for stage in ("tokenizer", "codes/x")] == ["mine-tokenizer", "mine-codes-x"]
    assert facts.choose_id(tmp_path, None, False) != "mine"  # an evaluation in the same shell is another run
    (tmp_path / "mirror.json").write_text('{"id": "kept"}')
    assert facts.choose_id(tmp_path, "tokenizer", True) == "kept"
    monkeypatch.setenv("WANDB_RUN_ID", "a/b")
    with pytest.raises(RecipeError, match="WANDB_RUN_ID='a/b'"):
        facts.choose_id(tmp_path / "other", None, True)


def test_what_was_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ["experiment=liquid/pretraining", "seed=1,2", "scale=tiny", "+x=[1, 2]", "stage.optimizer.lr=range(1,3)"]
    (tmp_path / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": {"overrides": {"task": shared}}}))
    monkeypatch.setenv("SOME_TOKEN", "sesame-open")
    shared.append("tags=[a,'${oc.env:SOME_TOKEN}']")
    (tmp_path / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": {"overrides": {"task": shared}}}))
    own = [
        "tags=[a,'${oc.env:SOME_TOKEN}']",
        "experiment=liquid/pretraining",
        "seed=2",
        "scale=tiny",
        "+x=[1,2]",
        "stage.optimizer.lr=1",
        "arm=long",
    ]
    hydra = {"mode": RunMode.MULTIRUN, "overrides": {"task": own}, "sweep": {"dir": str(tmp_path)}}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    assert find_swept() == {"seed": "2", "stage.optimizer.lr": "1", "arm": "long"}
    # W&B's agent says in a file what it chose
    hydra["mode"] = RunMode.RUN
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    assert find_swept() == {}
    (tmp_path / "sweep.yaml").write_text("wandb_version: 1\nseed:\n  value: 7\n")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "sweep.yaml"))
    assert find_swept() == {"seed": "7"}


def test_values_of_variables_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", "sesame-open")
    monkeypatch.setenv("WHERE", "under-the-stone")
    config = compose_job(
        "train", ["experiment=liquid/tokenizer", "scale=tiny", "tags=['${oc.env:WHERE}','is-${oc.env:SLURM_JWT}']"]
    )
    with named_variables():
        stored = resolve(config)
    assert stored["tags"] == ["${oc.env:WHERE}", "is-${oc.env:SLURM_JWT}"]
    assert resolve(config)["tags"] == ["under-the-stone", "is-sesame-open"]
    masked = facts.mask({"a": ["x sesame-open y", 1, None, Path("p")], "b": {"c": "under-the-stone"}})
    assert masked == {"a": ["x <SLURM_JWT> y", 1, None, "p"], "b": {"c": "under-the-stone"}}
    assert json.dumps(masked)


def test_the_command_and_its_overrides() -> None:
    assert facts.spell_command(["/x/bin/plait-train", "-m", "a=[1, 2]"]) == "plait-train -m 'a=[1, 2]'"
    assert facts.spell_command(["/x/lightning_modules/commands/train.py", "seed=1"]) == "plait-train seed=1"
    assert facts.spell_command(["/x/ipykernel_launcher.py", "-f"]) == "from a notebook"
    flat = facts.flatten_overrides(["seed=1", "+x.y=[a,b]", "~callbacks.ema", "name=a=b", "z={"])
    assert flat == {"seed": 1, "x.y": ["a", "b"], "callbacks.ema": None, "name": "a=b", "z": "{"}
