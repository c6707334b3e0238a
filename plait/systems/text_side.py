"""What every system's head has in common: the rows of text and markers beside a backbone."""

from torch import nn

from plait.errors import RecipeError
from plait.heads.rows import DenseRows, TextRows
from plait.heads.starts import RowStart
from plait.protocols import Rows, TextTokenizer
from plait.sequence.vocabulary import Segment, Vocabulary


def open_vocabulary(backbone: nn.Module, text_tokenizer: TextTokenizer, code_sizes: tuple[int, ...] = ()) -> Vocabulary:
    """The id space of a backbone with its text tokenizer, markers that it lacks, and codes.

    Raises:
        RecipeError: the text tokenizer has ids that the backbone's table lacks.
    """
    if text_tokenizer.size > backbone.text_rows:
        raise RecipeError(
            f"The text tokenizer has {text_tokenizer.size} ids but the backbone's table has {backbone.text_rows} rows: "
            "build the backbone with vocab_size of at least the tokenizer's size."
        )
    return Vocabulary(backbone.text_rows, code_sizes, text_tokenizer.markers)


def text_rows(backbone: nn.Module) -> TextRows:
    """The rows of text, which stay the backbone's."""
    return TextRows(backbone.text_rows, backbone.embed_text, lambda: backbone.text_weight, backbone.logit_softcap)


def starts_beside(backbone: nn.Module, new_rows: str) -> dict[str, RowStart]:
    """How rows begin that join those of the backbone (see plait.heads.starts)."""
    return {
        "start": RowStart.beside(backbone.text_table, new_rows),
        "output_start": RowStart.beside(backbone.text_weight, new_rows),
    }


def new_dense_rows(backbone: nn.Module, segment: Segment, new_rows: str = "normal") -> DenseRows:
    """Rows of a further segment, scaled, tied and capped as the backbone does with its own."""
    return DenseRows(
        segment.size,
        backbone.width,
        is_tied=backbone.is_tied,
        embedding_scale=backbone.embedding_scale,
        softcap=backbone.logit_softcap,
        **starts_beside(backbone, new_rows),
    )


def text_and_marker_rows(backbone: nn.Module, vocabulary: Vocabulary, new_rows: str = "normal") -> list[Rows]:
    """Rows of every segment that holds no codes."""
    others = [segment for segment in vocabulary.segments[1:] if segment.kind != "codes"]
    return [text_rows(backbone), *(new_dense_rows(backbone, segment, new_rows) for segment in others)]
