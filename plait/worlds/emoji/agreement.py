"""What of a scene, an edit or a story is right in a picture that has been read. Knows findings and scenes, no pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

from plait.worlds.emoji.scenes import Scene, Thing


@dataclass(frozen=True)
class Finding:
    """What the oracle read in one picture.

    Args:
        things: the nearest things, also where the picture was rejected.
        scene: the scene they make; None where the picture was rejected or where they make no scene (the same object twice).
        reason: why the picture shows nothing recognisable; empty if it does.
        distance: root mean square distance to the templates within the occupied slots, of the full range of a channel.
        worst: the same within the worst of the 8 x 8 patches of the picture.
        margin: how clearly the nearest template wins, 1 = exact, 0 = halfway to the second (worst slot).
    """

    things: tuple[Thing, ...]
    scene: Scene | None
    reason: str
    distance: float
    worst: float
    margin: float

    @property
    def is_recognisable(self) -> bool:
        """Whether the picture shows things of the world."""
        return not self.reason


@dataclass(frozen=True)
class Score:
    """What is right in a picture that should show a scene; nothing is right in an unrecognisable one.

    Args:
        objects: the same objects, wherever they stand.
        colours: the same colours, whatever has them.
        places: the same slots are occupied, whatever stands there.
        relation: the objects are right and stand to each other as they should; None for scenes with one object.
        all: the scene itself.
    """

    recognisable: bool
    objects: bool
    colours: bool
    places: bool
    relation: bool | None
    all: bool


@dataclass(frozen=True)
class EditScore:
    """What is right in a picture that should show a scene after a change.

    Args:
        change_done: whatever had to change (presence, colour or place of an object) is as it should be now. A copy of the input
            never has it.
        rest_unchanged: objects that stay have kept the colour and the place that they should keep, and nothing else is there. A
            copy of the input always has it.
    """

    recognisable: bool
    change_done: bool
    rest_unchanged: bool
    all: bool


@dataclass(frozen=True)
class StoryScore:
    """Agreement of the pictures of a story with its states, each picture with the state in its own column.

    Args:
        pictures: one score per state; a picture that was not drawn counts as unrecognisable.
        share: share of the states whose picture is right.
        all: every state has its picture and there is none too many.
    """

    pictures: tuple[Score, ...]
    share: float
    all: bool


def compare_scene(finding: Finding | None, scene: Scene) -> Score:
    """What of a scene is right.

    Args:
        finding: None for a picture that was not drawn.
    """
    is_pair = len(scene.things) == 2
    if finding is None or not finding.is_recognisable:
        return Score(False, False, False, False, False if is_pair else None, False)
    found, things = finding.things, scene.things
    objects = sorted(thing.object for thing in found) == sorted(thing.object for thing in things)
    colours = sorted(thing.colour for thing in found) == sorted(thing.colour for thing in things)
    places = {thing.slot for thing in found} == {thing.slot for thing in things}
    relation = objects and {(t.object, t.slot) for t in found} == {(t.object, t.slot) for t in things} if is_pair else None
    return Score(True, objects, colours, places, relation, set(found) == set(things))


def compare_edit(finding: Finding | None, before: Scene, after: Scene) -> EditScore:
    """What of a change is right.

    Args:
        finding: of the picture after the change; None for a picture that was not drawn.
    """
    if finding is None or not finding.is_recognisable:
        return EditScore(False, False, False, False)
    found = {thing.object: thing for thing in finding.things}
    old, new = ({thing.object: thing for thing in scene.things} for scene in (before, after))
    change = len(found) == len(finding.things)
    rest = not found.keys() - old.keys() - new.keys() and len(found) == len(finding.things)
    for name in old.keys() | new.keys():
        seen = found.get(name)
        if name in old and name in new:
            for attribute in ("colour", "slot"):
                wanted = getattr(new[name], attribute)
                is_right = seen is not None and getattr(seen, attribute) == wanted
                if getattr(old[name], attribute) == wanted:
                    rest &= is_right
                else:
                    change &= is_right
            rest &= seen is not None
        else:
            change &= seen == new.get(name)
    return EditScore(True, change, rest, set(finding.things) == set(after.things))


def compare_story(findings: Sequence[Finding], states: Sequence[Scene]) -> StoryScore:
    """Agreement of pictures with states, column by column.

    Args:
        findings: of the pictures that were drawn, in order; may be more or fewer than the states.
    """
    drawn: list[Finding | None] = [*findings[: len(states)], *[None] * (len(states) - len(findings))]
    scores = tuple(compare_scene(finding, state) for finding, state in zip(drawn, states, strict=True))
    share = sum(score.all for score in scores) / len(states)
    return StoryScore(scores, share, share == 1 and len(findings) == len(states))
