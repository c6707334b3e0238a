"""The commands that the README shows exist and compose; its files are there."""

import re
import shlex

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("plait-")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str) -> None:
    from lightning_modules.loops.curriculum import compose_job

    name, *words = shlex.split(command)
    overrides = [word for word in words if not word.startswith("-")]
    # of a sweep, its first job
    overrides = [re.sub(r"^(\w+)=(\w+),.*$", r"\1=\2", word) for word in overrides]
    config = compose_job(name.removeprefix("plait-"), [*overrides, "paths.folder=somewhere"])
    assert config.job._target_.startswith("lightning_modules.")


def test_there_are_commands_and_targets() -> None:
    assert len(COMMANDS) >= 6
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / link).is_file(), link
