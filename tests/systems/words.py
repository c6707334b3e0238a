"""A text tokenizer of whole words for tests of systems: the tiny words and those of a template; punctuation stays on its word."""

import re
from collections.abc import Iterable

from tests.sequence.random_documents import WORDS, TinyText


def words_of(texts: Iterable[str], pieces: re.Pattern[str]) -> type[TinyText]:
    """A class of tokenizers, with the ids 0 to 2 for pad and the ends of documents.

    Args:
        texts: wording of the system.
        pieces: what one word is.
    """

    class Text(TinyText):
        words = tuple(
            dict.fromkeys(
                [*WORDS, *(word for text in texts for word in pieces.findall(text)), "what", "colour", "?", "it", "make"]
            )
        )
        size = 3 + len(words)

        def encode(self, text):
            return [3 + self.words.index(word) for word in pieces.findall(text)]

        def decode(self, ids):
            return " ".join(self.words[id - 3] if id >= 3 else f"<{id}>" for id in ids)

    return Text
