"""What is fetched is pinned, kept once, and refused with its remedy where it cannot be had; no test asks the network."""

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest

from lightning_modules.jobs.fetching import fetch
from plait.data import downloads
from plait.data.downloads import Tarball
from plait.errors import DocumentError, RecipeError
from plait.worlds.hard import debian
from plait.worlds.hard.debian import PACKAGES, DebianPackage

CONTENT = b"a tarball"
TARBALL = Tarball("@some/art", "1.0.0", base64.b64encode(hashlib.sha512(CONTENT).digest()).decode())
NOTHING = DebianPackage("some-package", "stamps", "usr/share/some", "1.0")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answer(monkeypatch, content):
    """An npm that makes this tarball, or fails where there is none."""
    asked = []

    def run(words, cwd, **_):
        asked.append(words)
        if content is None:
            return subprocess.CompletedProcess(words, 1, "", "npm error network\nnpm error no route to the registry\n")
        Path(cwd, "some-art-1.0.0.tgz").write_bytes(content)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(downloads.shutil, "which", lambda name: name)
    monkeypatch.setattr(downloads.subprocess, "run", run)
    return asked


def test_a_tarball_is_fetched_once(monkeypatch, cache):
    asked = answer(monkeypatch, CONTENT)
    assert TARBALL.fetch() == TARBALL.fetch() == cache / "some-art-1.0.0.tgz"
    assert asked == [["npm", "pack", "@some/art@1.0.0"]]
    assert TARBALL.read() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["some-art-1.0.0.tgz"]


def test_another_tarball_is_refused_and_not_kept(monkeypatch, cache):
    answer(monkeypatch, b"something else")
    with pytest.raises(DocumentError, match=r"14 bytes with the sha512 .*expected .* of @some/art 1\.0\.0.*fetch it again"):
        TARBALL.fetch()
    assert not list(cache.iterdir())
    TARBALL.path.write_bytes(b"damaged")
    with pytest.raises(DocumentError, match="Remove the file"):
        TARBALL.read()
    with pytest.raises(DocumentError, match="Remove the file"):
        TARBALL.fetch()


def test_without_a_network_it_says_what_to_do(monkeypatch, cache):
    answer(monkeypatch, None)
    with pytest.raises(
        RecipeError, match=r"npm pack @some/art@1\.0\.0 failed: npm error no route .*where there is a network.*cache"
    ):
        TARBALL.fetch()
    assert not list(cache.iterdir())


def test_without_npm_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(downloads.shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match=r"npm is not there.*install it, or put what `npm pack @some/art@1\.0\.0` makes"):
        TARBALL.fetch()


def test_what_was_not_fetched_names_the_command():
    with pytest.raises(RecipeError, match=r"some-art-1\.0\.0\.tgz is not in .*plait-fetch what=styles.*npm pack.*PLAIT_CACHE"):
        TARBALL.read()
    with pytest.raises(
        RecipeError, match=r"tuxpaint-stamps-default.*plait-fetch what=hard.*world\.stamps=<folder>.*PLAIT_CACHE"
    ):
        PACKAGES["stamps"].open()
    with pytest.raises(RecipeError, match="mine is not there"):
        PACKAGES["gimp_help"].open("mine")


def test_without_apt_a_folder_is_asked_for(monkeypatch):
    monkeypatch.setattr(debian.shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match=r"apt-get and dpkg is not there.*unpack.*world\.stamps=<folder>"):
        NOTHING.fetch()


def test_a_package_that_apt_does_not_know_leaves_nothing(monkeypatch, cache):
    monkeypatch.setattr(debian.shutil, "which", lambda name: name)
    monkeypatch.setattr(DebianPackage, "_run", refuse)
    with pytest.raises(RecipeError, match="no such package"):
        NOTHING.fetch()
    assert not NOTHING.folder.exists()


def refuse(self, *words, cwd):
    raise RecipeError("no such package")


def test_a_package_is_unpacked_once(monkeypatch):
    ran = []

    def run(self, *words, cwd):
        ran.append(words[0])
        if words[0] == "apt-get":
            (cwd / "some-package_1.0_all.deb").touch()
        else:
            (cwd / NOTHING.place).mkdir(parents=True)

    monkeypatch.setattr(debian.shutil, "which", lambda name: name)
    monkeypatch.setattr(DebianPackage, "_run", run)
    assert NOTHING.fetch() == NOTHING.fetch() == NOTHING.folder
    assert ran == ["apt-get", "dpkg"]
    assert NOTHING.open() == NOTHING.folder / NOTHING.place
    assert not list(NOTHING.folder.glob("*.deb"))


def test_what_cannot_be_fetched_is_refused():
    with pytest.raises(RecipeError, match=r"what=everything names nothing.*expected one of styles, hard, wordnet"):
        fetch(what="everything")
