"""What can be said of a picture of the world in single phrases: the supervision of its vision encoder.

A scene has two per thing, "left red" and "left car": which colour and which object stand where. A cell is no phrase of its own, so a
held-out cell is two phrases that training has, met apart. A glyph has its name and the words of it. Val glyphs have none: their
names belong to no phrase that training knows.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import product

from plait.errors import DocumentError
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, SLOTS, Scene
from plait.worlds.emoji.world import EmojiWorld


class Attributes(Sequence[str]):
    """All phrases by number: those of scenes, then those of the training glyphs.

    Args:
        world: its glyphs are named.
    """

    def __init__(self, world: EmojiWorld) -> None:
        self._names = {f"glyph/{glyph.code}": glyph.name for glyph in world.glyphs("train")}
        phrases = [f"{slot} {what}" for slot, what in product(SLOTS, (*COLOURS, *OBJECTS))]
        self._phrases = (*phrases, *sorted({phrase for name in self._names.values() for phrase in (name, *name.split())}))
        self._numbers = {phrase: number for number, phrase in enumerate(self._phrases)}

    def __len__(self) -> int:
        return len(self._phrases)

    def __getitem__(self, number: int) -> str:
        return self._phrases[number]

    @cached_property
    def size(self) -> int:
        """How many there are."""
        return len(self)

    def of(self, image_id: str) -> list[int]:
        """Numbers of the phrases that a picture has, each once.

        Raises:
            DocumentError: it has none: a val glyph, or no picture of the world.
        """
        if image_id in self._names:
            name = self._names[image_id]
            phrases = [name, *name.split()]
        elif image_id.startswith("scene/"):
            things = Scene.from_id(image_id).things
            phrases = [f"{thing.slot} {what}" for thing in things for what in thing.cell]
        else:
            raise DocumentError(f"{image_id!r} has no attributes: expected a scene or a training glyph.")
        return sorted({self._numbers[phrase] for phrase in phrases})

    def spell(self, image_id: str) -> str:
        """What a picture is, in words: the name of a glyph, the phrases of a scene. Pictures in this order stand beside what they are like,
        a figure beside itself in other skin tones.

        Raises:
            DocumentError: as `of`.
        """
        return self._names.get(image_id) or ", ".join(self[number] for number in self.of(image_id))
