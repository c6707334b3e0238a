"""A job and its mirror in W&B: what the config says of the job becomes what W&B is told, and the mirror ends as the job ends.

It knows Hydra and configs, and nothing of wandb: the logger `logger.wandb` owns the process.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.processes.ranks import own_rank
from lightning_modules.tracking.mirroring.facts import (
    check_login,
    check_names,
    check_run_id,
    choose_id,
    count_parameters,
    find_parents,
    flatten_overrides,
    is_online,
    name_run,
    shorten,
    spell_command,
    tag_run,
)
from lightning_modules.tracking.mirroring.record import read_json
from plait.errors import RecipeError


def check_mirror(config: DictConfig) -> None:
    """Refuse what W&B would refuse, before anything is built.

    Raises:
        RecipeError: a name or tag that W&B does not take, or runs are to be sent and nobody is logged in.
    """
    if OmegaConf.select(config, "logger.wandb") is None:
        return
    node = {key: _read(config.logger.wandb, key) for key in config.logger.wandb}
    if not isinstance(tags := node.get("tags") or [], list):
        raise RecipeError(f"tags={tags!r}: expected a list. Next: tags=[{tags}].")
    online = is_online(bool(node.get("offline", True)))
    if online is not None:
        check_run_id(os.environ.get("WANDB_RUN_ID", ""))
        check_names(
            **{key: node.get(key) for key in ("name", "group", "job_type", "tags")}, project=node.get("project", "plait")
        )
    if online:
        check_login()


def _read(node: DictConfig, key: str) -> Any:
    """A value of the logger; None where it refers to what is not there (of a curriculum, whose stages have it)."""
    try:
        return OmegaConf.to_container(node[key], resolve=True) if OmegaConf.is_config(node[key]) else node[key]
    except OmegaConfBaseException:
        return None


class Mirror:
    """What a job has to say to its mirror.

    Args:
        run: the logger; None where the job has none.
    """

    def __init__(self, config: DictConfig, run: Any) -> None:
        self._config, self._run = config, run

    def tell(self, nodes: Mapping[str, Any], parents: Mapping[str, str], told: Mapping[str, Any]) -> None:
        """Open the run.

        Args:
            nodes: the resolved config of the job.
            parents: part -> identity of the weights that it starts from.
            told: what the caller of the job says of it (`stage`, `overrides`, `apart`), see `run_curriculum`.
        """
        if self._run is not None:
            self._run.open_with(partial(collect_facts, self._config, self._run.facts, nodes, parents, told))


@contextmanager
def mirrored(config: DictConfig, assembly: Assembly) -> Iterator[Mirror]:
    """Mirror the job that the block runs, where its config has W&B's logger and says of which type it is (a curriculum does not, its jobs
    do): its run ends as the block ends."""
    has_run = "job_type" in config and OmegaConf.select(config, "logger.wandb") is not None
    run = assembly.build("logger.wandb") if has_run and own_rank() == 0 else None
    run = run if hasattr(run, "open_with") else None  # somebody's own logger under this name
    exit_code = 1
    try:
        if run is not None:
            run.start()
        yield Mirror(config, run)
        exit_code = 0
    finally:
        if run is not None:
            run.finish(exit_code)


@contextmanager
def named_variables() -> Iterator[None]:
    """Within the block `${oc.env:NAME}` of a config stands for itself: what is stored or sent of a config names a variable, and never
    tells its value."""
    OmegaConf.register_new_resolver("oc.env", lambda name, *_: f"${{oc.env:{name}}}", replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def collect_facts(
    config: DictConfig, given: Mapping[str, Any], nodes: Mapping[str, Any], parents: Mapping[str, str], told: Mapping[str, Any]
) -> dict[str, Any]:
    """What is kept in mirror.json beside what the logger was given."""
    folder = Path(config.paths.folder)
    swept = {**dict(told.get("apart") or {}), **find_swept()}
    number = _job_number()
    part = (
        told.get("stage") if number is None else "-".join(str(word) for word in (told.get("stage"), number) if word is not None)
    )
    base = OmegaConf.to_container(config.base, resolve=True) if "base" in config else {}
    known = find_parents(parents, base)
    judged = config.get("run")
    name = told.get("stage") or given["name"] or config.get("name")
    name = name if judged is None or told.get("stage") else f"{name} of {judged}"
    group = given["group"] or _find_group(config, judged, number)
    overrides = told.get("overrides")
    if overrides is None:
        overrides = list_typed() if HydraConfig.initialized() else ()
    counts: dict[str, int] = {}
    for parent in known.values():
        counts |= count_parameters(read_json(Path(parent["folder"]) / "ledger.json"))
    counts = {part: count for part, count in counts.items() if part not in ("all", "trained")}
    counts |= {"all": sum(counts.values())} if counts else {}
    about = {"overrides": flatten_overrides(overrides), "parents": known, "parameters": counts, "swept": swept}
    if judged is not None:
        about["judged"] = {"folder": str(judged), **known.get("model", {})}
    return {
        "id": choose_id(folder, part, is_training=str(config.job.get("_target_", "")).endswith(".fit")),
        "name": name_run(str(name), swept),
        "group": shorten(str(group), 128),
        "tags": tag_run(given["tags"], swept),
        "notes": spell_command(),
        "config": {**nodes, **about},
    }


def list_typed() -> list[str]:
    """The overrides of the command line as they were typed: a `${oc.env:...}` in them names a variable, and its value stays here."""
    return list(OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))


def find_swept() -> dict[str, str]:
    """key -> value of what this job of a multirun or of a W&B sweep has of its own: its overrides that were not given to all."""
    if not HydraConfig.initialized():
        return {}
    hydra = HydraConfig.get()
    own = list_typed()
    if hydra.mode != RunMode.MULTIRUN:
        place = Path(os.environ.get("WANDB_SWEEP_PARAM_PATH") or os.devnull)  # where W&B's agent says what it chose
        chosen = yaml.safe_load(place.read_text(encoding="utf-8")) if place.is_file() else {}
        return {key: str(item["value"]) for key, item in (chosen or {}).items() if isinstance(item, dict) and "value" in item}
    stored = Path(hydra.sweep.dir) / "multirun.yaml"
    if not stored.is_file():
        return dict(item.partition("=")[::2] for item in own)
    shared = set(_spell_fixed(yaml.safe_load(stored.read_text(encoding="utf-8"))["hydra"]["overrides"]["task"]))
    return {key.lstrip("+"): value for key, _, value in (item.partition("=") for item in own if item not in shared)}


def _spell_fixed(overrides: Sequence[str]) -> Iterator[str]:
    """Overrides that are no sweeps, as Hydra hands them to its jobs."""
    for item in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([item])
        except HydraException:
            continue
        if not override.is_sweep_override():
            yield f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _job_number() -> int | None:
    """Which job of a multirun this is; None outside of one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return OmegaConf.select(HydraConfig.get(), "job.num", throw_on_missing=False)


def _find_group(config: DictConfig, judged: Any, number: int | None) -> str:
    """The group of a job for which nobody chose one: that of the run it judges, its sweep's, or its own."""
    if judged is not None and (group := read_json(Path(str(judged)) / "mirror.json").get("group")):
        return group
    if number is not None:
        place = Path(HydraConfig.get().sweep.dir)
        return "_".join(name for name in (place.parent.name, place.name) if name)
    known = read_json(Path(config.paths.folder) / "mirror.json").get("group")
    return known or f"{config.get('name')}_{Path(config.paths.folder).name}"
