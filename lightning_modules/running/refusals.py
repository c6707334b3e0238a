"""How a command says no: one paragraph on stderr and exit code 2, for errors of plait and of Hydra's composition alike (a multirun
whose jobs failed passes on the code of the first).

Hydra would print its own words and leave with 1, and its advice on a misspelt key is to add it. What it found is said here in
the words of plait: the key or option, what there is in its place, and the nearest names. Errors that nobody foresaw stay whole.
`HYDRA_FULL_ERROR=1` shows the whole of every error.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from hydra_plugins.plait.gpus import register
from lightning_modules.processes.device_queue import INTERRUPTED
from plait.errors import PlaitError, RecipeError

FULL_ERROR = "HYDRA_FULL_ERROR"
EXTRAS = {"hydra/launcher/submitit_slurm": "slurm", "hydra/sweeper/optuna": "sweeps"}
"""Options that come with packages of an extra."""


def command(main: Callable[[], Any]) -> Callable[[], None]:
    """A `hydra.main` whose refusals are read by people and by shells, and which knows plait's launcher."""

    @functools.wraps(main)
    def run() -> None:
        register()
        asked = os.environ.get(FULL_ERROR)
        os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would otherwise print
        try:
            main()
        except (PlaitError, HydraException) as error:
            if asked == "1":
                raise
            refusal = error if isinstance(error, PlaitError) else explain(error)
            print("\n".join([str(refusal), *getattr(refusal, "__notes__", ())]), file=sys.stderr)
            raise SystemExit(getattr(refusal, "exit_code", 2)) from error
        except KeyboardInterrupt as error:
            if asked == "1":
                raise
            said = f"Stopped ({error or 'Ctrl-C'}): what has a checkpoint goes on from it when the same command is given again."
            print(said, file=sys.stderr)
            raise SystemExit(INTERRUPTED) from error
        finally:
            if asked is None:
                del os.environ[FULL_ERROR]
            else:
                os.environ[FULL_ERROR] = asked

    return run


def explain(error: HydraException) -> RecipeError:
    """What Hydra found while it composed a config, with the nearest names."""
    if isinstance(error, OverrideParseException):
        return RecipeError(
            f"The override {error.override!r} cannot be read: {_first_line(error)}. Expected key=value. "
            "Next: close its brackets and quotes, and quote what holds spaces or commas: key='\"a, b\"'."
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        if extra := EXTRAS.get(error.missing_cfg_file):
            return RecipeError(
                f"{error.missing_cfg_file} is not installed. Expected the packages of an extra. Next: pip install 'plait[{extra}]'."
            )
        group, _, option = error.missing_cfg_file.partition("/")
        known = sorted({*_shipped(group), *(error.options or ())})
        return RecipeError(
            f"{group}={option}: there is no such option. Expected one of {', '.join(known) or 'none'}. "
            f"Next: {_nearest(f'{group}=', option, known)} A folder of your own joins with --config-dir."
        )
    parent, key = (getattr(error.__cause__, name, None) for name in ("parent_node", "key"))
    if parent is not None and key is not None:
        full_key = error.__cause__.full_key
        node = full_key.removesuffix(str(key))
        known = sorted(map(str, parent))
        return RecipeError(
            f"{full_key}: the config has no such key. Expected one of {', '.join(known) or 'none'}"
            f"{f' in {node[:-1]}' if node else ''}. Next: {_nearest(node, str(key), known)} "
            f"A key that is new on purpose is written +{full_key}=<value>."
        )
    return RecipeError(
        f"The config does not compose: {_first_line(error)}. Expected groups and keys that it has. "
        "Next: compare with `--help` (groups) and `--cfg job` (keys)."
    )


def _shipped(group: str) -> list[str]:
    folder = Path(str(files("plait.conf"))) / group
    return [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]


def _nearest(start: str, name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {start}{close[0]}?" if close else "choose among them."


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(".")
