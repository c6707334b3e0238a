"""The words of a command line that are texts and paths of somebody's, brought safely past Hydra's grammar, and looked at before anything
is loaded.

Hydra reads `prompt=it's a car, red` as a broken quote and a sweep. Texts are texts: what stands after `prompt=`, `question=` and `edit=`
is taken to the letter, several of one key make a list, and so is the path of a file or folder that is there under these very letters.
A value that is a list or in quotes already is Hydra's, and so is everything where `-m` sweeps.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from lightning_modules.desk.requests import read_request
from plait.errors import CheckpointError

TEXTS = ("prompt", "question", "edit")
PATHS = ("run", "image", "document")
REQUEST = ("prompt", "image", "question", "edit", "document", "kind")
SWEEPS = ("-m", "--multirun")
ELSEWHERE = ("-h", "--help", "--hydra-help", "--info", "-i", "--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn")
"""options with which the words do not say all"""


def read_words(words: Sequence[str]) -> list[str]:
    """The words of `plait-generate` as Hydra shall have them.

    Raises:
        CheckpointError: there is no such run.
        DocumentError: they ask for nothing that can be asked for.
    """
    if any(word in SWEEPS for word in words):
        return list(words)
    given: dict[str, list[str]] = {}
    for word in words:
        key, has_value, value = word.partition("=")
        if has_value and key in (*TEXTS, *PATHS, "kind"):
            given.setdefault(key, []).append(value)
    keys = [word.partition("=")[0] for word in words]
    # a key that is nearly one of these is misspelt, which Hydra says
    is_misspelt = any(key not in REQUEST and get_close_matches(key, REQUEST, cutoff=0.75) for key in keys)
    if "run" in given and not is_misspelt and not any(key in ELSEWHERE for key in keys):
        _check(given)
    placed: list[str] = []
    for word in words:
        key = word.partition("=")[0]
        if key in TEXTS and key in given and not _is_of_hydra(given[key]):
            texts = given.pop(key)
            placed.append(f"{key}={_quote(texts[0])}" if len(texts) == 1 else f"{key}=[{','.join(map(_quote, texts))}]")
        elif key in TEXTS and key not in given and word != key:
            continue  # a further text of this key stands in its list
        elif key in PATHS and key in given and Path(given[key][-1]).expanduser().exists():
            placed.append(f"{key}={_quote(str(Path(given[key][-1]).expanduser()))}")
        else:
            placed.append(word)
    return placed


def _check(given: dict[str, list[str]]) -> None:
    run = Path(given["run"][-1].strip("'\"")).expanduser()
    if not run.is_dir():
        raise CheckpointError(
            f"run={run} is no folder. Expected that of a finished run, or a saved model. Next: check the path, or train one "
            "(make demo, plait-train --help)."
        )
    if any(_is_of_hydra(values) for key, values in given.items() if key in REQUEST):
        return  # read by Hydra first, then checked by the job
    request = {
        key: values if len(values) > 1 and key in TEXTS else values[-1] for key, values in given.items() if key in REQUEST
    }
    read_request(**request)


def _is_of_hydra(values: Sequence[str]) -> bool:
    """Whether a value is written as Hydra's grammar wants lists, quoted strings and nothing at all."""
    is_one = len(values) == 1 and len(values[0]) > 1
    return is_one and (values[0][0] + values[0][-1] in ("[]", "''", '""') or values[0] == "null")


def _quote(text: str) -> str:
    """A string that Hydra's grammar, and then OmegaConf, read as this very text."""
    text = re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)  # a reference to them otherwise
    text = re.sub(
        r'(\\+)("|$)', lambda found: f"{found[1] * 2}{found[2]}", text
    )  # they count before a quote and at the end alone
    return '"{}"'.format(text.replace('"', '\\"'))
