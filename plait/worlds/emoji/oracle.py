"""The oracle of EmojiWorld: reads a picture as a scene, or rejects it. No pretrained model, nothing learned, numpy only.

A picture is averaged to 16 x 16 cells and compared with every template (object x colour, and the empty slot) in every slot; the
layout with the smallest total distance wins. Nearest templates alone would read a scene into anything, so a picture is rejected
if

- a single patch (an eighth of the width) is far from the templates: patchworks, halves, mixes, blobs, things off their slot; or
- a slot lies between two templates, as a blend or an impossible colour does: the margin, the position on the line from the
  nearest template to any other, is small.

Averaging leaves structure and removes noise: gaussian noise of sigma 0.2 moves a patch by 0.13 at most, half an object by 0.18
at least. It does not know which scenes are held out and says nothing about how beautiful a picture is: 1.0 here means "a person
would find the right things in the right places", no more. The same object twice is recognisable but no scene.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from plait.errors import DocumentError
from plait.records import Verdict
from plait.worlds.emoji.agreement import (
    EditScore,
    Finding,
    Score,
    StoryScore,
    compare_edit,
    compare_scene,
    compare_story,
)
from plait.worlds.emoji.captions import parse
from plait.worlds.emoji.scenes import AREAS, AXES, COLOURS, OBJECTS, Scene, Thing
from plait.worlds.emoji.scoring import describe_finding
from plait.worlds.emoji.world import EmojiWorld

CELLS = 16
LAYOUTS = (*AXES, ("centre",))
CRITERIA = ("objects", "colours", "places", "relation", "all")

_NAMES = tuple(product(COLOURS, OBJECTS))
_EMPTY = len(_NAMES)
_CHUNK = 512


@dataclass(frozen=True)
class Thresholds:
    """When a picture is rejected. The defaults accept noisy clean pictures (sigma 0.2: all, 0.3: 0.96); `LIMITS` is how far a
    calibration may loosen them, chosen on planted wrong pictures (`planted.py`): 0.95 of each kind stay rejected or wrong.

    Args:
        worst: largest root mean square distance within a patch, of the full range of a channel.
        margin: least margin.
    """

    worst: float = 0.17
    margin: float = 0.3


DEFAULTS = Thresholds()
LIMITS = Thresholds(worst=0.25, margin=0.2)


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Args:
        wanted: the thresholds that would accept the asked share of the reconstructions.
        thresholds: those in use: never stricter than the defaults, never looser than the limits.
        right: share of the reconstructions whose nearest templates are the truth.
        accepted: share of the reconstructions that are read right and accepted.
    """

    wanted: Thresholds
    thresholds: Thresholds
    right: float
    accepted: float


