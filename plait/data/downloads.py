"""Files that plait fetches once, when it is asked to: where they are kept, and that each is the one that was pinned."""

import base64
import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from platformdirs import user_cache_path

from plait.errors import DocumentError, RecipeError

CACHE = "PLAIT_CACHE"
TIMEOUT_S = 60


def cache_folder() -> Path:
    """Where plait keeps what it fetched: the folder named by PLAIT_CACHE, or that of the platform."""
    return Path(os.environ.get(CACHE) or user_cache_path("plait"))


@dataclass(frozen=True)
class Tarball:
    """A package of the npm registry in one version.

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

    @property
    def url(self) -> str:
        """Where it comes from."""
        return f"https://registry.npmjs.org/{self.package}/-/{self.package.rpartition('/')[2]}-{self.version}.tgz"

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
        """Download it into the cache, unless it is there.

        Raises:
            RecipeError: the registry cannot be reached.
            DocumentError: it is another one than the one that was pinned.
        """
        if self.path.is_file():
            self.read()
            return self.path
        try:
            with urllib.request.urlopen(self.url, timeout=TIMEOUT_S) as answer:
                content = answer.read()
        except (urllib.error.URLError, HTTPException, OSError) as error:
            raise RecipeError(
                f"{self.url} cannot be fetched: {error}. Expected the npm registry to answer. Next: try again where there is a network, or "
                f"put what `npm pack {self.package}@{self.version}` makes into {cache_folder()}."
            ) from error
        self.check(content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        beside.write_bytes(content)
        os.replace(beside, self.path)
        return self.path
