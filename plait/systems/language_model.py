"""A plain language model as a `UnifiedModel`: the base that systems start from, before it has seen a picture.

It has the vocabulary of a system without code segments, the layout of its documents and the one training step of the house, so that
what it learns can be taken over as the part `backbone`. Ours: no paper describes it; the published systems take a released one.
"""

from collections.abc import Iterator

from torch import nn

from plait.document import Document
from plait.errors import RecipeError
from plait.heads.rows import DenseRows, TextRows
from plait.heads.shared import SharedHead
from plait.protocols import TextTokenizer
from plait.sequence.builder import SequenceBuilder
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from plait.systems.unified import UnifiedModel


class PlainTemplate:
    """No wording at all: texts are read as they stand."""

    def texts(self) -> Iterator[str]:
        """Nothing is added, so a tokenizer has nothing more to know."""
        yield from ()

    def wrap(self, document: Document, counter: int) -> Document:
        """The document itself.

        Raises:
            RecipeError: it has pictures, or nothing in it carries loss.
        """
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
    if text_tokenizer.size > backbone.text_rows:
        raise RecipeError(
            f"The text tokenizer has {text_tokenizer.size} ids but the backbone's table has {backbone.text_rows} rows: "
            "build the backbone with vocab_size of at least the tokenizer's size."
        )
    vocabulary = Vocabulary(backbone.text_rows, (), text_tokenizer.markers)
    scale, softcap = backbone.embedding_scale, backbone.logit_softcap
    rows: list = [TextRows(backbone.text_rows, backbone.embed_text, lambda: backbone.text_weight, softcap)]
    for segment in vocabulary.segments[1:]:
        rows.append(DenseRows(segment.size, backbone.width, is_tied=backbone.is_tied, embedding_scale=scale, softcap=softcap))
    builder = SequenceBuilder(DocumentLayout(vocabulary, text_tokenizer, ()))
    return UnifiedModel(backbone=backbone, head=SharedHead(rows), builder=builder, template=template, vision_tokenizer=None)
