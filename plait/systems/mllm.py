"""A multimodal language model that reads: pictures enter as features of an encoder, and what is written is text.

What ARMOR upgrades and what ILLUME starts from: an encoder, a connector and a language model (LLaVA, arXiv 2304.08485; InternVL,
arXiv 2404.16821). It draws nothing; documents whose answer is a picture are refused. Pairs are captioned in a turn of its chat.
Ours: the wording of the caption's question, and the chat of the text base; a released model brings its own.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

from torch import nn

from plait.document import Document, Form, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.heads.shared import SharedHead
from plait.heads.starts import Kind
from plait.objectives.next_token import next_token
from plait.protocols import TextTokenizer
from plait.sequence.builder import SequenceBuilder
from plait.sequence.chat import ChatWording
from plait.sequence.frames import Frame
from plait.sequence.layout import DocumentLayout
from plait.systems.dialogues import DialogueTemplate
from plait.systems.text_side import open_vocabulary, text_and_marker_rows
from plait.systems.unified import UnifiedModel
from plait.vision.features import FeatureInput

CAPTION = "Describe the image."
CHAT = ChatWording("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n")


class MllmTemplate(DialogueTemplate):
    """The wording of a model that reads pictures.

    Args:
        seed: of the choices; a document's wording depends on (seed, counter) alone.
    """

    wording: ClassVar[ChatWording] = CHAT
    picture_in_chat: ClassVar[str] = "<image>"
    form: ClassVar[Form] = "features"

    def texts(self) -> Iterator[str]:
        """Every wording that the template adds, so that a tokenizer trained on the data knows its words."""
        yield from (CAPTION, CHAT.user, CHAT.assistant, CHAT.end, "Question: Answer:")

    def wrap(self, document: Document, counter: int) -> Document:
        """See `DialogueTemplate.wrap`.

        Raises:
            RecipeError: a picture carries loss.
        """
        worded = super().wrap(document, counter)
        if any(image.loss for image in worded.images):
            raise RecipeError(
                f"Document {document.id!r} has a picture to be drawn, expected pictures to be read: this system draws none. Next: choose "
                "sources whose answers are text."
            )
        return worded

    def _pair(self, document: Document, choice: random.Random) -> Document:
        caption, image = sorted(document.spans, key=lambda span: isinstance(span, ImageSpan))
        question, answer = TextSpan(f"\n{CAPTION}{CHAT.end}{CHAT.assistant}"), f"{caption.text}{CHAT.end}"
        return replace(document, spans=(TextSpan(CHAT.user), self.show(image), question, TextSpan(answer, loss=True)))

    def guidance_branches(self, document: Document, image_index: int) -> tuple[Document, ...]:
        """None: nothing is drawn."""
        return ()

    def draw_prompt(self, caption: str, instruction: str | None = None) -> Document:
        """Refused. Raises RecipeError."""
        raise _no_drawing("draw")

    def edit_prompt(self, image: ImageSpan, instruction: str) -> Document:
        """Refused. Raises RecipeError."""
        raise _no_drawing("edit")

    def caption_prompt(self, image: ImageSpan, instruction: str | None = None) -> Document:
        """A turn that shows the picture and asks for its caption."""
        return self.question_prompt(image, instruction or CAPTION)


def _no_drawing(asked: str) -> RecipeError:
    return RecipeError(
        f"This model was asked to {asked}: it reads pictures and draws no pictures. Expected a question or a request for a caption. Next: "
        "take a run of a system that draws, as outputs/demo/instruction."
    )


def build(
    *,
    backbone: nn.Module,
    encoder: nn.Module,
    connector: nn.Module | Callable[..., nn.Module],
    text_tokenizer: TextTokenizer,
    template: MllmTemplate,
    max_tiles: int | None = None,
    new_rows: Kind = "normal",
) -> UnifiedModel:
    """Assemble a multimodal language model.

    Args:
        backbone: a `plait.backbones.causal_lm.CausalLM`.
        encoder: sees pictures (`plait.protocols.VisionEncoder`).
        connector: its features -> vectors of the backbone's width, `tokens_per_tile` for each picture (plait.vision.connector); or what
            makes one from feature_width, grid_shape and width.
        max_tiles: most tiles of a picture.
        new_rows: how the rows of markers begin (see plait.heads.starts).

    Raises:
        RecipeError: the text tokenizer has ids that the backbone's table lacks.
    """
    if not isinstance(connector, nn.Module):
        connector = connector(feature_width=encoder.width, grid_shape=encoder.grid_shape, width=backbone.width)
    vocabulary = open_vocabulary(backbone, text_tokenizer)
    frame = Frame(lengths=(connector.tokens_per_tile,), max_tiles=max_tiles)
    builder = SequenceBuilder(DocumentLayout(vocabulary, text_tokenizer, [frame], template.marks))
    head = SharedHead(text_and_marker_rows(backbone, vocabulary, new_rows), terms=("text",), objectives=(next_token,))
    return UnifiedModel(
        parts={"backbone": backbone, "head": head, "image_input": FeatureInput(encoder, connector)},
        inputs=("image_input",),
        builder=builder,
        template=template,
    )
