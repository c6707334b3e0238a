"""The scenes that a split may use, sorted by what the writers ask for, and the rules of what may meet in one document."""

from collections.abc import Mapping
from functools import cached_property

from plait.worlds.emoji.questions import list_negatives
from plait.worlds.emoji.scenes import Cell, Scene
from plait.worlds.emoji.splits import HELD_OUT_CELLS, has_held_out_pair

POOLS = ("one_object", "two_objects", "centred", "placed", "same_colour", "two_colours")
"""kinds of scenes that pictures are chosen by"""


class Pools:
    """Scenes of one split.

    Args:
        split: name of the split.
        assignment: scene -> split, over all scenes of the world, in their fixed order.
    """

    def __init__(self, split: str, assignment: Mapping[Scene, str | None]) -> None:
        self.split = split
        self._assignment = assignment
        self._negatives: dict[Scene, tuple[tuple[Cell, ...], ...]] = {}
        # Whatever val shows must be made of what training may show: only its two-object scenes are new.
        self.is_strict = split in ("train", "val")

    @cached_property
    def one_object(self) -> tuple[Scene, ...]:
        """Scenes with one thing; on val those of training (recall), on test_pair none."""
        split = "train" if self.split == "val" else self.split
        return tuple(scene for scene, own in self._assignment.items() if own == split and len(scene.things) == 1)

    @cached_property
    def two_objects(self) -> tuple[Scene, ...]:
        """Scenes with two things."""
        return tuple(scene for scene, own in self._assignment.items() if own == self.split and len(scene.things) == 2)

    @cached_property
    def centred(self) -> tuple[Scene, ...]:
        """Scenes with one large thing in the centre."""
        return tuple(scene for scene in self.one_object if scene.things[0].slot == "centre")

    @cached_property
    def placed(self) -> tuple[Scene, ...]:
        """Scenes with one small thing."""
        return tuple(scene for scene in self.one_object if scene.things[0].slot != "centre")

    @cached_property
    def same_colour(self) -> tuple[Scene, ...]:
        """Scenes with two things of one colour."""
        return tuple(scene for scene in self.two_objects if scene.things[0].colour == scene.things[1].colour)

    @cached_property
    def two_colours(self) -> tuple[Scene, ...]:
        """Scenes with two things of different colours."""
        return tuple(scene for scene in self.two_objects if scene.things[0].colour != scene.things[1].colour)

    @cached_property
    def own_scenes(self) -> frozenset[Scene]:
        """Scenes that make a story belong to the split: for val and test, those that training never shows."""
        return frozenset(scene for scene, own in self._assignment.items() if own == self.split)

    @cached_property
    def first_scenes(self) -> tuple[tuple[Scene, ...], ...]:
        """Groups of scenes with which stories begin; groups are used equally often."""
        old = [scene for scene, own in self._assignment.items() if own == "train" and len(scene.things) == 1]
        one = self.one_object or tuple(old)
        return tuple(group for group in (tuple(s for s in one if s.things[0].slot == "centre"), one, self.two_objects) if group)

    def may_follow(self, scenes: tuple[Scene, ...], after: Scene) -> bool:
        """Whether a story of this split that showed `scenes` may go on with `after`."""
        own = self._assignment[after]
        if own != self.split and not (own == "train" and self.split != "train"):
            return False
        if self.split == "test_pair":
            return True
        # Objects that never meet in a picture do not meet in the text of one story either, even if one has gone before.
        return not has_held_out_pair(after.objects.union(*(scene.objects for scene in scenes)))

    def negatives(self, scene: Scene) -> tuple[tuple[Cell, ...], ...]:
        """Coloured objects for which a question about this scene may ask although they are not in it."""
        found = self._negatives.get(scene)
        if found is None:
            found = self._negatives[scene] = list_negatives(scene, lambda cell: self.may_mention(scene.objects, cell))
        return found

    def may_mention(self, objects: frozenset[str], cell: Cell) -> bool:
        """Whether a question about a picture with these objects may name a coloured object that is not in it."""
        if self.split == "test_combo":
            return not has_held_out_pair(objects | {cell[1]})
        if cell in HELD_OUT_CELLS:
            return False
        return self.split == "test_pair" or not has_held_out_pair(objects | {cell[1]})
