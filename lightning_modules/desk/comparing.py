"""Evaluations of several runs side by side, as `plait-compare` judges them, for a cell of a notebook."""

import html
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_modules.desk.project import find_upward
from lightning_modules.jobs.comparison import compare_runs, find_evaluation
from lightning_modules.reporting.groups import find_evaluations
from lightning_modules.reporting.verdicts import conclude, draw_table, list_verdicts, stack_sheets
from lightning_modules.tracking.screen import render_figure
from plait.runs import Run
from plait.samples import inline_picture


class Comparison:
    """A table of configurations, each with one run or several seeds.

    Args:
        rows: name -> folders of evaluations.
        reference: the row that the others are compared with; None takes the first.

    Raises:
        CheckpointError, RecipeError, DocumentError: see `compare_runs`.
    """

    def __init__(self, rows: Mapping[str, Sequence[str]], reference: str | None = None) -> None:
        with tempfile.TemporaryDirectory() as place:
            self.table = compare_runs(rows=rows, folder=place, reference=reference)
        self.rows = dict(rows)

    @classmethod
    def of_runs(cls, runs: Sequence[Run]) -> "Comparison":
        """A row for each run, named by its folder."""
        rows: dict[str, list[str]] = {}
        for run in runs:
            short, number = run.folder.name, 1
            name = short if sum(other.folder.name == short for other in runs) == 1 else str(run.folder)
            while name in rows:
                number += 1
                name = f"{run.folder} ({number})"
            rows[name] = [str(find_evaluation(run.folder))]
        return cls(rows)

    @classmethod
    def below(cls, folder: str | Path, reference: str | None = None) -> "Comparison":
        """The configurations of a study or multirun, with the seeds of each as its row."""
        return cls(find_evaluations(find_upward(folder) or folder), reference)

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """One row per difference that was judged, for `pandas.DataFrame`."""
        return list_verdicts(self.table)

    @property
    def sentences(self) -> list[str]:
        """What can and what cannot be concluded."""
        return conclude(self.table)

    @cached_property
    def picture(self) -> Image.Image:
        """Figures with intervals and seeds, beside the best blind answer."""
        return render_figure(draw_table(self.table))

    def sheets(self, name: str) -> Image.Image:
        """The same prompts drawn by the first run of each row, one above the other; `name` of a sheet, such as val-two_objects."""
        return stack_sheets(self.table, name)

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        return f"<img src='{inline_picture(self.picture)}'><ul>{said}</ul>"
