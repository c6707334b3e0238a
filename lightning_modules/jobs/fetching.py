"""The job of `plait-fetch`: optional data goes into the cache folder. Nothing else in plait downloads it."""

import logging

from plait.data.hard.debian import PACKAGES
from plait.data.styles.art import TARBALLS
from plait.errors import RecipeError

SOURCES = {"styles": tuple(TARBALLS.values()), "hard": tuple(PACKAGES.values())}
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
            f"what={what} names nothing that can be fetched, expected {' or '.join(SOURCES)}. Next: what=<one of them>."
        )
    found = {source.package: str(source.fetch()) for source in SOURCES[what]}
    for package, path in found.items():
        log.info("%s: %s", package, path)
    return found
