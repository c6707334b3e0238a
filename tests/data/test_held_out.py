"""Held-out documents: chosen by content, never by place, and no picture is on both sides."""

import hashlib
import random

from plait.data.held_out import choose_held_out


def content(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def test_the_share_is_met_and_the_order_says_nothing():
    contents = [[content(number)] for number in range(2_000)]
    chosen = choose_held_out(contents, 0.1)
    assert 150 < sum(chosen) < 250
    order = random.Random(0).sample(range(2_000), 2_000)
    shuffled = choose_held_out([contents[number] for number in order], 0.1)
    assert [chosen[number] for number in order] == shuffled
    assert choose_held_out(contents[:700], 0.1) == chosen[:700], "further documents change nothing for the others"


def test_documents_that_share_a_picture_stay_together():
    dice = random.Random(0)
    contents = [[content(dice.randrange(3_000)) for _ in range(dice.randrange(1, 4))] for _ in range(600)]
    chosen = choose_held_out(contents, 0.2)
    sides = {
        side: {name for names, own in zip(contents, chosen, strict=True) for name in names if own == side}
        for side in (True, False)
    }
    assert sides[True]
    assert sides[False]
    assert not sides[True] & sides[False]


def test_of_few_documents_one_group_is_held_out():
    contents = [[content(number)] for number in (1, 2, 3)]
    assert sum(choose_held_out(contents, 1e-6)) == 1
    assert choose_held_out([], 0.5) == []
