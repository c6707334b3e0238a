"""Shared by all tests: shapes and types of plait are checked while they run, and one small run is made once per session."""

import os
import subprocess
import sys
from pathlib import Path

from jaxtyping import install_import_hook

# Before anything of plait is imported: annotations become checks. plait.data and plait.worlds have no tensors in their signatures and are
# called a million times in a run of the tests.
_CHECKED = [
    f"plait.{path.stem}"
    for path in (Path(__file__).parents[1] / "plait").iterdir()
    if path.stem not in ("__init__", "data", "worlds")
]
_HOOK = install_import_hook(_CHECKED, "beartype.beartype")
# before torch is imported: processes that share the tests and start more of their own must not each wait for every core
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402

# no test asks a hub or a tracker, whatever the machine is logged in to
os.environ.update({"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true", "TOKENIZERS_PARALLELISM": "false"})

ROOT = Path(__file__).resolve().parents[1]
# for processes that tests start: one thread, and glibc keeps freed memory (see Makefile), as `make` would have it
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained stages of the demo at scale=tiny, made once: tokenizer, codes, pretraining, instruction. Read it, never write
    into it. (After two steps nothing can be examined: the oracle recognises nothing.)"""
    from lightning_modules.loops.curriculum import compose_job
    from lightning_modules.running.launch import launch

    folder = tmp_path_factory.mktemp("runs") / "small"
    config = compose_job("train", ["curriculum=demo", f"paths.folder={folder}"])
    config.job.overrides = ["scale=tiny", "group=small"]
    config.job.closing = None  # it asks Hydra, which is not running here
    config.job.trainer = None  # this process has computed: it must not be forked for more
    config.job.stages = [stage for stage in config.job.stages if stage.name not in ("evaluation", "report")]
    launch(config)
    return folder


@pytest.fixture(scope="session")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished multirun of `plait-train -m curriculum=sketches`: all of its arms with three seeds each and their evaluations. Read it,
    never write into it."""
    folder = tmp_path_factory.mktemp("runs") / "sketches"
    _train("-m", "curriculum=sketches", f"place={folder}")
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run of the demo's own kind in outputs/demo: small and hardly trained, but made by a curriculum in processes
    of its own, two for each training (its stored config says so), with paths relative to the project. Read it, never write into it."""
    project = tmp_path_factory.mktemp("project")
    (project / "pyproject.toml").touch()
    words = ("curriculum=sketch", "+job.trainer=ddp_cpu", "paths.folder=outputs/demo", "hydra.run.dir=outputs/demo")
    _train(*words, cwd=project)
    return project


@pytest.fixture(scope="session")
def synergen_vl_sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `plait-train curriculum=synergen_vl_sketch` on a made-up WordNet: every stage, nothing learned. Read it, never
    write into it."""
    from tests.data.tiny_wordnet import fill_cache

    folder = tmp_path_factory.mktemp("runs") / "synergen_vl_sketch"
    cache = {"PLAIT_CACHE": str(fill_cache(tmp_path_factory.mktemp("cache")))}
    _train("curriculum=synergen_vl_sketch", f"paths.folder={folder}", f"hydra.run.dir={folder}", **cache)
    return folder


def _train(*words: str, cwd: Path = ROOT, **environment: str) -> None:
    command = [sys.executable, "-m", "lightning_modules.commands.train", *words]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
