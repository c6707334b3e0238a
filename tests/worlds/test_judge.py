"""The oracle as a judge: a verdict per criterion on any request in words, and none on what is not asked."""

from plait.protocols import Judge, World
from plait.worlds.emoji import EmojiWorld, Scene, Thing


def test_the_oracle_is_a_judge_of_its_world(world, oracle) -> None:
    assert isinstance(world, World)
    assert isinstance(oracle, Judge)
    assert isinstance(EmojiWorld().examinations.judge, Judge)
    pictures = [world.picture(Scene((Thing("red", "car", "left"), Thing("green", "key", "right"))).id)] * 3
    right, wrong, foreign = oracle.judge(
        pictures,
        ["a red car to the left of a green key", "a green car to the left of a red key", "a photograph of a harbour at dawn"],
    )
    assert {name: verdict.score for name, verdict in right.items()} == dict.fromkeys(right, 1.0)
    assert (wrong["objects"].score, wrong["colours"].score, wrong["all"].score) == (1.0, 1.0, 0.0)
    assert wrong["all"].reason == "seen: red car left, green key right"
    assert not any(verdict.applicable for verdict in foreign.values())
    (single,) = oracle.judge([world.picture(Scene((Thing("red", "car", "centre"),)).id)], ["a red car"])
    assert single["all"].score == 1.0
    assert not single["relation"].applicable
    assert oracle.describe().keys() == {"rejected_beyond"}
