"""Random encoded documents and a minute text tokenizer for tests of the sequence and sampling layers."""

from types import MappingProxyType

import numpy as np

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import VocabularyError
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary

WORDS = ["a", "red", "blue", "car", "house", "left", "of", "the", "is", "above"]


class TinyText:
    """Whitespace words; pad, begin and end of document are its own."""

    pad_id, bos_id, eos_id = 0, 1, 2
    size = 3 + len(WORDS)
    special_ids = frozenset({0, 1, 2})
    markers = MappingProxyType({"pad": 0, "begin_document": 1, "end_document": 2})

    def encode(self, text: str) -> list[int]:
        unknown = [word for word in text.split() if word not in WORDS]
        if unknown:
            raise VocabularyError(f"Unknown words {unknown}.")
        return [3 + WORDS.index(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(WORDS[id - 3] if id >= 3 else f"<{id}>" for id in ids)


def tiny_builder(grid_shapes: tuple[tuple[int, int], ...] = ((2, 3),), sizes: tuple[int, ...] = (11,)) -> SequenceBuilder:
    text = TinyText()
    vocabulary = Vocabulary(text.size, sizes, text.markers)
    return SequenceBuilder(DocumentLayout(vocabulary, text, [code_frame(vocabulary.code_segments, grid_shapes)]))


def random_document(rng: np.random.Generator, builder: SequenceBuilder, number: int = 0, has_loss: bool = True) -> Document:
    """One to six spans, text and images in any order, any loss flags that a document can have."""
    spans: list = []
    for index in range(rng.integers(1, 7)):
        loss = bool(rng.integers(2)) and has_loss
        if rng.random() < 0.5:
            words = [*rng.choice(WORDS, rng.integers(1, 6))]
            if rng.random() < 0.1:
                words.insert(int(rng.integers(len(words) + 1)), "<unconditional>")
            spans.append(TextSpan(" ".join(words), loss))
        else:
            codes = tuple(
                rng.integers(segment.size, size=shape)
                for shape, segment in zip(builder.layout.drawn_frame.grid_shapes, builder.vocabulary.code_segments, strict=True)
            )
            spans.append(ImageSpan(f"image-{number}-{index}", loss, loss and bool(rng.integers(2)), "codes", codes))
    return Document(tuple(spans), id=f"document-{number}", ends=bool(rng.integers(2)))
