"""Malformed configs: through the commands themselves, composed by Hydra, refused with exit code 2 and a message on stderr."""

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lightning_modules.commands import compare, convert, encode, evaluate, export, generate, report, train
from lightning_modules.composing.instantiate import Assembly
from lightning_modules.folders.records import write_job
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.launch import launch
from lightning_modules.running.refusals import command
from plait.checkpoints import save_checkpoint
from plait.errors import PlaitError
from tests.malformed.standard import Case as Standard
from tests.malformed.standard import assert_says, contents, table
from tests.malformed.test_images import PICTURE, encoded

COMMANDS = {
    "train": train.main,
    "encode": encode.main,
    "evaluate": evaluate.main,
    "generate": generate.main,
    "report": report.main,
    "compare": compare.main,
    "convert": convert.main,
    "export": export.main,
}
SMALL = ("scale=tiny", "logger=none", "callbacks=none")
TOKENIZER = ("experiment=liquid/tokenizer", *SMALL)
TINY = ("experiment=liquid/pretraining", *SMALL)
OUTPUTS = {".safetensors", ".png", ".bin", ".html", ".tmp", ".parquet"}
"""What a finished command leaves and a refused one does not."""


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    """The parts of a sound recipe at scale=tiny, untrained."""
    torch.manual_seed(0)
    return Assembly(compose_job("train", [*TINY, "paths.folder=none"]))


@pytest.fixture(scope="module")
def model(assembly: Assembly) -> Any:
    """Liquid."""
    return assembly.build("model")


