"""Which concepts there are, in which styles and skin tones, and which split each drawing belongs to: by content, never by row.

A *family* is a concept in all its skin tones (the code without tone modifiers), a *cell* one drawing: a code in a style.
- val: all drawings of one family in 20.
- test_style: of one in five of the other families that all styles draw, the drawings in one style: the concept is seen in the others,
  the style with other concepts.
- test_tone: of every second role (a family drawn in five tones by every style), one tone in all styles: the role is seen in the other
  tones, the tone with other roles.
What is new in both ways, or shows a held-out tone beside another one (a handshake of two tones), belongs to no split.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plait.errors import RecipeError

TONES = {"1f3fb": "light", "1f3fc": "medium - light", "1f3fd": "medium", "1f3fe": "medium - dark", "1f3ff": "dark"}
SPLITS = ("train", "val", "test_style", "test_tone")
VAL_SHARE, STYLE_SHARE, TONE_SHARE = 20, 5, 2
"""one in so many families, families, roles"""


@dataclass(frozen=True)
class Cell:
    """One drawing: a code in a style, and what it is called."""

    code: str
    style: str
    name: str

    @property
    def id(self) -> str:
        """The name of its picture."""
        return f"style/{self.style}/{self.code}"

    @property
    def family(self) -> str:
        """Its code without tones."""
        return family_of(self.code)

    @property
    def tones(self) -> tuple[str, ...]:
        """Its skin tones, as codes."""
        return tones_of(self.code)


def family_of(code: str) -> str:
    """A code without its tone modifiers; a modifier alone is its own family."""
    return "-".join(part for part in code.split("-") if part not in TONES) or code


def tones_of(code: str) -> tuple[str, ...]:
    """The tone modifiers of a code, unless it is one alone."""
    parts = code.split("-")
    return tuple(part for part in parts if part in TONES) if len(parts) > 1 else ()


def list_roles(codes: Sequence[str]) -> list[str]:
    """Families that have all five tones, one at a time."""
    found: dict[str, set[str]] = defaultdict(set)
    for code in codes:
        if len(tones_of(code)) == 1:
            found[family_of(code)].add(tones_of(code)[0])
    return sorted(family for family, tones in found.items() if len(tones) == len(TONES))


def assign_cells(drawn: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], str | None]:
    """(style, code) -> split, None: of no split.

    Args:
        drawn: style -> the codes that it draws.
    """
    styles = sorted(drawn)
    in_all = set.intersection(*(set(codes) for codes in drawn.values()))
    everywhere = {family_of(code) for code in in_all}
    roles = set(list_roles(sorted(in_all)))
    splits: dict[tuple[str, str], str | None] = {}
    for style, codes in drawn.items():
        for code in codes:
            family, new = family_of(code), []
            if _draw(f"val/{family}") % VAL_SHARE == 0:
                splits[style, code] = "val"
                continue
            number = _draw(f"style/{family}")
            if family in everywhere and number % STYLE_SHARE == 0 and style == styles[number // STYLE_SHARE % len(styles)]:
                new.append("test_style")
            number = _draw(f"tone/{family}")
            tone = list(TONES)[number // TONE_SHARE % len(TONES)]
            if family in roles and number % TONE_SHARE == 0 and tone in tones_of(code):
                new += ["test_tone"] if len(tones_of(code)) == 1 else ["test_tone", "beside another"]
            splits[style, code] = "train" if not new else new[0] if len(new) == 1 else None
    return splits


def check_split(split: str) -> None:
    """Raises:
    RecipeError: there is no such split.
    """
    if split not in SPLITS:
        raise RecipeError(f"The styles have no split {split!r}: expected one of {', '.join(SPLITS)}. Name one of them.")


def _draw(content: str) -> int:
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
