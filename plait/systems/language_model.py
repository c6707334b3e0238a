"""A plain language model as a `UnifiedModel`: the base that systems start from, before it has seen a picture.

It has the vocabulary of a system without code segments, the layout of its documents and the one training step of the house, so that
what it learns can be taken over as the part `backbone`. Ours: no paper describes it; the published systems take a released one.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from torch import nn

from plait.document import Document, Form
from plait.errors import RecipeError
from plait.heads.shared import SharedHead
from plait.objectives.next_token import next_token
from plait.protocols import TextTokenizer
from plait.sequence.builder import SequenceBuilder
from plait.sequence.layout import DocumentLayout
from plait.sequence.markers import WRITTEN, match_any, refuse_markers
from plait.systems.text_side import open_vocabulary, text_and_marker_rows
from plait.systems.unified import UnifiedModel


class PlainTemplate:
    """No wording at all: texts are read as they stand.

    Args:
        marks: strings that are one id in documents that come worded already (turns of a chat, for stages that follow); in other texts
            they are refused.
    """

    form: ClassVar[Form] = "codes"  # of nothing: it is given no pictures

    def __init__(self, marks: Sequence[str] = ()) -> None:
        self.marks = tuple(marks)
        self._markers = match_any({*WRITTEN, *self.marks})

    def texts(self) -> Iterator[str]:
        """Nothing is added, so a tokenizer has nothing more to know."""
        yield from ()

    def wrap(self, document: Document, counter: int) -> Document:
        """The document itself.

        Raises:
            RecipeError: it has pictures, or nothing in it carries loss.
            MarkerError: a text holds a marker.
        """
        if not document.is_worded:
            refuse_markers(document.text, self._markers, f"Document {document.id!r}")
        if document.images or not any(span.loss for span in document.spans):
            raise RecipeError(
                f"Document {document.id!r} has {len(document.images)} pictures and "
                f"{sum(span.loss for span in document.spans)} spans with loss, expected text with loss: a language model learns "
                "from nothing else. Next: choose sources of texts."
            )
        return document

    def guidance_branches(self, document: Document, image_index: int) -> tuple[Document, ...]:
        """None: nothing is drawn."""
        return ()

    def answer(self, text: str) -> str:
        """Generated text as it is."""
        return text.strip()


def build(*, backbone: nn.Module, text_tokenizer: TextTokenizer, template: PlainTemplate) -> UnifiedModel:
    """Assemble a language model without pictures.

    Args:
        backbone: a `plait.backbones.causal_lm.CausalLM`.

    Raises:
        RecipeError: the text tokenizer has ids that the backbone's table lacks.
    """
    vocabulary = open_vocabulary(backbone, text_tokenizer)
    head = SharedHead(text_and_marker_rows(backbone, vocabulary), terms=("text",), objectives=(next_token,))
    builder = SequenceBuilder(DocumentLayout(vocabulary, text_tokenizer, marks=template.marks))
    return UnifiedModel(parts={"backbone": backbone, "head": head}, builder=builder, template=template)
