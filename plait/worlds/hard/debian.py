"""Packages of Debian whose files are data: fetched by apt, unpacked by dpkg into the cache folder. Nothing is installed."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from plait.atomic import replace_folder
from plait.data.downloads import CACHE, cache_folder
from plait.errors import RecipeError


@dataclass(frozen=True)
class DebianPackage:
    """A package and the folder in it that is read.

    Args:
        setting: of the config, that names a folder in its place.
        place: the folder, below the root of the package.
        version: the one that the figures of the data card were counted on; others are read as well.
    """

    package: str
    setting: str
    place: str
    version: str

    @property
    def folder(self) -> Path:
        """Where it is unpacked."""
        return cache_folder() / "debian" / self.package

    def open(self, folder: str | Path | None = None) -> Path:
        """The folder that is read: the one that is named, or that in the cache.

        Raises:
            RecipeError: there is none.
        """
        found = Path(folder) if folder else self.folder / self.place
        if not found.is_dir():
            raise RecipeError(
                f"{found} is not there, expected /{self.place} of Debian's {self.package}. Next: plait-fetch what=hard (apt, without "
                f"root), or name the folder as world.{self.setting}=<folder> ({CACHE} names another cache)."
            )
        return found

    def fetch(self) -> Path:
        """Let apt download the package and dpkg unpack it, unless that has been done.

        Raises:
            RecipeError: there is no apt or dpkg, or the package cannot be had.
        """
        if (self.folder / self.place).is_dir():
            return self.folder
        missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
        if missing:
            raise RecipeError(
                f"{self.package} is a package of Debian and {' and '.join(missing)} is not there, expected a Debian. Next: unpack "
                f"the package elsewhere and name its /{self.place} as world.{self.setting}=<folder>."
            )
        with replace_folder(self.folder, self.place) as beside:
            self._run("apt-get", "download", self.package, cwd=beside)
            (archive,) = beside.glob("*.deb")
            self._run("dpkg", "-x", archive.name, ".", cwd=beside)
            archive.unlink()
            if not (beside / self.place).is_dir():
                raise RecipeError(
                    f"{archive.name} has no folder {self.place}, expected it as in version {self.version}. Next: fetch that by hand "
                    f"and name the folder as world.{self.setting}."
                )
        return self.folder

    def _run(self, *words: str, cwd: Path) -> None:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise RecipeError(
                f"{' '.join(words)} failed: {last} Expected the package {self.package}. Next: apt-get update where there is a network, or "
                f"name a folder as world.{self.setting}=<folder>."
            )


PACKAGES = {
    "stamps": DebianPackage("tuxpaint-stamps-default", "stamps", "usr/share/tuxpaint/stamps", "2022.06.04-1"),
    "gimp_help": DebianPackage("gimp-help-en", "gimp_help", "usr/share/gimp/2.0/help/en", "2.10.34-2"),
}
