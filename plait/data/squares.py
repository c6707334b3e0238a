"""Squares of pictures, for training a vision tokenizer on what it will be asked to encode: tiles, and whole pictures scaled down.

Of every picture one square is shown, always the same one: a data set that cuts its pictures has many. Half of them are shown whole, because
one tile in several would be too few, and a picture that is scaled down is read by itself too.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from plait.protocols import World
from plait.tiling import Tiling


class Squares:
    """Pictures of a world as squares of one size.

    Args:
        world: draws a picture by its id.
        tiling: cuts it.
        side: of a square, in pixels.
    """

    def __init__(self, world: World, tiling: Tiling, side: int) -> None:
        self.world, self.tiling, self.side = world, tiling, side

    def pixels(self, image_ids: Sequence[str]) -> np.ndarray:
        """One square of each picture, chosen by its id.

        Returns:
            uint8 (n h w 3).
        """
        return np.stack([self._choose(image_id) for image_id in image_ids])

    def _choose(self, image_id: str) -> np.ndarray:
        tiles = self.tiling.cut(self.world.picture(image_id), self.side)
        last = len(tiles) - 1
        has_whole = self.tiling.has_thumbnail and last > 0
        # not `hash`: it differs from process to process
        number = int.from_bytes(blake2b(image_id.encode(), digest_size=8).digest(), "big") % (
            2 * last if has_whole else len(tiles)
        )
        return np.asarray(tiles[min(number, last)])
