"""WordNet as documents: a gloss after its word, one document for every word of every synset."""

from collections.abc import Sequence

from plait.document import Document, TextSpan
from plait.errors import RecipeError
from plait.worlds.wordnet.synsets import LICENSE, SPLITS, Synset, WordNet


class Glosses(Sequence[Document]):
    """The documents of a split, made when they are asked for.

    Args:
        wordnet: all synsets.
        split: one of `SPLITS`.

    Raises:
        RecipeError: no such split, or nothing in it.
    """

    def __init__(self, wordnet: WordNet, split: str) -> None:
        if split not in SPLITS:
            raise RecipeError(f"WordNet has no split {split!r}: expected one of {SPLITS}.")
        self._items = [(synset, word) for synset in wordnet.select(split) for word in synset.words]
        if not self._items:
            raise RecipeError(f"WordNet has 0 glosses in {split} among {len(wordnet.synsets)} synsets, expected some.")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Document:
        return write_gloss(*self._items[index])


def write_gloss(synset: Synset, word: str, *, gloss: str | None = None, is_question: bool = False) -> Document:
    """`word (kind): gloss`, in two spans.

    Args:
        gloss: another one in the place of its own (a distractor).
        is_question: only the gloss carries loss, and the document does not end: what is scored is the gloss and nothing else.
    """
    spans = (TextSpan(f"{word} ({synset.kind_name}):", not is_question), TextSpan(f" {gloss or synset.gloss}", loss=True))
    meta = {"task": "glosses", "source": "wordnet", "license": LICENSE}
    return Document(spans, f"glosses/{synset.id}/{word}", ends=not is_question, kind="text", meta=meta)
