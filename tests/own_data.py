"""Folders of somebody's own data: drawn pictures of some variety, and rows of one of the four kinds beside them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {
    "crimson": (200, 30, 60),
    "teal": (0, 128, 128),
    "amber": (250, 180, 20),
    "violet": (120, 60, 200),
    "lime": (120, 210, 30),
}
SHAPES: dict[str, Callable[..., None]] = {
    "disc": lambda pen, box, ink: pen.ellipse(box, fill=ink),
    "tile": lambda pen, box, ink: pen.rectangle(box, fill=ink),
    "ring": lambda pen, box, ink: pen.ellipse(box, outline=ink, width=8),
    "kite": lambda pen, box, ink: pen.regular_polygon(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2), 4, 45, ink
    ),
}
FORMATS = ("png", "jpg", "webp", "gif")
KINDS = ("caption", "vqa", "chat", "interleaved")


def draw_pictures(folder: Path, number: int = 50) -> list[tuple[str, str, str]]:
    """Pictures of several sizes, shapes and formats below `folder/images`: (path, colour, shape) of each."""
    made = []
    (folder / "images").mkdir(parents=True)
    for index in range(number):
        dice = Random(index)
        colour, shape = dice.choice(list(COLOURS)), dice.choice(list(SHAPES))
        width, height = dice.randrange(40, 140), dice.randrange(40, 140)
        picture = Image.new("RGB", (width, height), tuple(dice.randrange(150, 256) for _ in range(3)))
        size = dice.randrange(24, min(width, height) - 4)
        left, top = dice.randrange(width - size), dice.randrange(height - size)
        SHAPES[shape](ImageDraw.Draw(picture), (left, top, left + size, top + size), COLOURS[colour])
        path = f"images/{index:03d}.{FORMATS[index % len(FORMATS)]}"
        picture.save(folder / path)
        made.append((path, colour, shape))
    return made


def make_rows(kind: str, pictures: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """One row per picture; chats show two pictures every third time, and interleaved rows two of them always."""
    rows = []
    for index, (path, colour, shape) in enumerate(pictures):
        other, name = pictures[index - 1], f"row-{index}"
        if kind == "caption":
            row = {"image": path, "caption": f"A {colour} {shape}, drawn on paper."}
        elif kind == "vqa":
            both = {"question": ["Which colour?", "What is it?"], "answer": [colour, f"a {shape}"]}
            row = {"image": path, **(both if index % 2 else {"question": "Which colour?", "answer": colour})}
        elif kind == "chat":
            blocks: list[dict[str, Any]] = [{"type": "image"}, {"type": "text", "text": f"What do you see? ({index})"}]
            said: Any = f"I see a {colour} {shape}."
            if index % 3 == 0:
                blocks, said = blocks[1:], [{"type": "text", "text": "Look:"}, {"type": "image"}, {"type": "image"}]
            messages = [{"role": "user", "content": blocks}, {"role": "assistant", "content": said}]
            row = {"messages": messages, "images": [path, other[0]] if index % 3 == 0 else [path]}
        else:
            texts = [f"First a {other[2]}.", None, f"Then a {colour} {shape}.", None]
            row = {"images": [None, other[0] if index % 2 else path, None, path], "texts": texts}
        rows.append({"id": name, **row})
    return rows


def write_lines(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> Path:
    """The rows as a file of JSON lines; a text stands for a line as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def make_folder(folder: Path, kind: str, number: int = 50) -> Path:
    """A folder of one kind: pictures and rows.jsonl."""
    return write_lines(folder, make_rows(kind, draw_pictures(folder, number)))
