"""A run read back from W&B into a folder, as if it had been made here.

What a run handed over at its end (its record) is taken as it is; of one that still goes on, or did not end well, the rows
and the pages of samples that W&B has so far. Weights come along where they were handed over (`has_weights`), with those of the bases.
What W&B says is somebody else's: names are checked before they become paths, files are taken only under the names that a run hands
over, and everything is written in a folder beside the target that takes its place when it is whole. It does not know what is in a run.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.tracking.loggers import write_plain
from lightning_modules.tracking.mirroring.content import MANIFEST, RECORD, WEIGHTS, name_artifact
from lightning_modules.tracking.mirroring.record import METRICS_FILE, STEP_KEY, read_json
from plait.atomic import replace_folder, write_json
from plait.errors import CheckpointError

NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""how W&B writes them"""
RUN_ID, PART, IDENTITY = re.compile(r"\w[\w.-]{0,127}"), re.compile(r"[A-Za-z_]\w{0,63}"), re.compile(r"[0-9a-f]{16,64}")
PAGE = re.compile(r"media/html/samples_(\d{1,9})_[0-9a-f]+\.html")
log = logging.getLogger(__name__)


def fetch_run(path: str, place: str | Path) -> Path:
    """Fetch a run.

    Args:
        path: entity/project/run, or entity/project/artifact:version of an artifact that the run logged.
        place: the run goes into a folder of its id below it; what an earlier call left there is replaced, once the run is here.

    Returns:
        The run folder, for `plait.runs.Run`.

    Raises:
        CheckpointError: W&B has no such run or artifact, or does not let you have it; or what it has would write elsewhere.
    """
    import wandb

    try:
        api = wandb.Api()
        run = api.artifact(path).logged_by() if ":" in path else api.run(path)
        if run is None:
            raise ValueError("no run logged this artifact.")
        _check(RUN_ID, "the id of the run", run.id)
        target = Path(place) / run.id
        if target.is_symlink():
            raise CheckpointError(f"{target} is a link, and a run is put into folders only. Next: remove the link.")
        if (target / "job.json").exists() and "fetched_from" not in read_json(target / "job.json"):
            raise CheckpointError(
                f"{target} is a run that was not fetched. Expected a place for those that are. Next: give another."
            )
        with replace_folder(target, "job.json") as folder:
            logged = {artifact.type: artifact for artifact in run.logged_artifacts()}
            if "record" in logged:
                _download(logged["record"], folder, lambda name: name.split("/")[0] in RECORD)
            else:
                _copy_progress(run, folder)
            bases = _fetch_weights(api, run, logged["weights"], folder) if "weights" in logged else {}
            _settle_config(folder / "config.yaml", target, bases)
            write_json(folder / "job.json", {"id": run.id, "state": str(run.state), "fetched_from": path})
    except (wandb.errors.Error, ValueError) as error:
        raise CheckpointError(
            f"W&B does not give {path!r}: {error} Expected entity/project/run or entity/project/artifact:version of something you may "
            "read. Next: check the path, and `wandb login`."
        ) from error
    return target


def _check(pattern: re.Pattern[str], what: str, name: Any) -> None:
    """Refuse a name of W&B that is to become a path here, and is none of ours."""
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise CheckpointError(
            f"W&B says that {what} is {str(name)[:100]!r}, which no run of plait has: it could write outside of its folder. "
            "Next: ask whoever made this run; nothing of it was kept."
        )


def _download(artifact: Any, folder: Path, is_expected: Callable[[str], bool]) -> None:
    """Download an artifact whose every file lies in `folder` under an expected name, and is a file of W&B and no reference elsewhere."""
    for name, entry in artifact.manifest.entries.items():
        words = str(name).split("/")
        is_plain = not {"", ".", ".."} & {*words} and not re.search(r"[\\\0:]", str(name))
        if not is_plain or not is_expected(str(name)) or getattr(entry, "ref", None) is not None:
            raise CheckpointError(
                f"The {artifact.type} of this run in W&B holds {str(name)[:100]!r}, which no run of plait hands over"
                f"{' (a reference to ' + str(entry.ref)[:100] + ')' if getattr(entry, 'ref', None) is not None else ''}. "
                "Next: ask whoever made this run; nothing of it was kept."
            )
    artifact.download(root=str(folder))
    links = [str(path) for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise CheckpointError(f"The {artifact.type} of this run brought links: {links[0]}. Nothing of it was kept.")


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
        if page := PAGE.fullmatch(file.name):  # samples_<row>_<hash>.html
            file.download(root=str(folder), replace=True)
            (folder / file.name).replace(folder / "samples" / f"row-{int(page[1]):07d}.html")


def _fetch_weights(api: Any, run: Any, weights: Any, folder: Path) -> dict[str, str]:
    """Download the weights and those of the bases; returns part -> where its base lies in the folder."""
    own = folder / "checkpoints" / "last.ckpt"
    _download(weights, own, (MANIFEST, WEIGHTS).__contains__)
    if not (own / WEIGHTS).is_file():
        log.info("%s did not hand over its weights (has_weights=false): it can be read, and not be drawn with.", run.id)
        return {}
    bases = {}
    for part, identity in dict(weights.metadata.get("parents") or {}).items():
        _check(PART, "a part", part)
        _check(IDENTITY, f"the identity of {part}", identity)
        bases[part] = f"bases/{part}"
        artifact = api.artifact(f"{run.entity}/{run.project}/{name_artifact(identity)}:latest")
        _download(artifact, folder / "bases" / part, (MANIFEST, WEIGHTS).__contains__)
    return bases


def _settle_config(path: Path, target: Path, bases: Mapping[str, str]) -> None:
    """Name what came along by where it will lie; a cache of codes stayed where it was made, pictures are encoded when asked for."""
    if not path.is_file():
        return
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config["base"] |= {part: str(target / place) for part, place in bases.items()}
        config["paths"]["folder"] = str(target)
        if "codes" in config:
            config["codes"]["folder"] = None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise CheckpointError(f"The config of this run in W&B is none of plait: {error!r}. Nothing of it was kept.") from error
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
