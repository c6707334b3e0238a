"""Several processes are one job: one folder, one record, one loss; what would mix two jobs is refused."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from lightning_modules.callbacks.same_job import SameJob
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.processes import ranks
from lightning_modules.running.launch import check_machine, fit, launch
from lightning_modules.stage import Stage
from lightning_modules.training.data import DataModule
from plait.document import Document, TextSpan
from plait.errors import RecipeError
from plait.freezing import FreezePlan
from plait.runs import Run
from tests.conftest import ONE_THREAD, ROOT
from tests.lightning_modules.mirroring.mirrors import check_rows, settle
from tests.lightning_modules.stubs import Numbers, make_stage, make_trainer
from tests.systems.test_synergen_vl import PAIR, tiny_synergen

RECIPE = ["experiment=liquid/pretraining", "scale=tiny"]


@pytest.mark.slow
def test_two_ranks_are_one_run_and_train_as_one_process_does(tmp_path: Path) -> None:
    """The real command: torchrun with two processes over gloo."""
    weights = ["+callbacks.weights._target_=tests.lightning_modules.stubs.SaveWeights", f"+callbacks.weights.folder={tmp_path}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "lightning_modules.commands.train", *RECIPE, "trainer=ddp_cpu", *weights],
        cwd=tmp_path,
        env={**os.environ, **ONE_THREAD, "PLAIT_IMPORT_ROOTS": "tests", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (folder,) = tmp_path.glob("outputs/*/*/*")
    shared = Run(folder)
    assert shared.is_complete
    assert shared.ledger.proof.is_kept
    assert shared.passport["ranks"] == 2
    assert shared.checkpoint.is_dir()
    assert len({sample.page for sample in shared.samples}) == 2
    mirror = settle(folder)
    check_rows(folder, mirror)
    assert (mirror.config["ranks"], mirror.exit_code, mirror.facts["name"]) == (2, 0, "pretraining")
    assert mirror.config["parameters"]["all"] == shared.ledger.parameters
    assert len([row for row in mirror.rows if "samples" in row]) == 2
    assert done.stderr.count("ledger of PretrainingStage") + done.stdout.count("ledger of PretrainingStage") == 1

    launch(compose_job("train", [*RECIPE, f"paths.folder={tmp_path / 'alone'}", "logger=none"]))
    alone = Run(tmp_path / "alone")
    for key in ("train/loss", "val/loss", "train/text_loss_nats", "train/image_loss_nats"):
        steps, losses = shared.metrics.series(key)
        assert (steps, losses) == (alone.metrics.series(key)[0], pytest.approx(alone.metrics.series(key)[1], rel=1e-5)), key
    one, other = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_curriculum_shares_a_training_and_hands_it_over(tmp_path: Path) -> None:
    """The processes are started by the curriculum itself; what they train is what one process trains."""
    stages = [
        {"name": "tokenizer", "overrides": ["experiment=liquid/tokenizer"]},
        {"name": "codes", "config": "encode", "overrides": ["base.vision_tokenizer=<tokenizer>", "splits=[val]"]},
    ]
    code = "import sys; from lightning_modules.loops.curriculum import run_curriculum; run_curriculum(**eval(sys.argv[1]))"
    folders = {}
    for trainer in ("ddp_cpu", "cpu"):
        folders[trainer] = tmp_path / trainer
        settings = {"stages": stages, "folder": str(folders[trainer]), "trainer": trainer, "overrides": ["scale=tiny"]}
        done = subprocess.run(
            [sys.executable, "-c", code, repr(settings)],
            cwd=tmp_path,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert (folders[trainer] / "codes" / "codes").is_dir()
    shared, alone = (Run(folder / "tokenizer") for folder in folders.values())
    assert (shared.passport["ranks"], alone.passport["ranks"]) == (2, 1)
    assert shared.ledger.proof.is_kept
    check_rows(shared.folder, settle(shared.folder))
    steps, losses = shared.metrics.series("train/loss")
    assert (steps, losses) == (
        alone.metrics.series("train/loss")[0],
        pytest.approx(alone.metrics.series("train/loss")[1], rel=1e-5),
    )


@pytest.mark.parametrize(
    ("launcher", "is_refused"),
    [
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", True),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", True),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", False),  # each run is a Slurm job of its own
    ],
)
def test_a_sweep_of_several_processes_is_refused(tmp_path: Path, monkeypatch, launcher: str, is_refused: bool) -> None:
    config = compose_job("train", [*RECIPE, "trainer=ddp_cpu", f"paths.folder={tmp_path / 'run'}"])
    hydra = OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN, "launcher": {"_target_": launcher}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", hydra)
    if not is_refused:
        return check_machine(config)
    with pytest.raises(RecipeError, match=r"the ranks of two jobs would train together\. Next: leave -m out.*torchrun"):
        launch(config)
    assert not (tmp_path / "run").exists()
    return None


@pytest.mark.parametrize(
    ("number", "start", "message"),
    [
        (2, {"is_sweep": True}, "-m runs its jobs.*with 2 rank.*torchrun"),
        (1, {"is_sweep": True, "strategy": "ddp"}, "with 1 rank.*strategy=ddp"),
        (2, {"is_shared": False}, "runs in one process and was started as 2"),
        (1, {"is_sweep": True}, None),
        (1, {"is_shared": False}, None),
        (2, {}, None),
    ],
)
def test_what_several_processes_may_do(monkeypatch, number: int, start: dict, message: str | None) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(number))
    settings = {"is_shared": True, "is_sweep": False, "strategy": "auto"} | start
    if message is None:
        ranks.check_start(**settings)
    else:
        with pytest.raises(RecipeError, match=message):
            ranks.check_start(**settings)


def test_a_curriculum_is_no_job_of_several_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a curriculum starts the processes"):
        launch(compose_job("train", ["curriculum=demo", f"paths.folder={tmp_path}"]))


def test_a_trainer_that_counts_other_processes_is_refused(tmp_path: Path) -> None:
    def start(**changes: Any) -> None:
        trainer = partial(
            lightning.Trainer, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, **changes
        )
        fit(stage=None, data=None, trainer=trainer, callbacks={}, loggers={}, folder=str(tmp_path))

    with pytest.raises(RecipeError, match=r"works with 1 process\(es\) under DDPStrategy.*as a single one.*torchrun"):
        start(strategy="ddp", devices=1)
    with pytest.raises(RecipeError, match=r"works with 2 process\(es\) under DDPStrategy"):
        start(devices=2)


def test_the_variables_of_srun_are_read(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.count_ranks(), ranks.own_rank(), ranks.count_local_ranks(), ranks.count_nodes()) == (1, 0, 1, 1)
    for name, value in {"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_NTASKS_PER_NODE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (ranks.count_ranks(), ranks.own_rank(), ranks.count_local_ranks(), ranks.count_nodes()) == (8, 5, 4, 2)
    assert "outputs" not in ranks.choose_root("outputs")


def on_ranks(task: Callable[[int], Any], number: int = 2) -> list[Any]:
    """What a task gives on each of some ranks, in processes of their own; an error of ours is given as its words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(number)}
    context = multiprocessing.get_context("fork")  # a fresh interpreter would import for longer than it computes
    answers = context.SimpleQueue()

    def work(rank: int) -> None:
        torch.set_num_threads(1)  # a fork does not inherit the threads of its parent's pool
        os.environ.update({**address, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        try:
            answer = task(rank)
        except RecipeError as error:
            answer = str(error)
        answers.put((rank, answer))
        is_over.wait(30)  # rank 0 is the store of the other

    is_over = context.Barrier(number)
    processes = [context.Process(target=work, args=(rank,), daemon=True) for rank in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * number
    return [answer for _, answer in sorted(answers.get() for _ in processes)]


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@forks
def test_ranks_agree_on_the_id_and_folder_of_rank_0() -> None:
    one, other = on_ranks(lambda rank: [ranks.shake_hands("same", f"folder-{rank}-{job}") for job in range(2)])
    assert one == other
    assert [folder for _, folder in one] == ["folder-0-0", "folder-0-1"]
    assert one[0][0] != one[1][0]


@forks
def test_ranks_with_different_configs_do_not_start() -> None:
    """Rank 0 in one job of a sweep and rank 1 in another: both hear of both."""
    for words in on_ranks(lambda rank: ranks.shake_hands(f"config-{rank}", "folder")):
        assert "Rank 0 and rank 1 are not in the same job: config_hash is config-0 on rank 0 and config-1 on rank 1" in words


@forks
def test_a_rank_that_does_not_come_is_named(monkeypatch) -> None:
    monkeypatch.setattr(ranks, "PATIENCE_S", 1.0)
    absent, waiting = on_ranks(lambda rank: ranks._open_store() and None if rank == 0 else ranks.shake_hands("x", "folder"))
    assert absent is None
    assert "Rank 1 waited 1 s for rank 0 at the start of a job" in waiting


@forks
@pytest.mark.parametrize("key", ["job_id", "config_hash"])
def test_ranks_of_two_jobs_do_not_train_together(tmp_path: Path, key: str) -> None:
    """They met in one process group all the same: nothing is trained."""

    def train(rank: int) -> None:
        identity = {"job_id": "job", "config_hash": "config", key: f"other-{rank}"}
        data = DataModule(Numbers(1, rank=rank, num_ranks=2))
        settings = {"strategy": "ddp", "devices": 2, "callbacks": (SameJob(identity),), "enable_checkpointing": False}
        make_trainer(tmp_path, 1, **settings).fit(make_stage(1), datamodule=data)

    for words in on_ranks(train):
        assert f"not in the same job: {key} is other-0 on rank 0 and other-1 on rank 1" in words
    assert not (tmp_path / "metrics.jsonl").exists()


@forks
def test_ranks_without_pictures_keep_step_with_the_others(tmp_path: Path) -> None:
    """Experts and unfolding head get their gradient on every rank and at every step, or the ranks would wait for each other: pictures
    on one of them, on the other, on none."""
    words = Document((TextSpan("a red car", loss=True),), id="words", kind="text")
    steps = [[PAIR, words], [words, words], [words, PAIR], [PAIR, words]]

    def train(rank: int, ranks: int) -> None:
        model = tiny_synergen(template={"text_to_image_ratio": 1.0, "caption_dropout": 0.0})
        worded = [[model.template.wrap(document, 0) for document in step] for step in steps]
        counts = [model.builder.build(step).counts for step in worded]
        batches = [model.builder.build(step[rank::ranks], counts=own) for step, own in zip(worded, counts, strict=True)]
        stage = Stage(model, max_steps=len(steps), optimizer=partial(torch.optim.SGD, lr=0.05))
        settings = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
        data = DataModule(Listed(batches, rank, ranks))
        make_trainer(tmp_path, len(steps), enable_checkpointing=False, **settings).fit(stage, datamodule=data)
        save_file({name: value.detach().contiguous() for name, value in model.named_parameters()}, tmp_path / f"{rank}-{ranks}")

    on_ranks(lambda rank: train(rank, 2))
    train(0, 1)
    one, other, alone = (load_file(tmp_path / name) for name in ("0-2", "1-2", "0-1"))
    for name, value in alone.items():
        assert torch.equal(one[name], other[name]), name
        torch.testing.assert_close(one[name], value, atol=1e-5, rtol=1e-4)


@forks
@pytest.mark.filterwarnings("ignore:.*sync_dist=True.*")  # means are taken over all ranks before they are logged
@pytest.mark.parametrize(("batches", "limit"), [(4, 1.0), (3, 1.0), (4, 3)])
def test_a_validation_is_the_same_on_any_number_of_ranks(tmp_path: Path, batches: int, limit: float) -> None:
    """Fewer batches than ranks, or a remainder: each is counted once, with what ranks without one must do for DDP."""

    def validate(rank: int, ranks: int) -> dict[str, float]:
        settings = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
        settings |= {"limit_val_batches": limit, "log_every_n_steps": 1, "enable_checkpointing": False}
        trainer, stage = (
            make_trainer(tmp_path / str(ranks), 1, **settings),
            make_stage(1, freeze_plan=FreezePlan(freeze=["body"])),
        )
        trainer.fit(stage, datamodule=DataModule(Numbers(1, 8, rank=rank, num_ranks=ranks), Numbers(batches, 3)))
        return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}

    (alone,) = on_ranks(partial(validate, ranks=1), 1)
    assert {"val/loss", "val/text_loss_nats", "val/image_loss_nats"} <= alone.keys()
    for number in (2, 8):
        for shared in on_ranks(partial(validate, ranks=number), number):
            assert shared == pytest.approx(alone, rel=1e-5), number


class Listed(list):
    """Batches that are there already, of one rank."""

    def __init__(self, batches: list, rank: int, num_ranks: int) -> None:
        super().__init__(batches)
        self.rank, self.num_ranks = rank, num_ranks


def test_gpu_without_a_gpu_says_what_was_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"no GPU was found: torch .* sees 0 CUDA devices\. Next: trainer=cpu"):
        launch(compose_job("train", [*RECIPE, f"paths.folder={tmp_path / 'run'}", "trainer=gpu"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_trains_and_draws(tmp_path: Path) -> None:
    """Two steps under bf16-mixed, samples drawn from the model where it is."""
    launch(compose_job("train", [*RECIPE, f"paths.folder={tmp_path}", "trainer=gpu", "logger=none"]))
    run = Run(tmp_path)
    assert run.is_complete
    assert run.ledger.proof.is_kept
    assert run.passport["config"]["trainer"]["precision"] == "bf16-mixed"
    assert run.metrics.last("perf/peak_device_memory_mib") > 0
    assert any(image.codes is not None for sample in run.samples for image in sample.document.images)
    assert json.loads((tmp_path / "job.json").read_text())["state"] == "finished"
