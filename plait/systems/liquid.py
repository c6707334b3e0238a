"""Liquid (arXiv 2412.04332): any language model, its vocabulary extended by the codes of a VQ tokenizer, and nothing else.

Formats and loss masks follow the released collator (specs section 4, letters a to f). Where they are silent:
- interleaved stories (ours): plain documents in which text, begin markers and pictures all carry loss;
- edits (ours): a chat turn with the picture and the instruction, answered by a picture; its begin marker carries loss, as the model
  must decide to draw;
- where a code stands in its picture (ours, optional, see `build`): the published system says it by raster order alone;
- the ten drawing instructions: only the first is the published one, the other nine are our wording;
- words of captions may be hidden (ours, optional, off: `word_dropout` of `LiquidTemplate`).
Deviation, optional: `code_rows="factorised"` (see plait.heads.rows); the published system is "dense".
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import ClassVar, Literal

from torch import nn

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.heads.positions import ImagePositions
from plait.heads.rows import FactorisedRows
from plait.heads.shared import SharedHead
from plait.heads.starts import Kind
from plait.objectives.max_z import max_z
from plait.objectives.next_token import next_token
from plait.protocols import TextTokenizer, VisionTokenizer
from plait.sequence.builder import SequenceBuilder
from plait.sequence.chat import ChatWording
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.markers import BEGIN_IMAGE, END_IMAGE, UNCONDITIONAL
from plait.systems.dialogues import DialogueTemplate, as_codes
from plait.systems.text_side import new_dense_rows, open_vocabulary, starts_beside, text_and_marker_rows
from plait.systems.unified import UnifiedModel

DRAW = "Generate an image based on this description."
DRAWING_INSTRUCTIONS = (
    DRAW,
    "Draw this description.",
    "Please draw what is described.",
    "Make an image of this.",
    "Create a picture of this.",
    "Show this as an image.",
    "Paint this scene.",
    "Turn this text into an image.",
    "Draw an image for this text.",
    "Produce a picture of this scene.",
)
CAPTION = "The caption of this image is:"
HIDDEN = "something"
"""stands for a hidden word of a caption"""
USER, MODEL, END_TURN = "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>"
"""The chat wording of Gemma; white space counts for released tokenizers, a word tokenizer leaves it out."""
CHAT = ChatWording(USER, MODEL, f"{END_TURN}\n")


class LiquidTemplate(DialogueTemplate):
    """The wording of Liquid.

    Args:
        text_to_image_ratio: share of pairs that are drawn rather than captioned (paper 0.8; released script 0.1).
        caption_dropout: share of drawn pairs whose whole text becomes `<unconditional>` (released code: 0.1).
        word_dropout: share of the words of captions that are hidden behind `HIDDEN`, in both directions. A hidden word is not read
            by what follows it, picture or words, and where the caption is written it is no target. Ours, an option, after Bowman et
            al. (arXiv 1511.06349, section 3.1), so that what is written next must come from the picture and not from the words before.
        instructions: drawing instructions appended to captions; generation uses the first.
        seed: of the choices; a document's wording depends on (seed, counter) alone.
        double_wrap: questions about a picture have its markers twice, `<boi><boi>V<eoi><eoi>`: the published evaluation does so by
            mistake, and its figures come from there (specs section 7.2). Never in training.
    """

    wording: ClassVar[ChatWording] = CHAT
    picture_in_chat: ClassVar[str] = "<boi><image><eoi>"
    """as the released code writes it before it puts codes in the place of `<image>`"""

    def __init__(
        self,
        *,
        text_to_image_ratio: float = 0.8,
        caption_dropout: float = 0.1,
        word_dropout: float = 0.0,
        instructions: Sequence[str] = DRAWING_INSTRUCTIONS,
        seed: int = 0,
        double_wrap: bool = False,
    ) -> None:
        super().__init__(seed)
        self.text_to_image_ratio, self.caption_dropout, self.word_dropout = text_to_image_ratio, caption_dropout, word_dropout
        for name in ("text_to_image_ratio", "caption_dropout", "word_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, expected a share between 0 and 1. Set template.{name}.")
        self.instructions = tuple(instructions)
        self.double_wrap = double_wrap

    def texts(self) -> Iterator[str]:
        """Every wording that the template adds, so that a tokenizer trained on the data knows its words."""
        yield from (*self.instructions, CAPTION, USER, MODEL, END_TURN, "Question: Answer:")
        if self.word_dropout:
            yield HIDDEN

    def _pair(self, document: Document, choice: random.Random) -> Document:
        caption, image = sorted(document.spans, key=lambda span: isinstance(span, ImageSpan))
        if choice.random() >= self.text_to_image_ratio:
            answer = self._hide(caption.text, choice, loss=True)
            return replace(document, spans=(as_codes(image), TextSpan(CAPTION), *answer))
        instruction = choice.choice(self.instructions)
        if choice.random() < self.caption_dropout:
            text = UNCONDITIONAL
        else:
            text = "".join(span.text for span in self._hide(caption.text, choice)) + f" {instruction}"
        return replace(document, spans=(TextSpan(text), as_codes(image, loss=True)))

    def _hide(self, caption: str, choice: random.Random, *, loss: bool = False) -> list[TextSpan]:
        """The caption in spans; hidden words carry no loss."""
        if not self.word_dropout:
            return [TextSpan(caption, loss)]
        words = caption.split()
        hidden = [choice.random() < self.word_dropout for _ in words]
        runs = [list(run) for _, run in groupby(range(len(words)), key=hidden.__getitem__)]
        spans = []
        for run in runs:
            text = " ".join(HIDDEN if hidden[index] else words[index] for index in run)
            # a released tokenizer must read the pieces as it would read the whole
            spans.append(TextSpan(text if run[0] == 0 else f" {text}", loss and not hidden[run[0]]))
        return spans

    def guidance_branches(self, document: Document, image_index: int) -> tuple[Document, ...]:
        """One: a learned token in place of everything before the picture (specs 7.1), whatever stood there."""
        return (Document((TextSpan(UNCONDITIONAL), ImageSpan("unconditional", form="codes")), ends=False),)

    def draw_prompt(self, caption: str, instruction: str | None = None) -> Document:
        """Text to image (a): caption, the published instruction unless another is given, a hole."""
        text = f"{self.plain(caption, 'The description')} {instruction or self.instructions[0]}"
        return Document((TextSpan(text), ImageSpan("drawn", form="codes")), ends=False)

    def caption_prompt(self, image: ImageSpan, instruction: str | None = None) -> Document:
        """Image to text (d)."""
        return Document((as_codes(image), TextSpan(instruction or CAPTION)), ends=False)

    def question_prompt(self, image: ImageSpan, question: str) -> Document:
        """A chat turn (f) about a picture; the answer ends with the end of the turn."""
        prompt = super().question_prompt(image, question)
        if not self.double_wrap:
            return prompt
        opening, picture, rest = prompt.spans
        doubled = (TextSpan(f"{opening.text}{BEGIN_IMAGE}"), picture, TextSpan(f"{END_IMAGE}{rest.text}"))
        return replace(prompt, spans=doubled)


def build(
    *,
    backbone: nn.Module,
    vision_tokenizer: VisionTokenizer,
    text_tokenizer: TextTokenizer,
    template: LiquidTemplate,
    code_rows: Literal["dense", "factorised"] = "dense",
    new_rows: Kind = "normal",
    image_positions: bool = False,
    has_max_z: bool = False,
) -> UnifiedModel:
    """Assemble Liquid.

    Args:
        backbone: a `plait.backbones.causal_lm.CausalLM`.
        code_rows: how codes are embedded and scored (see plait.heads.rows).
        new_rows: how the rows of codes and markers begin (see plait.heads.starts). The script of Liquid has "mean", its released weights
            probably "normal" (specs 3.2), and its authors call the effect unclear.
        image_positions: one learned vector per place of the grid, added to the codes read there. Ours, an option: Liquid has none
            (specs section 2), its language models come with heads that count positions, and a small one that starts from nothing does not.
        has_max_z: a further loss term against spikes (plait.objectives.max_z), from 7B on in the paper; its weight is the stage's.

    Raises:
        RecipeError: the text tokenizer has ids that the backbone's table lacks, or `code_rows` or `new_rows` is unknown.
    """
    vocabulary = open_vocabulary(backbone, text_tokenizer, vision_tokenizer.code_sizes)
    rows = text_and_marker_rows(backbone, vocabulary, new_rows)
    for segment, digits in zip(vocabulary.code_segments, vision_tokenizer.digit_sizes, strict=True):
        if code_rows == "factorised":
            scale, softcap = backbone.embedding_scale, backbone.logit_softcap
            starts = starts_beside(backbone, new_rows)
            rows.append(FactorisedRows(digits, backbone.width, embedding_scale=scale, softcap=softcap, **starts))
        elif code_rows == "dense":
            rows.append(new_dense_rows(backbone, segment, new_rows))
        else:
            raise RecipeError(f"code_rows is {code_rows!r}, expected 'dense' or 'factorised'.")
    frame = code_frame(vocabulary.code_segments, vision_tokenizer.grid_shapes)
    builder = SequenceBuilder(DocumentLayout(vocabulary, text_tokenizer, [frame], template.marks))
    parts = {"backbone": backbone, "head": SharedHead(rows, objectives=(next_token, max_z) if has_max_z else (next_token,))}
    if image_positions:
        parts["image_positions"] = ImagePositions(frame.positions, backbone.width, backbone.embedding_scale)
    return UnifiedModel(
        parts=parts,
        inputs=("image_positions",) if image_positions else (),
        builder=builder,
        template=template,
        companions={"vision_tokenizer": vision_tokenizer},
    )
