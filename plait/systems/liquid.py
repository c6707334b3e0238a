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
from typing import Any, Literal

from torch import nn

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.heads.positions import ImagePositions
from plait.heads.rows import DenseRows, FactorisedRows, TextRows
from plait.heads.shared import SharedHead
from plait.heads.starts import Kind, RowStart
from plait.protocols import TextTokenizer, VisionTokenizer
from plait.sequence.builder import SequenceBuilder
from plait.sequence.chat import ChatWording, Message, jinja_template, read_chat, write_chat
from plait.sequence.layout import BEGIN_IMAGE, END_IMAGE, UNCONDITIONAL, DocumentLayout
from plait.sequence.vocabulary import Vocabulary
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


class LiquidTemplate:
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
        self.text_to_image_ratio, self.caption_dropout, self.word_dropout = text_to_image_ratio, caption_dropout, word_dropout
        for name in ("text_to_image_ratio", "caption_dropout", "word_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, expected a share between 0 and 1. Set template.{name}.")
        self.instructions, self.seed = tuple(instructions), seed
        self.double_wrap = double_wrap

    def texts(self) -> Iterator[str]:
        """Every wording that the template adds, so that a tokenizer trained on the data knows its words."""
        yield from (*self.instructions, CAPTION, USER, MODEL, END_TURN, "Question: Answer:")
        if self.word_dropout:
            yield HIDDEN

    def wrap(self, document: Document, counter: int) -> Document:
        """See `plait.protocols.Template`. The shape of a document says what it is, so user data needs no labels: a caption and an
        image without loss are a pair (a, b or d); an image with questions and answers becomes chat turns (f), and so does an image
        with an instruction and a picture as the answer; whatever else carries loss (stories, plain text) stays as it is.

        Raises:
            RecipeError: nothing in the document carries loss, and it is no pair.
        """
        shape = "".join("t" if isinstance(span, TextSpan) else "i" for span in document.spans)
        losses = [span.loss for span in document.spans]
        if shape == "ti" and not any(losses):
            # a name of its own: numbers that also choose the source (plait.data.mixture) would tie the direction to it
            return self._pair(document, random.Random(f"wording/{self.seed}/{counter}"))
        if not any(losses):
            raise RecipeError(
                f"Document {document.id!r} ({len(losses)} spans) carries no loss anywhere and is no pair of caption and image: "
                "nothing could be learned from it. Mark the spans that the model shall write."
            )
        if shape == "iti" and losses == [False, False, True]:
            return self._turn(document)
        if shape[0] == "i" and "i" not in shape[1:] and losses[1:] == [False, True] * (len(losses) // 2):
            return self._questions(document)
        spans = tuple(_codes(span) if isinstance(span, ImageSpan) else span for span in document.spans)
        return replace(document, spans=spans)

    def _pair(self, document: Document, choice: random.Random) -> Document:
        caption, image = document.spans
        if choice.random() >= self.text_to_image_ratio:
            answer = self._hide(caption.text, choice, loss=True)
            return replace(document, spans=(_codes(image), TextSpan(CAPTION), *answer))
        instruction = choice.choice(self.instructions)
        if choice.random() < self.caption_dropout:
            text = UNCONDITIONAL
        else:
            text = "".join(span.text for span in self._hide(caption.text, choice)) + f" {instruction}"
        return replace(document, spans=(TextSpan(text), _codes(image, loss=True)))

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

    def _questions(self, document: Document) -> Document:
        image, *turns = document.spans
        spans: list = [TextSpan(USER), _codes(image)]
        for index in range(0, len(turns), 2):
            question, answer = turns[index : index + 2]
            opening = "\n" if index == 0 else USER
            spans += [
                TextSpan(f"{opening}{question.text}{END_TURN}\n{MODEL}"),
                TextSpan(f"{answer.text}{END_TURN}\n", loss=True),
            ]
        return replace(document, spans=tuple(spans))

    def _turn(self, document: Document) -> Document:
        before, instruction, after = document.spans
        question = TextSpan(f"\n{instruction.text}{END_TURN}\n{MODEL}")
        answer = (_codes(after, loss=True, begin_loss=True), TextSpan(f"{END_TURN}\n", loss=True))
        return replace(document, spans=(TextSpan(USER), _codes(before), question, *answer))

    def guidance_branches(self, document: Document, image_index: int) -> tuple[Document, ...]:
        """One: a learned token in place of everything before the picture (specs 7.1), whatever stood there."""
        return (Document((TextSpan(UNCONDITIONAL), ImageSpan("unconditional", form="codes")), ends=False),)

    def draw_prompt(self, caption: str, instruction: str | None = None) -> Document:
        """Text to image (a): caption, the published instruction unless another is given, a hole."""
        text = f"{caption} {instruction or self.instructions[0]}"
        return Document((TextSpan(text), ImageSpan("drawn", form="codes")), ends=False)

    def caption_prompt(self, image: ImageSpan, instruction: str | None = None) -> Document:
        """Image to text (d)."""
        return Document((_codes(image), TextSpan(instruction or CAPTION)), ends=False)

    def question_prompt(self, image: ImageSpan, question: str) -> Document:
        """A chat turn (f) about a picture; the answer ends with the end of the turn."""
        before, after = (BEGIN_IMAGE, END_IMAGE) if self.double_wrap else ("", "")
        spans = (TextSpan(f"{USER}{before}"), _codes(image), TextSpan(f"{after}\n{question}{END_TURN}\n{MODEL}"))
        return Document(spans, ends=False)

    def edit_prompt(self, image: ImageSpan, instruction: str) -> Document:
        """A chat turn that asks for a changed picture; ends in a hole."""
        return replace(
            self.question_prompt(image, instruction),
            spans=(*self.question_prompt(image, instruction).spans, ImageSpan("drawn", form="codes")),
        )

    def story_prompt(self, spans: Sequence[TextSpan | ImageSpan]) -> Document:
        """The beginning of a story; holes where pictures are to be drawn."""
        return Document(tuple(_codes(s) if isinstance(s, ImageSpan) else s for s in spans), ends=False)

    def chat(self, messages: Sequence[Message], id: str = "") -> Document:
        """Messages with content blocks -> a dialogue (f), or a prompt where the last word is the user's (`plait.sequence.chat`)."""
        return write_chat(messages, CHAT, id)

    def messages(self, document: Document) -> list[dict[str, Any]]:
        """The messages of a dialogue, generated or not: the inverse of `chat`."""
        return read_chat(document, CHAT)

    def chat_template(self) -> str:
        """The wording of `chat` for `apply_chat_template` of transformers; a picture is `<boi><image><eoi>`, as the released code
        writes it before it puts codes in the place of `<image>`."""
        return jinja_template(CHAT, "<boi><image><eoi>")

    def answer(self, text: str) -> str:
        """Generated text without the wording of the template."""
        return text.replace(END_TURN, "").strip()


def _codes(span: ImageSpan, *, loss: bool | None = None, begin_loss: bool | None = None) -> ImageSpan:
    """The image in the form in which Liquid reads and writes images."""
    return replace(
        span,
        form="codes",
        loss=span.loss if loss is None else loss,
        begin_loss=span.begin_loss if begin_loss is None else begin_loss,
    )


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
    if text_tokenizer.size > backbone.text_rows:
        raise RecipeError(
            f"The text tokenizer has {text_tokenizer.size} ids but the backbone's table has {backbone.text_rows} rows: "
            "build the backbone with vocab_size of at least the tokenizer's size."
        )
    vocabulary = Vocabulary(backbone.text_rows, vision_tokenizer.code_sizes, text_tokenizer.markers)
    scale, softcap, is_tied = backbone.embedding_scale, backbone.logit_softcap, backbone.is_tied
    rows: list = [TextRows(backbone.text_rows, backbone.embed_text, lambda: backbone.text_weight, softcap)]
    starts = {
        "start": RowStart.beside(backbone.text_table, new_rows),
        "output_start": RowStart.beside(backbone.text_weight, new_rows),
    }
    for segment in vocabulary.segments[1:]:
        if segment.kind == "codes" and code_rows == "factorised":
            digits = vision_tokenizer.digit_sizes[vocabulary.code_segments.index(segment)]
            rows.append(FactorisedRows(digits, backbone.width, embedding_scale=scale, softcap=softcap, **starts))
        elif code_rows in ("dense", "factorised"):
            rows.append(
                DenseRows(segment.size, backbone.width, is_tied=is_tied, embedding_scale=scale, softcap=softcap, **starts)
            )
        else:
            raise RecipeError(f"code_rows is {code_rows!r}, expected 'dense' or 'factorised'.")
    builder = SequenceBuilder(DocumentLayout(vocabulary, text_tokenizer, vision_tokenizer.grid_shapes))
    positions = ImagePositions(builder.layout.num_positions, backbone.width, scale) if image_positions else None
    return UnifiedModel(
        backbone=backbone,
        head=SharedHead(rows),
        builder=builder,
        template=template,
        vision_tokenizer=vision_tokenizer,
        image_positions=positions,
        has_max_z=has_max_z,
    )
