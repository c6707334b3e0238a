"""Which ids are legal now: text until a picture begins, then exactly what its frame says: its positions level after level, its markers.

A picture is never half finished and an illegal id cannot be drawn (published loops clamp such ids afterwards). The budget guard lets a
picture begin only if it fits and ends the document when nothing else does. Knows ids through the vocabulary; draws nothing.
"""

from dataclasses import dataclass

import torch

from plait.axes import Bool, Tensor
from plait.sequence.frames import Frame
from plait.sequence.vocabulary import Vocabulary


@dataclass
class RowState:
    """Where one document stands.

    Args:
        tokens_left: tokens that may still be generated, the end marker included.
        images_left: pictures that the model may still begin of its own accord.
        drawn: positions of the current picture drawn so far; None outside a picture.
        done: the document has ended.
    """

    tokens_left: int
    images_left: int
    drawn: int | None = None
    done: bool = False


class Grammar:
    """The grammar of interleaved documents.

    Args:
        vocabulary: the id space.
        frame: what a drawn picture is in a sequence; None: none is drawn.
        num_words: ids that the text tokenizer can read; rows of a padded text table beyond them mean nothing and are illegal.
    """

    def __init__(self, vocabulary: Vocabulary, frame: Frame | None, num_words: int) -> None:
        self.vocabulary, self.frame = vocabulary, frame
        kinds = [segment.kind for segment in vocabulary.segments]
        self.text_segments = tuple(index for index, kind in enumerate(kinds) if kind != "codes")
        self._code_segments = tuple(index for index, kind in enumerate(kinds) if kind == "codes")
        # text and special segments come first, so a column of their logits is a global id
        size = sum(vocabulary.segments[index].size for index in self.text_segments)
        specials = vocabulary.specials
        legal = torch.ones(size, dtype=torch.bool)
        legal[num_words : vocabulary.segments[0].stop] = False
        begin = specials[frame.before[0].name] if frame else None
        for id in specials.values():
            legal[id] = id == begin
        # released tokenizers share ids: the end of SmolLM2 pads as well, that of GPT-2 begins documents too
        legal[specials["end_document"]] = True
        without_image, only_end = legal.clone(), torch.zeros_like(legal)
        if frame:
            without_image[begin] = False
        only_end[specials["end_document"]] = True
        self.masks: Bool[Tensor, "3 v"] = torch.stack([legal, without_image, only_end])

    def content_segments(self, state: RowState) -> tuple[int, ...]:
        """Segments that the next codes of the current picture come from; none where it is no code that is drawn."""
        return (self._code_segments[self.frame.levels[state.drawn or 0]],) if self.frame.codes_per_position else ()

    def legal_text(self, state: RowState) -> int:
        """Which of `masks`, over the columns of the text and special segments, holds for a row outside pictures: all is legal, no picture
        may begin, or the document must end."""
        if state.tokens_left <= 1:
            return 2
        # the end of the document must fit, too
        return int(self.frame is None or state.images_left <= 0 or state.tokens_left <= self.frame.length())

    def begin_picture(self, state: RowState, is_given: bool) -> None:
        """A picture begins; a given hole does not count against the budget."""
        state.drawn = 0
        if not is_given:
            state.images_left -= 1
            state.tokens_left -= self.frame.length() - 1  # its first marker was counted when it was drawn

    def draw_position(self, state: RowState) -> bool:
        """A position of the picture was drawn; returns whether the picture is complete (its end marker follows by force)."""
        state.drawn = (state.drawn or 0) + 1
        if state.drawn < self.frame.positions:
            return False
        self.end_picture(state)
        return True

    def end_picture(self, state: RowState) -> None:
        """The picture is complete: what follows it is put, then text is drawn."""
        state.drawn = None
