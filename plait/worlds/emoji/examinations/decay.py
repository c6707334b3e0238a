"""Interleaved decay: how agreement falls from picture to picture of one document, over eight pictures.

The sentences of a story of eight scenes are given and the model fills in the pictures, each behind all that it has drawn so far. A
picture never sees what comes after it, so the first k pictures are exactly those of a document of k pictures: one sequence gives the
agreement at every length from 1 to 8. The stories of training have 3 to 5 pictures; what comes after is longer than anything learned.

`slope` is the least-squares slope of right (0 or 1) over the place in the document, per story and picture, averaged over stories; its
interval leaves out 0 where agreement falls, or grows, for sure. The scenes do not get harder on the way except that the first one is
said in full; `copy_input`, which draws the first scene again and again, shows what that alone is worth.
"""

from collections.abc import Sequence
from random import Random

from plait.errors import RecipeError
from plait.evaluation.bench import Bench, describe_policies
from plait.evaluation.figures import MAIN, Figure, Record, Scores, summarise
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.interleaved import guess_states, illustrate_stories
from plait.worlds.emoji.stories import Story, write_story

NUM_PICTURES = 8
_THROWS = 100


ABOUT = {
    "interleaved": (
        "drawing eight pictures in a row",
        "share of right pictures in stories of eight, longer than any that was trained",
    ),
    "interleaved_slope": (
        "",
        "change of that share from one picture to the next: 0 does not tire, below 0 gets worse on the way",
    ),
    **{f"interleaved_picture_{place}": ("", f"share of right pictures at place {place} of eight") for place in range(1, 9)},
}


def judge_decay(bench: Bench, blind: BlindAnswers, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Let the model draw the pictures of long stories.

    Returns:
        figures `<split>/interleaved` (share of pictures that show their scene), `_picture_<1 to 8>` and `_slope`.
    """
    key = f"{split}/interleaved"
    stories = _tell_stories(bench, split)
    states = [story.scenes for story in stories]
    records = illustrate_stories(bench, key, [story.sentences for story in stories], states, score_decay)
    baselines = {name: [score_decay(right) for right in told] for name, told in guess_states(blind, states).items()}
    return summarise(key, records, baselines, describe_policies(bench.policies)), records


def score_decay(right: Sequence[float]) -> Scores:
    """Scores of one document from whether each of its pictures is right."""
    places = range(1, len(right) + 1)
    middle = (len(right) + 1) / 2
    slope = sum((place - middle) * value for place, value in zip(places, right, strict=True))
    slope /= sum((place - middle) ** 2 for place in places)
    pictures = {f"picture_{place}": float(value) for place, value in zip(places, right, strict=True)}
    return {MAIN: sum(right) / len(right), **pictures, "slope": slope}


def _tell_stories(bench: Bench, split: str) -> list[Story]:
    """`n` different stories of eight scenes of which one at least is of this split alone."""
    pools, found = bench.world.pools(split), {}
    for number in range(_THROWS * bench.n):
        random = Random(f"{bench.seed}/{split}/decay/{number}")
        story = write_story(random, NUM_PICTURES, random.choice(random.choice(pools.first_scenes)), pools.may_follow)
        if story is not None and any(scene in pools.own_scenes for scene in story.scenes):
            found.setdefault(story.sentences, story)
        if len(found) == bench.n:
            return list(found.values())
    raise RecipeError(
        f"{split} gave {len(found)} stories of {NUM_PICTURES} pictures in {_THROWS * bench.n} throws, expected {bench.n}: "
        "lower n, or leave the examination `interleaved` out of the plan of this split."
    )
