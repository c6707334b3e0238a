"""What a figure says, in a line for people: the words stand beside each figure's definition and are looked up here by its name."""

from collections.abc import Mapping

from plait.evaluation import (
    context,
    decay,
    editing,
    generation,
    glosses,
    instructions,
    interleaved,
    reconstruction,
    scoring,
    understanding,
)

_MODULES = (generation, understanding, editing, interleaved, decay, context, instructions, reconstruction, glosses)
_ABOUT: Mapping[str, tuple[str, str]] = {name: words for module in _MODULES for name, words in module.ABOUT.items()}
SPLITS = {
    "val": "recall: scenes made like those of training",
    "test_pair": "two things that training never showed together",
    "test_combo": "things in colours that training never showed them in",
    "held_out": "words kept out of training",
}
"""what the items of a split are (plait.worlds.emoji.splits)"""
RECALL = ("val",)
"""splits on which nothing is asked that training did not show"""


def explain(key: str) -> str:
    """One line on a figure such as test_pair/stories_told or two_objects_colours; empty for one that nobody has explained."""
    name = key.rpartition("/")[2]
    if name in _ABOUT:
        return _ABOUT[name][1]
    score = max((one for one in scoring.ABOUT_SCORES if name.endswith(f"_{one}")), key=len, default=None)
    if score is not None and name.removesuffix(f"_{score}") in _ABOUT:
        return f"{name.removesuffix(f'_{score}')}: {scoring.ABOUT_SCORES[score]}"
    whole = max((one for one in _ABOUT if name.startswith(f"{one}_")), key=len, default=None)
    return "" if whole is None else f"{_ABOUT[whole][1]} ({name.removeprefix(f'{whole}_').replace('_', ' ')} alone)"


def name_skill(key: str) -> str:
    """What the model does in a figure ("editing"); the name itself where it is no skill."""
    name = key.rpartition("/")[2]
    return _ABOUT.get(name, ("", ""))[0] or name