@pytest.fixture(autouse=True)
def _shared_parts(assembly: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world and the words, which no case is about, are made once; everything else is built from the config of the case."""
    given = {name: assembly.build(name) for name in ("world", "text_tokenizer")}
    monkeypatch.setattr(
        "lightning_modules.running.launch.Assembly", lambda config, own=None: Assembly(config, {**given, **(own or {})})
    )


@pytest.fixture(scope="module")
def inputs(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs, made once: no refusal may change them, which every test checks."""
    folder = tmp_path_factory.mktemp("inputs") / "given"
    make_inputs(folder, model)
    return folder


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hydra sets up logging for the process; here that is the process of the tests."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:], logging.root.level = handlers, level
    GlobalHydra.instance().clear()


def finish_run(folder: Path, model: Any) -> None:
    """A folder as a finished training run leaves it."""
    config = compose_job("train", [*TINY, f"paths.folder={folder}"])
    save_checkpoint(folder / "checkpoints" / "last.ckpt", model)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    write_job(folder, {"state": "finished"})


def make_inputs(given: Path, model: Any) -> None:
    """What the cases below name: runs, bases and documents, most of them malformed."""
    tokenizer = model.vision_tokenizer
    given.mkdir()
    finish_run(given / "run", model)
    for name, changed in {"no-world": {"world": None}, "huge": {"backbone": {"hidden_size": 10_000_000}}}.items():
        shutil.copytree(given / "run", given / name)
        config = OmegaConf.merge(OmegaConf.load(given / "run" / "config.yaml"), changed)
        (given / name / "config.yaml").write_text(OmegaConf.to_yaml(config))
    for name, text in {"run-of-bits": "{", "run-of-ink": '{"state": "finished"}'}.items():
        (given / name).mkdir()
        (given / name / "job.json").write_text(text)
        (given / name / "config.yaml").write_text("base: {[")
    save_checkpoint(given / "tokenizer", tokenizer)
    save_checkpoint(given / "unfinished", tokenizer, is_complete=False, step=7)
    save_checkpoint(given / "language-model", model)
    save_checkpoint(given / "flipped", tokenizer)
    data = bytearray((given / "flipped" / "model.safetensors").read_bytes())
    data[-9] ^= 4
    (given / "flipped" / "model.safetensors").write_bytes(data)
    (given / "tree.png").write_bytes(encoded(PICTURE))
    documents = {
        "no-json": '{"spans": [',
        "a-list": "[1, 2]",
        "two-errors": '{"spans": [{"type": "txt"}, {"text": "a car"}]}',
        "no-picture": '{"spans": [{"type": "image", "image_id": "forest.png"}, {"type": "text", "text": "a car"}]}',
        "no-word": '{"spans": [{"type": "image", "image_id": "tree.png"}, {"type": "text", "text": "a red carr"}]}',
    }
    for name, text in documents.items():
        (given / f"{name}.json").write_text(text)


def test_a_stopped_command_ends_in_a_sentence(capsys: pytest.CaptureFixture) -> None:
    def stop() -> None:
        raise KeyboardInterrupt("stopped by SIGTERM")

    with pytest.raises(SystemExit) as caught:
        command(stop)()
    assert caught.value.code == 130
    assert "stopped by SIGTERM" in capsys.readouterr().err


def Case(name: str, command: str, overrides: tuple[str, ...], item: str, finding: str, remedy: str) -> Any:
    """A command that is refused; `{given}` in an override is the folder of inputs."""
    return Standard(name, lambda _: (command, overrides), item, finding, remedy)


def on_tiny(*overrides: str) -> tuple[str, ...]:
    return (*TINY, *overrides)


def drawing(*overrides: str) -> tuple[str, ...]:
    return ("run={given}/run", *overrides)


@table(
    Case("misspelt-key", "train", on_tiny("template.caption_drop=0.2"), r"template\.caption_drop", "no such key. Expected .*in temp",
         r"did you mean template\.caption_dropout\?"),
    Case("key-that-nobody-reads", "train", on_tiny("+objective.misspelt=1"), r"objective\.misspelt=1",
         "nothing reads this key. Expected one of averaged_over, has_max_z, weights in objective", "take it out"),
    Case("unknown-experiment", "train", ("experiment=liquid/pretrain",), "experiment=liquid/pretrain",
         "no such option. Expected one of .*liquid/instruction", "did you mean experiment=liquid/pretraining"),
    Case("unknown-option", "train", on_tiny("backbone=huge"), "backbone=huge", "one of .*hub, internlm2_1_8b", "choose among|did you"),
    Case("override-cut", "train", on_tiny("template.caption_dropout=[0.2"), r"caption_dropout=\[0\.2", "Expected key=value", "close"),
    Case("reference-to-nothing", "train", on_tiny("seed=${nowhere}"), "seed", "'nowhere' not found.*Expected", "set it on the comm"),
    Case("ratio-over-one", "train", on_tiny("template.text_to_image_ratio=1.4"), "text_to_image_ratio is 1.4",
         "expected a share between 0 and 1", "Set template.text_to_image_ratio"),
    Case("base-missing", "train", ("experiment=liquid/pretraining",), r"base\.vision_tokenizer is", "not set", "Next: plait-train exp"),
    Case("data-without-a-path", "train", on_tiny("data=hub"), r"data\.path", "is not set. Expected a value", "set data.path=<value>"),
    Case("encode-without-tokenizer", "encode", (), r"base\.vision_tokenizer is", "not set", "Next: plait-train experiment"),
    Case("document-two-errors", "generate", drawing("document={given}/two-errors.json"), r"two-errors\.json.*span 0 .*span 1",
         "2 problems: .*'txt'.*None.*Expected", "Correct the JSON"),
    Case("misspelt-text", "generate", drawing("promt=a red car"), "promt", "no such key. Expected one of", r"did you mean prompt\?"),
    Case("two-things-at-once", "train", on_tiny("curriculum=demo"), "experiment=liquid/pretraining and curriculum=demo", "expected one of",
         "leave one out"),
    Case("rows-no-names", "compare", ("rows=[x]",), r"rows is \['x'\]", r"expected \{<name>: \[a text, \.\.\.\]", "set rows to"),
    Case("rows-no-lists", "compare", ("rows={one: x}",), r"rows is \{'one': 'x'\}", r"expected \{<name>: \[a text", "set rows to"),
    Case("export-nowhere", "export", ("run={given}/run",), "target is not set", "Expected a value", "set target="),
    Case("export-over-something", "export", ("run={given}/run", "target={given}/run"), "target=.*given/run overlaps with", "Expected a new",
         "choose another"),
    Case("convert-nothing", "convert", ("target={given}/new",), "is not set", "Expected a value", "set (source|vqgan)="),
    Case("report-of-nothing", "report", ("runs=[{given}]",), r"run-of-bits/job\.json", "cannot be read", "finish the run"),
)  # fmt: skip
def test_a_command_refuses(
    case: Any, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The command itself, as a shell runs it: exit code 2, the message on stderr."""
    command, overrides = case.prepare(inputs)
    run, before = tmp_path / "run", contents(inputs)
    folders = [f"paths.folder={run}", f"hydra.run.dir={run}"]
    monkeypatch.setattr(
        sys, "argv", [f"plait-{command}", *(item.replace("{given}", str(inputs)) for item in overrides), *folders]
    )
    with pytest.raises(SystemExit) as caught:
        COMMANDS[command]()
    assert caught.value.code == 2
    assert_says(case, capsys.readouterr().err)
    assert_nothing_made(run)
    assert contents(inputs) == before


@pytest.mark.parametrize("run", ["nowhere", "{place}/elsewhere/nowhere"])
def test_a_run_that_is_not_there_is_not_made_by_asking_for_it(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra makes a folder for the job below the run; what was refused takes it away, up to where the command was started."""
    (started := tmp_path / "started").mkdir()
    (other := tmp_path / "other").mkdir()
    (other / "mine.txt").touch()
    monkeypatch.chdir(started)
    monkeypatch.setattr(sys, "argv", ["plait-evaluate", f"run={run.format(place=other)}"])
    with pytest.raises(SystemExit) as caught:
        COMMANDS["evaluate"]()
    assert caught.value.code == 2
    assert not list(started.iterdir())
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


@table(
    Case("steps-a-word", "train", (*TOKENIZER, "trainer.max_steps=abc"), "trainer.max_steps is 'abc'", "expected a whole number", "set"),
    Case("rate-below-nothing", "train", (*TOKENIZER, "stage.optimizer.lr=-1"), "stage.optimizer", "Invalid learning rate: -1.*Expected",
         "change stage.optimizer"),
    Case("rate-of-muon", "train", on_tiny("stage.optimizer.lr=-1"), "stage.optimizer", "Invalid learning rate: -1.*Exp", "change stage"),
    Case("warmup-below-nothing", "train", (*TOKENIZER, "stage.schedule.warmup_steps=-4"), "warmup_steps is -4", "expected at least", "set"),
    Case("no-prompts", "evaluate", ("run={given}/run", "n=0"), "n is 0", "expected a whole number of at least 1", "set n="),
    Case("kept-of-nothing", "evaluate", ("run={given}/run", "kept_of={given}"), "kept_of=", "expected the folder of a fin", "plait-eval"),
    Case("no-samples", "generate", drawing("prompt=a", "num_samples=0"), "num_samples is 0", "expected a whole number of at least", "set"),
    Case("no-such-fit", "generate", drawing("prompt=a", "fit=stretch"), "fit is 'stretch'", "expected crop or pad", "set data.fit"),
    Case("too-hot", "generate", drawing("prompt=a", "image_policy.temperature=-1.0"), "temperature=-1", "expected numbers", "change what"),
    Case("no-request", "generate", drawing(), "Nothing is asked", "expected prompt=", "give one"),
    Case("rows-without-evaluation", "compare", ("rows={one: ['{given}/run']}",), "given/run holds no eval", "Expected", "plait-eval"),
    Case("nothing-to-sync", "sync", ("runs={given}/tokenizer",), "runs=.*given/tokenizer", "holds no run: expected", "check the path"),
    Case("no-world", "generate", ("run={given}/no-world", "prompt=a"), "no-world: world is None", "expected what builds", "PLAIT_TRUSTED"),
)  # fmt: skip
def test_what_settings_tell_is_refused_before_anything_is_loaded(
    case: Any, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a folder made for the job."""
    monkeypatch.setattr(Assembly, "build", lambda self, path: pytest.fail(f"{path} was built"))
    command, overrides = case.prepare(inputs)
    given = [item.replace("{given}", str(inputs)) for item in overrides]
    with pytest.raises(PlaitError) as caught:
        launch(compose_job(command, [*given, f"paths.folder={tmp_path / 'run'}"]))
    assert_says(case, "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())]))
    assert not (tmp_path / "run").exists()


@table(
    Case("misspelt-group", "train", on_tiny("sclae=paper"), "sclae", "no such key. Expected one of", "did you mean "),
    Case("unknown-curriculum", "train", ("curriculum=demoo",), "curriculum=demoo", "one of bases, demo, own, sk", r"curriculum=demo\?"),
    Case("no-recipe", "train", (), "recipe", "Expected experiment=", "--help"),
    Case("seed-a-word", "train", (*TOKENIZER, "seed=one"), "seed is 'one'", "expected a whole number from 0", "set seed="),
    Case("seed-negative", "train", (*TOKENIZER, "seed=-1"), "seed is -1", "expected a whole number from 0", "set seed="),
    Case("key-misspelt-in-paths", "train", on_tiny("+paths.rot=x"), r"paths\.rot=x", "Expected one of cache, folder, root",
         r"did you mean paths\.root"),
    Case("base-over-a-trained-model", "train", ("experiment=base/text", *SMALL, "backbone=smollm2"), "text trains its backbone",
         "from nothing, and backbone is that of .*from_pretrained.*Expected an option", "leave backbone=... out"),
    Case("base-over-a-trained-encoder", "train", ("experiment=base/vision", *SMALL, "vision=hub", "vision.name_or_folder=no/x"),
         "vision trains its vision", "from nothing.*which has been trained. Expected", "leave vision=... out"),
    Case("backbone-setting", "train", on_tiny("+backbone.hiden_size=3"), "'hiden_size'", "Expected one of its", "mean hidden_size"),
    Case("backbone-layers-a-word", "train", on_tiny("backbone.num_hidden_layers=two"), "num_hidden_layers is 'two'",
         "expected a multiple of the 2 entries", "Change one"),
    Case("heads-do-not-divide", "train", on_tiny("backbone.num_attention_heads=4", "backbone.num_key_value_heads=3"),
         "num_attention_heads = 4", "is not a multiple of num_key_value_heads = 3", "Set backbone.num_key_value_heads"),
    Case("backbone-not-there", "train", ("experiment=liquid/pretraining", *SMALL, "backbone=hub", "backbone.name_or_folder=no/x"), "no/x",
         "cannot read it.*Expected a name on the Hub", "Check the spelling"),
    Case("text-table-too-small", "train", on_tiny("backbone.vocab_size=40"), "text tokenizer", r"\d+ ids but .* has 40 rows",
         "build the backbone with vocab_size"),
    Case("forbidden-target", "train", (*TOKENIZER, "+stage.extra._target_=os.system"), r"stage\.extra: _target_ 'os\.system'",
         "not allowed. Expected a public name", "PLAIT_IMPORT_ROOTS"),
    Case("target-not-there", "train", (*TOKENIZER, "stage.optimizer._target_=torch.optim.AdamWW"), r"stage\.optimizer: .*AdamWW",
         "torch.optim has no 'AdamWW'. Expected", r"did you mean torch\.optim\.AdamW\?"),
    Case("argument-not-there", "train", (*TOKENIZER, "+stage.optimizer.learning_rate=1"), "stage.optimizer", "'learning_rate'.*Expected",
         "change stage.optimizer"),
    Case("ratio-a-word", "train", on_tiny("template.text_to_image_ratio=high"), "template.text_to_image_ratio is 'high'",
         "expected a number", "set template.text_to_image_ratio"),
    Case("instructions-a-word", "train", on_tiny("+template.instructions=Draw"), "template.instructions is 'Draw'",
         r"expected \[a text, \.\.\.\]", "set template.instructions"),
    Case("temperature-negative", "train", ("experiment=liquid/pretraining", *SMALL[:2], "image_policy.temperature=-1.0"),
         "image_policy", "temperature=-1.*expected",
         "change what lies outside"),
    Case("weight-of-unknown-task", "train", on_tiny("+batches.weights.videos=0.2"), "'videos'", "expected names among its sources",
         "take the name out"),
    Case("weight-negative", "train", on_tiny("batches.weights.vqa=-0.2"), "'vqa': -0.2", "expected .*at least 0", "0 leaves"),
    Case("unknown-task", "train", on_tiny("batches.sources.tasks=[text,videos]"), "task 'videos'", "expected one of", "choose among"),
    Case("unknown-loss-term", "train", on_tiny("+objective.weights.txt=1.0", "batches.documents_per_window=8"), "speak of txt",
         "announces counts for text, image.*Expected a count", "take the name out"),
    Case("steps-do-not-divide", "train", on_tiny("trainer.accumulate_grad_batches=2", "batches.num_batches=3"), "epoch of 3 micro-b",
         "does not divide into optimiser steps of 2", "limit_train_batches=2"),
    Case("accumulate-disagrees", "train", on_tiny("batches.accumulate=2"), "accumulate=2", "Trainer runs with accumulate=1",
         "Build the dataset with"),
    Case("row-too-short", "train", on_tiny("batches.row_length=20", "batches.documents_per_window=8"), "Document '",
         r"\d+ tokens, more than the row length 20", "raise row_length"),
    Case("positions-too-few", "train", on_tiny("backbone.max_position_embeddings=64"), "A document of", "was made for 64 positions",
         "Raise max_position_embeddings"),
    Case("no-step", "train", (*TOKENIZER, "trainer.max_steps=0"), "max_steps is 0", "expected at least 1", "set trainer.max_steps"),
    Case("no-such-device", "train", (*TOKENIZER, "trainer.accelerator=abacus"), "trainer", "abacus.*Expected", "trainer=<cpu"),
    Case("batch-of-nothing", "train", (*TOKENIZER, "batches.batch_size=0"), "batch of 0 pictures", "expected at least 1",
         "set batches.batch_size"),
    Case("pictures-off-the-patch", "train", (*TOKENIZER, "vision_tokenizer.image_size=[60,64]"), "60 x 64", "multiples of the patch, 16",
         "Resize or pad"),
    Case("factorised-under-a-cap", "train",
         on_tiny("backbone.architecture=gemma2", "~backbone.use_sliding_window", "model.code_rows=factorised"),
         "factorised codes", r"soft cap at 30\.0.*expect none", "use code_rows='dense'"),
    Case("base-nowhere", "train", on_tiny("base.vision_tokenizer={given}/none"), "given/none", "no checkpoint: expected",
         "Next: plait-train experiment=liquid/tokenizer"),
    Case("base-unfinished", "train", on_tiny("base.vision_tokenizer={given}/unfinished"), "given/unfinished",
         r"not finished \(step 7\), expected a finished", "Next: plait-train experiment"),
    Case("base-flipped", "train", on_tiny("base.vision_tokenizer={given}/flipped"), "flipped/model.safetensors", "its sha256 is",
         "Next: plait-train experiment"),
    Case("base-of-another-part", "train", on_tiny("base.vision_tokenizer={given}/language-model"), "language-model does not fit Patch",
         r"\d+ of \d+ tensors are missing .*are unexpected", "Build the model from the config"),
    Case("resume-from-weights", "train", (*TOKENIZER, "checkpoint={given}/tokenizer"), "given/tokenizer", "weights only, expected",
         "Use it as a base"),
    Case("resume-from-nothing", "train", (*TOKENIZER, "checkpoint=last"), "holds no checkpoint", "expected .*last.ckpt", "start without"),
    Case("sizes-out-of-proportion", "generate", ("run={given}/huge", "prompt=a"), "given/huge", "describes .*weights hold .*Expected",
         "correct the sizes"),
    Case("run-nowhere", "generate", ("run={given}/none", "prompt=a"), "run=.*given/none", "no run folder: expected config.yaml", "check"),
    Case("run-record-damaged", "generate", ("run={given}/run-of-bits", "prompt=a"), r"run-of-bits/job\.json", "Expected what a job",
         "move .* aside"),
    Case("run-config-damaged", "generate", ("run={given}/run-of-ink", "prompt=a"), r"run-of-ink/config\.yaml", "Expected what a job",
         "move .* aside"),
    Case("prompt-and-document", "generate", drawing("prompt=a", "document=b"), "prompt='a', document='b'", "expected prompt=",
         "give one of these"),
    Case("prompt-unknown-word", "generate", drawing("prompt='a red carr'"), "'carr'", r"has \d+ entries and the nearest", "Reword"),
    Case("document-nowhere", "generate", drawing("document={given}/none.json"), r"given/none\.json", "No such file.*Expected JSON",
         "Check the path"),
    Case("document-no-json", "generate", drawing("document={given}/no-json.json"), r"no-json\.json", "line 1 .*Expected JSON", "Check"),
    Case("document-picture-nowhere", "generate", drawing("document={given}/no-picture.json"), r"given/forest\.png",
         "is no file.*Expected the path", "check it"),
    Case("document-unknown-word", "generate", drawing("document={given}/no-word.json"), "'carr' in 'a red carr'",
         "the nearest are 'car", "Reword the text"),
)  # fmt: skip
def test_a_malformed_config_is_refused(case: Any, inputs: Path, tmp_path: Path) -> None:
    """What a command does once Hydra is set up: compose and launch."""
    command, overrides = case.prepare(inputs)
    run, before = tmp_path / "run", contents(inputs)
    with pytest.raises(PlaitError) as caught:
        launch(compose_job(command, [*(item.replace("{given}", str(inputs)) for item in overrides), f"paths.folder={run}"]))
    assert_says(case, "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())]))
    assert_nothing_made(run)
    assert contents(inputs) == before


def assert_nothing_made(run: Path) -> None:
    """A refused job leaves the record of its failure and no output."""
    assert not [path for path in run.rglob("*") if path.suffix in OUTPUTS]
    job = run / "job.json"
    assert not job.exists() or json.loads(job.read_text())["state"] == "failed"
