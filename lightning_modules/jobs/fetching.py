"""The job of `plait-fetch`: optional data goes into the cache folder."""

import logging
from collections.abc import Callable
from pathlib import Path

from plait.errors import RecipeError
from plait.worlds.hard.debian import PACKAGES
from plait.worlds.styles.art import TARBALLS
from plait.worlds.wordnet.archive import PACKAGE, keep_wordnet

SOURCES: dict[str, dict[str, Callable[[], Path]]] = {
    "styles": {one.package: one.fetch for one in TARBALLS.values()},
    "hard": {one.package: one.fetch for one in PACKAGES.values()},
    "wordnet": {PACKAGE: keep_wordnet},
}
"""what -> package -> how it is fetched, unless it is there"""
log = logging.getLogger(__name__)


def fetch(*, what: str) -> dict[str, str]:
    """Fetch what is not there yet.

    Args:
        what: a name of `SOURCES`.

    Returns:
        Package -> where it lies.

    Raises:
        RecipeError: nothing is called so, or it cannot be had.
    """
    if what not in SOURCES:
        raise RecipeError(
            f"what={what} names nothing that can be fetched, expected one of {', '.join(SOURCES)}. Next: what=<one of them>."
        )
    found = {package: str(fetch_one()) for package, fetch_one in SOURCES[what].items()}
    for package, path in found.items():
        log.info("%s: %s", package, path)
    return found
