"""SynerGen-VL (arXiv 2412.09604): codes folded on their way in, unfolded on their way out, and a second feed-forward for what is visual.

A language model reads several codes of a picture as one token (`plait.vision.folded_codes`), every layer routes visual tokens through a
feed-forward of their own (`plait.backbones.experts`), and a shallow transformer writes the codes of the next position
(`plait.heads.unfolding`). Text and the markers of images stand under the language model's softmax, codes under a softmax of their own.

Formats (sections 3.1 and 3.2; wording of InternLM2's chat):
- drawing: the user says "Generate an image of:" and the caption, the answer is a picture; a tenth of the time the user says "Here is a
  random image <unconditional>:" instead, which is the guidance branch as well;
- captioning: the user shows the picture and asks for "a one-sentence caption", the answer is the caption.
Pictures that are read carry no loss; of an answer its begin marker carries loss (specs 4, ours). No code is public.
Ours where the paper is silent: questions and edits are turns of the same chat, stories plain documents (free interleaving was not trained
there); the two directions are drawn at `text_to_image_ratio` rather than dealt out in equal batches.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from plait.backbones.experts import add_vision_experts
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.heads.shared import SharedHead
from plait.heads.starts import Kind
from plait.heads.unfolding import Condition, UnfoldingHead
from plait.objectives.next_token import next_token
from plait.protocols import TextTokenizer, VisionTokenizer
from plait.sequence.builder import SequenceBuilder
from plait.sequence.chat import ChatWording
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.markers import UNCONDITIONAL
from plait.systems.dialogues import DialogueTemplate, as_codes
from plait.systems.text_side import open_vocabulary, text_and_marker_rows, text_rows
from plait.systems.unified import UnifiedModel
from plait.tokenizers.folding import fold_places
from plait.vision.folded_codes import FoldedCodes

DRAW, CAPTION = "Generate an image of:", "Provide a one-sentence caption for the image"
RANDOM = f"Here is a random image {UNCONDITIONAL}:"
CHAT = ChatWording("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n")


class SynergenTemplate(DialogueTemplate):
    """The wording of SynerGen-VL.

    Args:
        text_to_image_ratio: share of pairs that are drawn rather than captioned (paper: as many of either in every step).
        caption_dropout: share of drawn pairs whose user asks for a random image (paper: 0.1).
        seed: of the choices; a document's wording depends on (seed, counter) alone.
    """

    wording: ClassVar[ChatWording] = CHAT
    picture_in_chat: ClassVar[str] = "<boi><image><eoi>"

    def __init__(self, *, text_to_image_ratio: float = 0.5, caption_dropout: float = 0.1, seed: int = 0) -> None:
        super().__init__(seed)
        self.text_to_image_ratio, self.caption_dropout = text_to_image_ratio, caption_dropout
        for name in ("text_to_image_ratio", "caption_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, expected a share between 0 and 1. Set template.{name}.")

    def texts(self) -> Iterator[str]:
        """Every wording that the template adds, so that a tokenizer trained on the data knows its words."""
        yield from (DRAW, CAPTION, "Here is a random image :", CHAT.user, CHAT.assistant, CHAT.end, "Question: Answer:")

    def _pair(self, document: Document, choice: random.Random) -> Document:
        caption, image = sorted(document.spans, key=lambda span: isinstance(span, ImageSpan))
        if choice.random() >= self.text_to_image_ratio:
            question, answer = TextSpan(f"\n{CAPTION}{CHAT.end}{CHAT.assistant}"), f"{caption.text}{CHAT.end}"
            return replace(document, spans=(TextSpan(CHAT.user), as_codes(image), question, TextSpan(answer, loss=True)))
        asked = RANDOM if choice.random() < self.caption_dropout else f"{DRAW} {caption.text}"
        drawn = (as_codes(image, loss=True, begin_loss=True), TextSpan(CHAT.end, loss=True))
        return replace(document, spans=(TextSpan(self._ask(asked)), *drawn))

    def _ask(self, text: str) -> str:
        return f"{CHAT.user}{text}{CHAT.end}{CHAT.assistant}"

    def guidance_branches(self, document: Document, image_index: int) -> tuple[Document, ...]:
        """One: a turn that asks for a random image, whatever stood before (specs 5)."""
        return (Document((TextSpan(self._ask(RANDOM)), ImageSpan("unconditional", form="codes")), ends=False),)

    def draw_prompt(self, caption: str, instruction: str | None = None) -> Document:
        """A turn that asks for the picture of a caption; ends in a hole."""
        asked = f"{instruction or DRAW} {self.plain(caption, 'The description')}"
        return Document((TextSpan(self._ask(asked)), ImageSpan("drawn", form="codes")), ends=False)

    def caption_prompt(self, image: ImageSpan, instruction: str | None = None) -> Document:
        """A turn that shows the picture and asks for its caption."""
        return self.question_prompt(image, instruction or CAPTION)


def build(
    *,
    backbone: nn.Module,
    vision_tokenizer: VisionTokenizer,
    text_tokenizer: TextTokenizer,
    template: SynergenTemplate,
    fold: Sequence[int] = (2, 8),
    head_layers: int = 4,
    condition: Condition = "prefix",
    vision_experts: bool = True,
    new_rows: Kind = "normal",
    code_width: int | None = None,
    fold_norm: bool = False,
    input_std: float | None = None,
) -> UnifiedModel:
    """Assemble SynerGen-VL.

    Args:
        backbone: a `plait.backbones.causal_lm.CausalLM`, with the weights that its experts are to be copied from.
        fold: rows and columns of codes that make one token (paper: 2 x 8).
        head_layers: of the unfolding transformer (paper: 4).
        condition: how it reads the hidden state (see plait.heads.unfolding).
        vision_experts: give every layer a second feed-forward for visual tokens (see plait.backbones.experts).
        new_rows: how the rows of markers begin (see plait.heads.starts).
        code_width, fold_norm, input_std: see `plait.vision.folded_codes.FoldedCodes`.

    Raises:
        RecipeError: the fold does not divide the grid, the tokenizer has several levels of codes, the text tokenizer has ids that the
            backbone's table lacks, or an option is unknown.
    """
    if len(vision_tokenizer.grid_shapes) != 1:
        raise RecipeError(
            f"The vision tokenizer has {len(vision_tokenizer.grid_shapes)} levels of codes, expected one: a fold takes neighbours of "
            "one grid. Choose another tokenizer."
        )
    (grid_shape,), (num_codes,) = vision_tokenizer.grid_shapes, vision_tokenizer.code_sizes
    places = fold_places(grid_shape, fold)
    vocabulary = open_vocabulary(backbone, text_tokenizer, vision_tokenizer.code_sizes)
    frame = code_frame(vocabulary.code_segments, (grid_shape,), (places,))
    builder = SequenceBuilder(DocumentLayout(vocabulary, text_tokenizer, [frame], template.marks))
    body = backbone.shallow(head_layers, num_codes)
    if vision_experts:
        add_vision_experts(backbone)
    head = SharedHead(text_and_marker_rows(backbone, vocabulary, new_rows), terms=("text",), objectives=(next_token,))
    image_head = UnfoldingHead(
        body, text_rows(body), codes_per_position=places.shape[1], condition=condition, objectives=(next_token,)
    )
    image_input = FoldedCodes(
        num_codes,
        torch.from_numpy(places),
        backbone.width,
        code_width=code_width,
        has_norm=fold_norm,
        output_std=input_std,
    )
    return UnifiedModel(
        parts={"backbone": backbone, "head": head, "image_input": image_input, "image_head": image_head},
        heads=("head", "image_head"),
        inputs=("image_input",),
        builder=builder,
        template=template,
        companions={"vision_tokenizer": vision_tokenizer},
    )