class Oracle:
    """Reads pictures of the world.

    Args:
        world: the world whose templates are read.
        thresholds: when a picture is rejected; see also `calibrate`.
    """

    def __init__(self, world: EmojiWorld, thresholds: Thresholds = DEFAULTS) -> None:
        self.world = world
        self.thresholds = thresholds
        small, large = (np.stack([_pool(world.sprites[(*name, large)], world) for name in _NAMES]) for large in (False, True))
        self._templates = {slot: np.concatenate([small, np.ones_like(small[:1])]) for slot in AREAS if slot != "centre"}
        self._templates["centre"] = large
        self._gaps = {slot: _square_distances(templates, templates) for slot, templates in self._templates.items()}

    def read(self, pictures: np.ndarray) -> list[Finding]:
        """What each picture shows.

        Args:
            pictures: uint8 (n h w 3).

        Raises:
            DocumentError: the pictures are not of this kind and size.
        """
        size = self.world.image_size
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (size, size, 3):
            raise DocumentError(
                f"The oracle reads uint8 pictures (n {size} {size} 3), found {pictures.dtype} {pictures.shape}: "
                "bring images in [-1, 1] to bytes and channels to the last axis."
            )
        chunks = (pictures[start : start + _CHUNK] for start in range(0, len(pictures), _CHUNK))
        return [finding for chunk in chunks for finding in self._read_chunk(chunk)]

    def see(self, pictures: Sequence[Image.Image]) -> list[Finding]:
        """What each picture shows."""
        return self.read(np.stack([np.asarray(picture) for picture in pictures])) if pictures else []

    def judge(self, pictures: Sequence[Image.Image], requests: Sequence[str]) -> list[Mapping[str, Verdict]]:
        """See `plait.protocols.Judge`; the criteria are those of `plait.worlds.emoji.agreement.Score`. A request that is no caption of the
        world is none that it can apply."""
        return [_judge(finding, parse(request)) for finding, request in zip(self.see(pictures), requests, strict=True)]

    def describe(self) -> dict[str, Any]:
        """See `plait.protocols.Judge`."""
        return {"rejected_beyond": asdict(self.thresholds)}

    def score(self, pictures: np.ndarray, scenes: Sequence[Scene]) -> list[Score]:
        """What is right in each picture, given the scene that it should show.

        Args:
            pictures: uint8 (n h w 3).
            scenes: as many as pictures.
        """
        return [compare_scene(finding, scene) for finding, scene in zip(self.read(pictures), scenes, strict=True)]

    def score_edits(self, pictures: np.ndarray, before: Sequence[Scene], after: Sequence[Scene]) -> list[EditScore]:
        """What is right in each picture that should show a scene after a change. The baseline copy-the-input is this score of
        the pictures before the change.

        Args:
            pictures: uint8 (n h w 3), drawn for the state after the change.
        """
        return [compare_edit(*row) for row in zip(self.read(pictures), before, after, strict=True)]

    def score_story(self, pictures: np.ndarray, states: Sequence[Scene]) -> StoryScore:
        """Agreement of the pictures of one story with its states, each in its own column.

        Args:
            pictures: uint8 (n h w 3); n may differ from the number of states.
        """
        return compare_story(self.read(pictures), states)

    def calibrate(self, reconstructions: np.ndarray, truths: Sequence[Scene], percentile: float = 98.0) -> Calibration:
        """Loosen the thresholds so that the asked share of reconstructions of a tokenizer is accepted, within the limits.

        Args:
            reconstructions: uint8 (n h w 3) of pictures of the scenes; only those whose nearest templates are right count.
            truths: the scenes.
            percentile: share to accept per threshold, in percent.

        Raises:
            DocumentError: no reconstruction is right.
        """
        findings = self.read(reconstructions)
        right = [finding for finding, truth in zip(findings, truths, strict=True) if set(finding.things) == set(truth.things)]
        if not right:
            raise DocumentError(
                f"None of {len(findings)} reconstructions shows its scene, so the oracle cannot be calibrated on them: "
                "train the tokenizer longer."
            )
        wanted = Thresholds(
            worst=float(np.percentile([finding.worst for finding in right], percentile)),
            margin=float(np.percentile([finding.margin for finding in right], 100 - percentile)),
        )
        self.thresholds = Thresholds(
            worst=min(max(wanted.worst, DEFAULTS.worst), LIMITS.worst),
            margin=max(min(wanted.margin, DEFAULTS.margin), LIMITS.margin),
        )
        accepted = sum(not self._reject(len(f.things), f.worst, f.margin) for f in right) / len(findings)
        return Calibration(wanted, self.thresholds, len(right) / len(findings), accepted)

    def _read_chunk(self, pictures: np.ndarray) -> list[Finding]:
        cells = _pool(pictures, self.world)
        from_white = ((cells - 1) ** 2).sum(axis=-1)
        total = from_white.sum(axis=(1, 2))
        distances = {slot: _square_distances(_crop(cells, slot), templates) for slot, templates in self._templates.items()}
        energies = []
        for layout in LAYOUTS:
            outside = total - sum(_crop(from_white, slot).sum(axis=(1, 2)) for slot in layout)
            energies.append(outside + sum(distances[slot].min(axis=1) for slot in layout))
        chosen = np.argmin(energies, axis=0)
        findings: dict[int, Finding] = {}
        for number, layout in enumerate(LAYOUTS):
            rows = np.flatnonzero(chosen == number)
            if len(rows):
                findings |= zip(rows.tolist(), self._read_layout(cells[rows], layout, distances, rows), strict=True)
        return [findings[row] for row in range(len(pictures))]

    def _read_layout(
        self, cells: np.ndarray, layout: tuple[str, ...], distances: dict[str, np.ndarray], rows: np.ndarray
    ) -> list[Finding]:
        """Findings of pictures whose layout is known."""
        expected = np.ones_like(cells)
        nearest, margins, occupied = [], [], []
        for slot in layout:
            own = distances[slot][rows]
            best = own.argmin(axis=1)
            _crop(expected, slot)[:] = self._templates[slot][best]
            # Position on the line from the nearest template to each other one: 1 at the nearest, 0 halfway.
            gaps = self._gaps[slot][best]
            lead = (own - own.min(axis=1, keepdims=True)) / np.where(gaps > 0, gaps, np.inf)
            lead[np.arange(len(rows)), best] = np.inf
            nearest.append(best)
            margins.append(lead.min(axis=1))
            occupied.append(np.where(best == _EMPTY, 0, own.min(axis=1) / self._templates[slot][0].size))
        residual = (cells - expected) ** 2
        patches = residual.reshape(len(rows), CELLS // 2, 2, CELLS // 2, 2, 3).mean(axis=(2, 4, 5))
        worst, margin = np.sqrt(patches.max(axis=(1, 2))), np.min(margins, axis=0)
        distance = np.sqrt(np.maximum(np.max(occupied, axis=0), 0))
        findings = []
        for index, names in enumerate(np.stack(nearest, axis=1).tolist()):
            things = tuple(Thing(*_NAMES[name], slot) for name, slot in zip(names, layout, strict=True) if name != _EMPTY)
            reason = self._reject(len(things), float(worst[index]), float(margin[index]))
            is_scene = not reason and len({thing.object for thing in things}) == len(things)
            figures = float(distance[index]), float(worst[index]), float(margin[index])
            findings.append(Finding(things, Scene(things) if is_scene else None, reason, *figures))
        return findings

    def _reject(self, count: int, worst: float, margin: float) -> str:
        if not count:
            return "nothing there"
        if worst > self.thresholds.worst:
            return "far from every template"
        return "between two templates" if margin < self.thresholds.margin else ""


def _judge(finding: Finding, asked: Scene | None) -> dict[str, Verdict]:
    if asked is None:
        return {name: Verdict(False, 0.0, "the request is no caption of the world") for name in CRITERIA}
    score, seen = compare_scene(finding, asked), describe_finding(finding)
    values = {name: getattr(score, name) for name in CRITERIA}
    return {
        name: Verdict(
            value is not None, float(bool(value)), f"seen: {seen}" if value is not None else "one thing stands to nothing"
        )
        for name, value in values.items()
    }


def _pool(pictures: np.ndarray, world: EmojiWorld) -> np.ndarray:
    """uint8 (... h w 3) -> float (... gh gw 3): cells of a sixteenth of the world's picture size."""
    cell = world.image_size // CELLS
    *lead, height, width, channels = pictures.shape
    blocks = pictures.reshape(*lead, height // cell, cell, width // cell, cell, channels)
    return blocks.mean(axis=(-4, -2), dtype=np.float32) / 255


def _crop(cells: np.ndarray, slot: str) -> np.ndarray:
    """The part (a view) of (n 16 16 ...) that belongs to a slot."""
    row, column, size = (2 * value for value in AREAS[slot])
    return cells[:, row : row + size, column : column + size]


def _square_distances(cells: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """(n ...) and (k ...) -> (n k) squared distances."""
    # In double precision: the expanded square of two nearly equal pictures loses its digits otherwise.
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (cells, templates))
    return np.maximum((a * a).sum(axis=1)[:, None] - 2 * a @ b.T + (b * b).sum(axis=1)[None], 0)
