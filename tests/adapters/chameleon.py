"""Chameleon's names for image tokens (arXiv 2405.09818; public code, `vocab.py`): "IMGIMG" + digits + "Z", the digits of the code
written with A for 0 to J for 9. Knows names and numbers only."""

import re
from collections.abc import Mapping

from plait.errors import VocabularyError

NAME = re.compile(r"IMGIMG([A-J]+)Z")
DIGITS = str.maketrans("ABCDEFGHIJ", "0123456789")


def read_code(name: str) -> int:
    """The code that an image token stands for.

    Raises:
        VocabularyError: the name is no image token's.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise VocabularyError(
            f"{name!r} is no image token of Chameleon: expected IMGIMG, letters A to J, and Z. Next: leave it to the text."
        )
    return int(match[1].translate(DIGITS))


def image_codes(vocabulary: Mapping[str, int]) -> dict[int, int]:
    """Id -> code of every image token of a vocabulary (name -> id), in the order of ids.

    Raises:
        VocabularyError: two image tokens stand for one code.
    """
    codes = {index: read_code(name) for name, index in vocabulary.items() if name.startswith("IMGIMG")}
    if len(set(codes.values())) < len(codes):
        raise VocabularyError(
            f"{len(codes)} image tokens stand for {len(set(codes.values()))} codes: expected one each. Check the vocabulary."
        )
    return dict(sorted(codes.items()))
