"""Folders and files that appear whole or not at all."""

from pathlib import Path

import pytest

from plait.atomic import replace_folder


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "here"
    for text in ("old", "new"):
        with replace_folder(target) as beside:
            (beside / "file").write_text(text)
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_what_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "here"
    with replace_folder(target) as beside:
        (beside / "file").write_text("old")

    def write_half() -> None:
        with replace_folder(target) as beside:
            (beside / "file").write_text("new")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_links_that_lead_nowhere_are_kept_as_they_are(tmp_path: Path) -> None:
    """Packages of Debian hold links into packages that they need."""
    with replace_folder(tmp_path / "here") as beside:
        (beside / "link").symlink_to("../elsewhere/nothing")
    assert (tmp_path / "here" / "link").is_symlink()
