"""Folders and files that appear whole or not at all."""

from pathlib import Path

import pytest

from plait.atomic import replace_folder, write_text
from plait.errors import CheckpointError


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "here"
    for text in ("old", "new"):
        with replace_folder(target, "file") as beside:
            (beside / "file").write_text(text)
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")

    def write() -> None:
        with replace_folder(tmp_path / "mine", "file") as beside:
            (beside / "file").write_text("new")

    with pytest.raises(CheckpointError, match=r"holds thesis\.txt, and no file: .*Expected nothing.*Next: choose another"):
        write()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "mine" / "thesis.txt").unlink()
    write()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_what_fails_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "here"
    with replace_folder(target, "file") as beside:
        (beside / "file").write_text("old")

    def write_half() -> None:
        with replace_folder(target, "file") as beside:
            (beside / "file").write_text("new")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert (target / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_links_that_lead_nowhere_are_kept_as_they_are(tmp_path: Path) -> None:
    """Packages of Debian hold links into packages that they need."""
    with replace_folder(tmp_path / "here", "link") as beside:
        (beside / "link").symlink_to("../elsewhere/nothing")
    assert (tmp_path / "here" / "link").is_symlink()


def test_two_that_write_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    """Two first imports of the same rows: the later one must not take the other's half-written folder for a stale one."""
    target = tmp_path / "here"
    with replace_folder(target, "file") as first:
        (first / "file").write_text("first")
        with replace_folder(target, "file") as second:
            (second / "file").write_text("second")
        assert (target / "file").read_text() == "second"
    assert (target / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / ".here.0123abcd.tmp"
    stale.mkdir()
    (stale / "half").write_text("")
    with replace_folder(tmp_path / "here", "file"):
        assert not stale.exists()


def test_two_that_write_one_file_leave_each_other_alone(tmp_path: Path, monkeypatch) -> None:
    """A temporary file has a name of its own, whatever process writes it."""
    used = []
    monkeypatch.setattr("os.replace", lambda beside, target: used.append(beside))
    for text in ("one", "two"):
        write_text(tmp_path / "page.html", text)
    assert len(set(used)) == 2
    assert not list(tmp_path.iterdir())
