"""Documents of boards: a caption and its picture, or a picture and questions about it. Boards are thrown at random within their split."""

from functools import cache
from itertools import product
from random import Random

from plait.document import Document, ImageSpan, TextSpan
from plait.worlds.emoji.board_texts import BOARD_TYPES, PLURALS, ask_board, describe_board
from plait.worlds.emoji.boards import NUM_NUMBERS, NUM_OBJECTS, NUMBER_LENGTHS, PLACES, Board, assign_board
from plait.worlds.emoji.pools import Pools
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Cell
from plait.worlds.emoji.splits import HELD_OUT_CELLS, HELD_OUT_PAIRS, assign_number, has_held_out_pair

MOST_KINDS = 6
"""different objects on a board: more than six of twelve cannot be chosen without a held-out pair"""


def write_board(random: Random, number: int, pools: Pools) -> Document | None:
    """The caption of a board and its picture."""
    board = throw_board(random, number, pools.split)
    if board is None:
        return None
    return Document((TextSpan(describe_board(board)), ImageSpan(board.id)), kind="pair", meta={"board": board.to_json()})


def write_board_questions(random: Random, number: int, pools: Pools) -> Document | None:
    """A picture and a question of each type about it, and a second one that counts, in random order."""
    board = throw_board(random, number, pools.split)
    if board is None:
        return None
    asked: dict[str, tuple[str, str]] = {}
    mentioned = set(board.objects)  # two questions about what is not there must not bring a held-out pair together either
    for kind in random.sample((*BOARD_TYPES, "count"), len(BOARD_TYPES) + 1):
        question, answer = ask_board(kind, board, random, lambda cell: pools.may_mention(frozenset(mentioned), cell))
        asked.setdefault(question, (kind, answer))
        mentioned.update(name for name, plural in PLURALS.items() if plural in question.split())
    spans: list[ImageSpan | TextSpan] = [ImageSpan(board.id)]
    for question, (_, answer) in asked.items():
        spans += [TextSpan(question), TextSpan(answer, loss=True)]
    return Document(
        tuple(spans), kind="dialogue", meta={"board": board.to_json(), "types": [kind for kind, _ in asked.values()]}
    )


def throw_board(random: Random, number: int, split: str) -> Board | None:
    """A board of a split, or None where the dice made none; how much stands on it is spread evenly over the numbers."""
    num_objects = NUM_OBJECTS[number % len(NUM_OBJECTS)]
    num_numbers = NUM_NUMBERS[number // len(NUM_OBJECTS) % len(NUM_NUMBERS)]
    coloured = _throw_coloured(random, split, num_objects)
    numbers = random.sample(_list_numbers("val" if split == "val" else "train"), num_numbers)
    places = random.sample(PLACES, num_objects + num_numbers)
    board = Board(tuple(sorted(zip(places, [*coloured, *numbers], strict=True), key=lambda item: item[0])))
    return board if assign_board(board) == split else None


def _throw_coloured(random: Random, split: str, count: int) -> list[Cell]:
    """Coloured objects of a few kinds, so that there is something to count; first what makes the board one of its split."""
    first: list[Cell] = []
    if split == "test_pair":
        pair = random.choice(_PAIRS)
        first = [random.choice(_list_cells(name)) for name in pair]
    elif split == "test_combo":
        first = [random.choice(_HELD_OUT)]
    names = [name for _, name in first]
    for name in random.sample(OBJECTS, len(OBJECTS))[: random.randrange(2, MOST_KINDS + 1)]:
        if name not in names and (split == "test_pair" or not has_held_out_pair(frozenset((*names, name)))):
            names.append(name)
    seen = [cell for name in names for cell in _list_cells(name)]
    if split == "test_combo":
        seen += [cell for cell in _HELD_OUT if cell[1] in names]
    return [*first, *random.choices(seen, k=count - len(first))]


@cache
def _list_cells(name: str) -> tuple[Cell, ...]:
    return tuple((colour, name) for colour in COLOURS if (colour, name) not in HELD_OUT_CELLS)


@cache
def _list_numbers(split: str) -> tuple[str, ...]:
    strings = ("".join(digits) for length in NUMBER_LENGTHS for digits in product("0123456789", repeat=length))
    return tuple(digits for digits in strings if assign_number(digits) == split)


_PAIRS = sorted(tuple(sorted(pair)) for pair in HELD_OUT_PAIRS)
_HELD_OUT = sorted(HELD_OUT_CELLS)

BOARD_WRITERS = {"dense": write_board, "dense_vqa": write_board_questions}
"""the tasks of a world with dense pictures"""
