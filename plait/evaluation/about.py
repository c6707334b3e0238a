"""What figures say, in words for people: an evaluation carries these words beside its figures, and pages look them up by name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from plait.errors import CheckpointError


@dataclass(frozen=True)
class About:
    """The words of a world's examinations.

    Args:
        figures: name -> (what the model does in it, empty where it is no skill; what the figure says).
        scores: what a score says, for the figures <figure>_<score>.
        splits: what the items of a split are.
        recall: splits on which nothing is asked that training did not show.
        headlines: figures that are columns of the common table, wherever a split has them.
        losses: figures of which less is better.
        shown: figures of which a page shows a sample at its top, where there are any -> whose skill it shows.
        is_open: figures whose samples need no click on a page.
    """

    figures: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    recall: Sequence[str] = ()
    headlines: Sequence[str] = ()
    losses: Sequence[str] = ()
    shown: Mapping[str, str] = field(default_factory=dict)
    is_open: Sequence[str] = ()

    def explain(self, key: str) -> str:
        """One line on a figure such as test_pair/stories_told or two_objects_colours; empty for one that nobody has explained."""
        name = key.rpartition("/")[2]
        if name in self.figures:
            return self.figures[name][1]
        if name.endswith("_kept"):
            return f"what is left of the base's {name.removesuffix('_kept')}: 1 keeps all of it"
        score = max((one for one in self.scores if name.endswith(f"_{one}")), key=len, default=None)
        if score is not None and name.removesuffix(f"_{score}") in self.figures:
            return f"{name.removesuffix(f'_{score}')}: {self.scores[score]}"
        whole = max((one for one in self.figures if name.startswith(f"{one}_")), key=len, default=None)
        if whole is None:
            return ""
        return f"{self.figures[whole][1]} ({name.removeprefix(f'{whole}_').replace('_', ' ')} alone)"

    def name_skill(self, key: str) -> str:
        """What the model does in a figure ("editing"); the name itself where it is no skill."""
        name = key.rpartition("/")[2]
        return self.figures.get(name, ("", ""))[0] or name

    def is_headline(self, key: str) -> bool:
        """Whether a figure is a column of the common table."""
        return key.partition("/")[2] in self.headlines

    def is_recall(self, key: str) -> bool:
        """Whether a figure asks nothing that training did not show."""
        return key.partition("/")[0] in self.recall

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `About.from_json` is the inverse."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "About":
        """What `to_json` wrote.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            figures = {name: (skill, words) for name, (skill, words) in data["figures"].items()}
            found = cls(**{**data, "figures": figures})
            words = [one for pair in figures.values() for one in pair]
            words += [one for table in (found.scores, found.splits, found.shown) for one in table.values()]
            words += [*found.recall, *found.headlines, *found.losses, *found.is_open]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{_DAMAGED} ({error!r}). {_REMEDY}") from error
        if wrong := [one for one in words if not isinstance(one, str)]:
            raise CheckpointError(f"{_DAMAGED}, such as {wrong[0]!r}. {_REMEDY}")
        return found


_DAMAGED = "The words of an evaluation (`about` in evaluation.json) are no names with texts"
_REMEDY = "Expected what plait-evaluate wrote. Next: evaluate that model anew."
