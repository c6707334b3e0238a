"""A run read back from W&B into a folder, as if it had been made here.

What a run handed over at its end (`WandbRun.log_record`) is taken as it is; of one that still goes on, or did not end well, the rows
and the pages of samples that W&B has so far. Weights come along where they were handed over (`has_weights`), with those of the bases.
It does not know what is in a run.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.tracking import METRICS_FILE, STEP_KEY, name_artifact, write_plain
from plait.atomic import write_json
from plait.checkpoints import WEIGHTS
from plait.errors import CheckpointError

NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""how W&B writes them"""
log = logging.getLogger(__name__)


def fetch_run(path: str, place: str | Path) -> Path:
    """Fetch a run.

    Args:
        path: entity/project/run, or entity/project/artifact:version of an artifact that the run logged.
        place: the run goes into a folder of its id below it; what an earlier call left there is written anew.

    Returns:
        The run folder, for `plait.runs.Run`.

    Raises:
        CheckpointError: W&B has no such run or artifact, or does not let you have it.
    """
    import wandb

    try:
        api = wandb.Api()
        run = api.artifact(path).logged_by() if ":" in path else api.run(path)
        if run is None:
            raise ValueError("no run logged this artifact.")
        folder = Path(place) / run.id
        folder.mkdir(parents=True, exist_ok=True)
        logged = {artifact.type: artifact for artifact in run.logged_artifacts()}
        if "record" in logged:
            logged["record"].download(root=str(folder))
        else:
            _copy_progress(run, folder)
        bases = _fetch_weights(api, run, logged["weights"], folder) if "weights" in logged else {}
    except (wandb.errors.Error, ValueError) as error:
        raise CheckpointError(
            f"W&B does not give {path!r}: {error} Expected entity/project/run or entity/project/artifact:version of something you may "
            "read. Next: check the path, and `wandb login`."
        ) from error
    _settle_config(folder / "config.yaml", bases)
    write_json(folder / "job.json", {"id": run.id, "state": run.state, "fetched_from": path})
    return folder


def _copy_progress(run: Any, folder: Path) -> None:
    rows = []
    for row in run.scan_history():
        numbers = {key: NOT_FINITE.get(value, value) if isinstance(value, str) else value for key, value in row.items()}
        numbers = {key: write_plain(value) for key, value in numbers.items() if isinstance(value, int | float)}
        step = numbers.pop(STEP_KEY, None)
        rows.append({"step": step, **{key: value for key, value in numbers.items() if not key.startswith("_")}})
    (folder / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "samples").mkdir(exist_ok=True)
    for file in run.files(pattern="media/html/samples%"):
        file.download(root=str(folder), replace=True)
        name = Path(file.name)  # samples_<row>_<hash>.html
        (folder / name).replace(folder / "samples" / f"row-{int(name.stem.split('_')[1]):07d}.html")


def _fetch_weights(api: Any, run: Any, weights: Any, folder: Path) -> dict[str, str]:
    """Download the weights and those of the bases; returns part -> where its base lies now."""
    own = folder / "checkpoints" / "last.ckpt"
    weights.download(root=str(own))
    if not (own / WEIGHTS).is_file():
        log.info("%s did not hand over its weights (has_weights=false): it can be read, and not be drawn with.", run.id)
        return {}
    bases = {}
    for part, identity in weights.metadata["parents"].items():
        bases[part] = str(folder / "bases" / part)
        artifact = api.artifact(f"{run.entity}/{run.project}/{name_artifact(identity)}:latest")
        artifact.download(root=bases[part])
    return bases


def _settle_config(path: Path, bases: Mapping[str, str]) -> None:
    """Name what came along by where it lies now; a cache of codes stayed where it was made, pictures are encoded when asked for."""
    if not path.is_file():
        return
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["base"] |= bases
    config["paths"]["folder"] = str(path.parent)
    if "codes" in config:
        config["codes"]["folder"] = None
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
