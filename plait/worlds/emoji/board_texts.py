"""What is said of a board, exactly: its caption (both ways) and questions of four types.

    caption   "row 1 : a red car in column 2 , the number 4 0 7 in column 4 . row 3 : a blue cat in column 1 ."
    count     "how many red cats are there ?" "two"; of an object, a colour, both, of all objects or numbers; zero in a fifth of cases
    what      "what is in row 1 column 2 ?" "a red car", "the number 4 0 7" or "nothing"
    read      "what number is in row 1 column 4 ?" "4 0 7"
    where     "where is the number 4 0 7 ?" "row 1 column 4"; of numbers and of coloured objects that are there once

Numbers to read are digits, one word each; numbers to count are words. Knows no split: what may be mentioned is an argument.
"""

import re
from collections import Counter
from collections.abc import Callable
from random import Random

from plait.errors import DocumentError
from plait.worlds.emoji.boards import NUM_OBJECTS, PLACES, Board, Content
from plait.worlds.emoji.captions import add_article, spell
from plait.worlds.emoji.scenes import COLOURS, OBJECTS, Cell

BOARD_TYPES = ("count", "what", "read", "where")
COUNTS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen"),
)
PLURALS = {name: {"fish": "fish", "butterfly": "butterflies"}.get(name, f"{name}s") for name in OBJECTS}
ZERO_SHARE, NOTHING_SHARE = 0.2, 0.25

MayMention = Callable[[Cell], bool]
"""whether a question about this board may name a coloured object that is not on it"""

_ENTRY = re.compile(rf"(?:an? ({'|'.join(COLOURS)}) ({'|'.join(OBJECTS)})|the number ((?:\d )*\d)) in column (\d)")
_ROW = re.compile(r"row (\d) : ([^.]+) \.")

assert len(COUNTS) == NUM_OBJECTS[-1] + 1


def say(content: Content) -> str:
    """For example "a red car", "the number 4 0 7"."""
    return f"the number {' '.join(content)}" if isinstance(content, str) else add_article(" ".join(content))


def describe_board(board: Board) -> str:
    """The caption: everything on the board, row by row; empty rows are not named."""
    rows: dict[int, list[str]] = {}
    for (row, column), content in board.contents:
        rows.setdefault(row, []).append(f"{say(content)} in column {column}")
    return " ".join(f"row {row} : {' , '.join(entries)} ." for row, entries in rows.items())


def parse_board(caption: str) -> Board | None:
    """The board that a caption describes, or None if it is not a caption of a board."""
    text, contents = spell(caption), []
    for row, entries in _ROW.findall(text):
        for entry in entries.split(" , "):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                return None
            colour, name, digits, column = match.groups()
            contents.append(((int(row), int(column)), digits.replace(" ", "") if digits else (colour, name)))
    try:
        board = Board(tuple(contents))
    except DocumentError:
        return None
    # what is parsed is what could have been written, articles and order included
    return board if describe_board(board) == text else None


def ask_board(kind: str, board: Board, random: Random, may_mention: MayMention) -> tuple[str, str]:
    """A question of a type and its answer."""
    return _ASKERS[kind](board, random, may_mention)


def _ask_count(board: Board, random: Random, may_mention: MayMention) -> tuple[str, str]:
    counts = _count(board)
    if random.random() < ZERO_SHARE:
        absent = [cell for colour in COLOURS for name in OBJECTS if (cell := (colour, name)) not in board.coloured]
        mentioned = [cell for cell in absent if may_mention(cell)]
        # what is nearly there is asked for most: another colour of an object of the board
        near = [f"{colour} {PLURALS[name]}" for colour, name in mentioned if name in board.objects]
        far = [PLURALS[name] for _, name in mentioned if name not in board.objects]
        colours = [f"{colour} objects" for colour in COLOURS if f"{colour} objects" not in counts]
        what = random.choice(random.choice([group for group in (near, far, colours) if group]))
    else:
        kinds = [list(group) for group in _group(counts) if group]
        what = random.choice(random.choice(kinds))
    return f"how many {what} are there ?", COUNTS[counts[what]]


def _count(board: Board) -> Counter[str]:
    counts = Counter({"objects": len(board.coloured), "numbers": len(board.numbers)})
    for colour, name in board.coloured:
        counts.update((f"{colour} objects", PLURALS[name], f"{colour} {PLURALS[name]}"))
    return counts


def _group(counts: Counter[str]) -> tuple[list[str], ...]:
    """What can be counted: everything, objects, colours, coloured objects."""
    all_things = ["objects", "numbers"]
    others = [name for name in counts if name not in all_things]
    colours = [name for name in others if name.endswith(" objects")]
    names = [name for name in others if " " not in name]
    return all_things, names, colours, [name for name in others if name not in (*colours, *names)]


def _ask_what(board: Board, random: Random, may_mention: MayMention) -> tuple[str, str]:
    found = dict(board.contents)
    empty = [place for place in PLACES if place not in found]
    if empty and random.random() < NOTHING_SHARE:
        place = random.choice(empty)
    else:
        is_number = random.random() < 1 / 3 and bool(board.numbers)
        place = random.choice([place for place, content in board.contents if isinstance(content, str) == is_number])
    return f"what is in row {place[0]} column {place[1]} ?", say(found[place]) if place in found else "nothing"


def _ask_read(board: Board, random: Random, may_mention: MayMention) -> tuple[str, str]:
    place, digits = random.choice([item for item in board.contents if isinstance(item[1], str)])
    return f"what number is in row {place[0]} column {place[1]} ?", " ".join(digits)


def _ask_where(board: Board, random: Random, may_mention: MayMention) -> tuple[str, str]:
    counts = Counter(content for _, content in board.contents)
    once = [item for item in board.contents if counts[item[1]] == 1]
    groups = [[item for item in once if isinstance(item[1], str) == is_number] for is_number in (False, True)]
    (row, column), content = random.choice(random.choice([group for group in groups if group]))
    return f"where is the {say(content).partition(' ')[2]} ?", f"row {row} column {column}"


_ASKERS = {"count": _ask_count, "what": _ask_what, "read": _ask_read, "where": _ask_where}
