"""The option that a paper took, for `scale=paper`: `${published:${system},<group>,${stage}}` in a defaults list.

Hydra lets a defaults list refer to other choices, but not choose by table; the table is conf/published.yaml.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from plait.errors import RecipeError


def find_published(system: str | None, group: str, stage: str | None) -> str:
    """The option of a group for a system (`other` where it has no entry) and a stage.

    Raises:
        RecipeError: the table has no such group.
    """
    row = _table().get(system, _table()["other"])
    option: Any = row.get(group)
    if isinstance(option, dict):
        option = option.get(stage, option["others"])
    if option is None:
        raise RecipeError(f"conf/published.yaml says no {group} for system={system}: add it to the table.")
    return option


@cache
def _table() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(files("plait.conf").joinpath("published.yaml").read_text(encoding="utf-8"))
