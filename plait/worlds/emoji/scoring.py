"""Scores as numbers by name, for pictures that were seen and for answers that were read or guessed, all through one comparison
(`agreement.py`). Knows no model and no pixels.
"""

from collections.abc import Collection

from plait.errors import DocumentError
from plait.evaluation.figures import MAIN
from plait.worlds.emoji.agreement import Finding, compare_edit, compare_scene
from plait.worlds.emoji.scenes import Cell, Scene, Thing

ABOUT_SCORES = {
    "objects": "only the things must be right",
    "colours": "only the colours must be right",
    "cells": "each thing must be in its colour, wherever it stands",
    "places": "only the places must be right",
    "relation": "only left, right, above or below must be right",
    "unrecognisable": "share in which the judge recognises nothing (lower is better)",
    "ungrammatical": "share that is no caption of the world's grammar at all (lower is better)",
    "change": "share in which what had to change has changed, whatever became of the rest",
    "rest": "share in which what had to stay has stayed, whatever became of the change",
}
"""what a score says, for the figures <figure>_<score>"""


def imagine(things: Collection[Thing]) -> Finding:
    """A described scene as if it had been seen without doubt: captions and blind answers are compared like pictures."""
    things = tuple(things)
    try:
        scene = Scene(things) if things else None
    except DocumentError:
        scene = None  # for example the same object twice, which a blind answer may well claim
    return Finding(things, scene, "" if things else "nothing there", 0.0, 0.0, 1.0)


def score_scene(finding: Finding | None, expected: Scene) -> dict[str, float]:
    """What of a scene is right: all, objects, colours, cells (each object in its colour, wherever it stands), places, relation (two
    things only), each 0 or 1, and unrecognisable."""
    score = compare_scene(finding, expected)
    scores = {
        MAIN: float(score.all),
        "objects": float(score.objects),
        "colours": float(score.colours),
        "cells": float(score.recognisable and _cells(finding.things) == _cells(expected.things)),
        "places": float(score.places),
        "unrecognisable": float(not score.recognisable),
    }
    if score.relation is not None:
        scores["relation"] = float(score.relation)
    return scores


def _cells(things: Collection[Thing]) -> list[Cell]:
    return sorted(thing.cell for thing in things)


def score_edit(finding: Finding | None, before: Scene, after: Scene) -> dict[str, float]:
    """What of a change is right: all, change (what had to change has), rest (what had to stay has), and unrecognisable."""
    score = compare_edit(finding, before, after)
    return {
        MAIN: float(score.all),
        "change": float(score.change_done),
        "rest": float(score.rest_unchanged),
        "unrecognisable": float(not score.recognisable),
    }


def describe_scene(scene: Scene | None) -> str:
    """A scene in words for people, such as "red car left, blue house right"."""
    return "?" if scene is None else ", ".join(f"{thing.colour} {thing.object} {thing.slot}" for thing in scene.things)


def describe_finding(finding: Finding | None) -> str:
    """What was seen, in words for people, with the reason where it was rejected."""
    if finding is None:
        return "no picture"
    things = ", ".join(f"{thing.colour} {thing.object} {thing.slot}" for thing in finding.things)
    return things if finding.is_recognisable else f"rejected ({finding.reason}){': ' if things else ''}{things}"
