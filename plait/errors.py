"""The errors that plait raises at its boundaries. A message says what was found, what was expected and what to do next."""


class PlaitError(Exception):
    """Base of every error that plait raises on purpose."""


class DocumentError(PlaitError):
    """A document, an image file or a data row is malformed."""


class MarkerError(DocumentError):
    """A text of somebody's holds a marker, which only the wording of a model may write."""


class VocabularyError(PlaitError):
    """A word, id or code lies outside the vocabulary."""


class LayoutError(PlaitError):
    """A token sequence does not have the shape that its grammar, row or cache allows."""


class CheckpointError(PlaitError):
    """A checkpoint is missing, damaged or belongs to another model."""


class NotFiniteError(PlaitError):
    """A training step made a loss or a gradient that is no finite number."""


class RecipeError(PlaitError):
    """Two parts of a recipe do not fit together, or a recipe asks for something that is not there."""


class FailedJobsError(PlaitError):
    """Some of the jobs of a multirun failed; `exit_code` is that of the first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
