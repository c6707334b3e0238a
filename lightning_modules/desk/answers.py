"""What a model made of what it was asked: texts, pictures, and a page that shows them. It shows itself in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from plait.document import Document
from plait.rendering import Cell, contact_sheet, render_cards, write_samples
from plait.samples import Sample


@dataclass(frozen=True)
class Answer:
    """One completion.

    Args:
        sample: the whole document, with what is needed to show it.
        text: what the model wrote, without the wording of the chat; sentences of a story joined by spaces.
        pictures: what the model drew, in order.
    """

    sample: Sample
    text: str
    pictures: tuple[Image.Image, ...]

    @property
    def document(self) -> Document:
        """What was given and what was made, in order."""
        return self.sample.document

    @property
    def seed(self) -> int | None:
        """What the draws of this answer came from."""
        return self.sample.seed

    def _repr_html_(self) -> str:
        return self.sample._repr_html_()

    def __repr__(self) -> str:
        return f"Answer({self.text!r}, {len(self.pictures)} pictures)"


class Answers(Sequence[Answer]):
    """Several answers side by side, in the order in which they were asked for.

    Args:
        answers: at least one.
        title: what stands above them.
    """

    def __init__(self, answers: Sequence[Answer], title: str = "") -> None:
        self._answers, self.title = tuple(answers), title

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, index: Any) -> Any:
        return Answers(self._answers[index], self.title) if isinstance(index, slice) else self._answers[index]

    @property
    def texts(self) -> list[str]:
        """The text of each answer."""
        return [answer.text for answer in self._answers]

    @property
    def text(self) -> str:
        """The text of the answer; of several, one per line."""
        return "\n".join(self.texts)

    @property
    def pictures(self) -> list[Image.Image]:
        """All that was drawn, answer after answer."""
        return [picture for answer in self._answers for picture in answer.pictures]

    @property
    def samples(self) -> list[Sample]:
        """The records behind the answers, for `plait.rendering`."""
        return [answer.sample for answer in self._answers]

    def save(self, folder: str | Path) -> list[Path]:
        """Write each picture, a page, the record and a sheet of all that was drawn.

        Returns:
            The files written; the page first.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        files = [place / "samples.html", place / "samples.json"]
        write_samples(self.samples, files[0], self.title)
        cells = []
        for number, answer in enumerate(self._answers):
            for order, picture in enumerate(answer.pictures):
                files.append(place / f"sample-{number}-picture-{order}.png")
                picture.save(files[-1])
                cells.append(Cell(picture, f"{answer.sample.title or self.title}, seed {answer.seed}"))
        if cells:
            files.append(place / "sheet.png")
            contact_sheet(cells, columns=min(8, len(cells)), title=self.title).save(files[-1])
        return files

    def _repr_html_(self) -> str:
        return render_cards(self.samples, self.title)

    def __repr__(self) -> str:
        return f"Answers({list(self._answers)})"
