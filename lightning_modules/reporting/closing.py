"""What a curriculum says when it has finished: a few figures beside what is expected of them, where to look, and what to try next.

It reads the summary that the report wrote and computes nothing. What is expected is the range that the unchanged recipe is held
to; the words of the figures, the paths and the commands are the curriculum's (conf/curriculum/).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.errors import CheckpointError


class Closing:
    """The last words of a curriculum.

    Args:
        summary: JSON file of figures by name.
        figures: figure name -> what it is, in a few words.
        expected: figure name -> (lowest, highest) that the recipe is held to; what is not named is shown alone.
        source: where that is told of.
        opens: what it is -> path.
        commands: what can be done next, as they are typed.
    """

    def __init__(
        self,
        *,
        summary: str,
        figures: Mapping[str, str],
        expected: Mapping[str, Sequence[float]] | None = None,
        source: str = "",
        opens: Mapping[str, str] | None = None,
        commands: Sequence[str] = (),
    ) -> None:
        self.summary, self.figures, self.expected = Path(summary), figures, expected or {}
        self.source, self.opens, self.commands = source, opens or {}, commands

    def __call__(self) -> str:
        """The text.

        Raises:
            CheckpointError: the summary is not there.
        """
        found = self._read()
        width = max(map(len, self.figures.values()))
        lines = [f"  {'':{width}}  {'found':>6}" + (f"  expected ({self.source})" if self.expected else "")]
        missed = []
        for name, words in self.figures.items():
            if name not in found:  # another plan was evaluated
                lines.append(f"  {words:{width}}       -")
                continue
            line = f"  {words:{width}}  {found[name]:6.3f}"
            if name in self.expected:
                low, high = self.expected[name]
                is_missed = found[name] < low
                missed += [words] if is_missed else []
                line += f"  {low:.2f} to {high:.2f}" + ("  BELOW" if is_missed else "")
            lines.append(line)
        if missed:
            lines.append(
                f"  Below what is expected: {', '.join(missed)}. Another seed may do better; {self.source} tells how runs differ."
            )
        places = max(map(len, self.opens), default=0)
        lines += ["", *(f"  {what:{places}}  {path}" for what, path in self.opens.items())]
        lines += ["", "  next:", *(f"    {command}" for command in self.commands)] if self.commands else []
        return "\n".join(["", *lines, ""])

    def _read(self) -> Mapping[str, float]:
        try:
            return json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.summary} cannot be read ({error}). Expected the figures of this curriculum. Next: set its report/ aside and "
                "start again."
            ) from error
