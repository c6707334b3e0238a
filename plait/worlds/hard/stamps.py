"""Tux Paint stamps: cut-out photographs and drawings, each with a line of English beside it (GPL-2)."""

from dataclasses import dataclass
from pathlib import Path

LICENSE = "GPL-2.0"
NO_PICTURES = "symbols"
"""the folder of letters, digits, coins and flags of notation, which is left out"""


@dataclass(frozen=True)
class Stamp:
    """A picture and its caption.

    Args:
        name: its path below the folder of stamps, without suffix.
        is_drawn: lies in a folder of cartoons.
    """

    name: str
    path: Path
    caption: str
    is_drawn: bool


def list_stamps(folder: Path) -> tuple[list[Stamp], dict[str, int]]:
    """The stamps with a bitmap and a caption in the order of their names, and what was left out by reason."""
    stamps, left_out = [], dict.fromkeys(("symbols", "no bitmap", "no caption"), 0)
    for path in sorted(folder.rglob("*.txt")):
        name, picture = path.relative_to(folder).with_suffix(""), path.with_suffix(".png")
        caption = read_caption(path)
        if name.parts[0] == NO_PICTURES:
            left_out["symbols"] += 1
        elif not picture.is_file():
            left_out["no bitmap"] += 1
        elif not caption:
            left_out["no caption"] += 1
        else:
            stamps.append(Stamp(name.as_posix(), picture, caption, "cartoon" in name.parts))
    return stamps, {reason: count for reason, count in left_out.items() if count}


def read_caption(path: Path) -> str:
    """The first line, which is English; translations follow it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return " ".join(file.readline().split())
