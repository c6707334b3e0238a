"""Files that plait fetches once, when it is asked to: where they are kept, and that each is the one that was pinned."""

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from plait.errors import DocumentError, RecipeError

CACHE = "PLAIT_CACHE"


def cache_folder() -> Path:
    """Where plait keeps what it fetched: the folder named by PLAIT_CACHE, or that of the platform."""
    return Path(os.environ.get(CACHE) or user_cache_path("plait"))


@dataclass(frozen=True)
class Tarball:
    """A package of npm in one version; npm itself fetches it, from the registry that the user has set.

    Args:
        sha512: base64, as the registry's own `integrity` says it.
    """

    package: str
    version: str
    sha512: str

    @property
    def path(self) -> Path:
        """Where it is kept, under the name that `npm pack` gives it."""
        return cache_folder() / f"{self.package.strip('@').replace('/', '-')}-{self.version}.tgz"

    def check(self, content: bytes) -> bytes:
        """The content, if it is what was pinned.

        Raises:
            DocumentError: it is not.
        """
        found = base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != self.sha512:
            raise DocumentError(
                f"{self.path}: {len(content):,} bytes with the sha512 {found[:16]}..., expected {self.sha512[:16]}... of {self.package} "
                f"{self.version}. Remove the file and fetch it again."
            )
        return content

    def read(self) -> bytes:
        """The file from the cache.

        Raises:
            RecipeError: it has not been fetched.
            DocumentError: it is another one than the one that was pinned.
        """
        if not self.path.is_file():
            raise RecipeError(
                f"{self.path.name} is not in {cache_folder()}, expected the tarball of {self.package} {self.version}. Next: where there is "
                f"a network, plait-fetch what=styles; or put there what `npm pack {self.package}@{self.version}` makes ({CACHE} names "
                "another folder)."
            )
        return self.check(self.path.read_bytes())

    def fetch(self) -> Path:
        """Let npm download it into the cache, unless it is there.

        Raises:
            RecipeError: there is no npm, or it cannot have the package.
            DocumentError: it is another one than the one that was pinned.
        """
        if self.path.is_file():
            self.read()
            return self.path
        by_hand = f"put what `npm pack {self.package}@{self.version}` makes elsewhere into {cache_folder()}"
        if shutil.which("npm") is None:
            raise RecipeError(
                f"npm is not there, expected it for {self.package} {self.version}. Next: install it, or {by_hand}."
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path.parent) as beside:
            words = ["npm", "pack", f"{self.package}@{self.version}"]
            done = subprocess.run(words, cwd=beside, capture_output=True, text=True)
            made = Path(beside, self.path.name)
            if done.returncode or not made.is_file():
                last = (done.stderr.strip().splitlines() or ["it made no file of the expected name"])[-1]
                raise RecipeError(f"{' '.join(words)} failed: {last} Next: try again where there is a network, or {by_hand}.")
            self.check(made.read_bytes())
            os.replace(made, self.path)
        return self.path
