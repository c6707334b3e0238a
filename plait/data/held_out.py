"""Which documents are held out, decided by what they show and never by their place in a file.

Documents that share a picture belong together: no picture is on both sides. A group is held out if the least hash of its pictures falls
into the share, so the same picture is on the same side wherever and whenever it is read, as long as nothing new joins its group.
"""

from collections.abc import Sequence

WIDTH = 16
"""hexadecimal digits of a content hash that decide"""


def choose_held_out(contents: Sequence[Sequence[str]], share: float) -> list[bool]:
    """Whether each document is held out; at least one group is, the one of the least hash.

    Args:
        contents: per document the content hashes (hexadecimal) of its pictures, or that of its text where it has none.
        share: between 0 and 1.
    """
    above: dict[str, str] = {}

    def find(name: str) -> str:
        while (parent := above.setdefault(name, name)) != name:
            above[name] = above[parent]
            name = parent
        return name

    for names in contents:
        for name in names:
            one, other = sorted((find(names[0]), find(name)))
            above[other] = one  # the least hash of a group stands for it
    roots = [find(names[0]) for names in contents]
    bound = max(share * 16**WIDTH, min((int(root[:WIDTH], 16) for root in roots), default=0) + 1)
    return [int(root[:WIDTH], 16) < bound for root in roots]
