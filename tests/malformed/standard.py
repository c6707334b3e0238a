"""The standard that every refusal is held to, and the table in which a case is written down.

An error is plait's own. Its message names the item, says what was found (and what was expected), and says what to do next.
Afterwards every file is what it was, nothing new lies beside it, and a model in memory has its old weights.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from plait.errors import PlaitError
from plait.ledger import digest

Attempt = Callable[[], object]
"""Sends the malformed thing on its way."""


@dataclass(frozen=True)
class Case:
    """One malformed thing.

    Args:
        name: id of the test.
        prepare: makes it in an empty folder; returns what sends it on its way and, with it, models that must not change.
        item, finding, remedy: patterns that the message has to meet.
    """

    name: str
    prepare: Callable[[Path], Attempt | tuple[Attempt, nn.Module]]
    item: str
    finding: str
    remedy: str


def table(*cases: Case) -> pytest.MarkDecorator:
    """The cases of a file, each under its own name."""
    assert len({case.name for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def assert_refused(case: Case, folder: Path) -> None:
    """Hold one case to the standard."""
    folder.mkdir()
    prepared = case.prepare(folder)
    attempt, model = prepared if isinstance(prepared, tuple) else (prepared, nn.Module())
    before = contents(folder), weights(model)
    with pytest.raises(PlaitError) as caught:
        attempt()
    assert_says(case, "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())]))
    assert (contents(folder), weights(model)) == before


def assert_says(case: Case, message: str) -> None:
    """Item, finding and remedy are in the message, and nothing of Python's own is."""
    for name in ("item", "finding", "remedy"):
        pattern = getattr(case, name)
        assert re.search(pattern, message), f"no {name} like {pattern!r} in:\n{message}"
    assert not re.search(r"Traceback| object at 0x|NoneType", message), message


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: path -> bytes (None for a folder)."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def weights(model: nn.Module) -> dict[str, str]:
    """The digest of every tensor."""
    return {name: digest(tensor) for name, tensor in model.state_dict().items()}
