"""Synsets, and their split by content: what is held out stands nowhere in what is trained on.

A synset is held out by a hash of its gloss, if the gloss is long enough to be told from a phrase and stands inside no other gloss: twins
and glosses that others quote always train. Its words may well be headwords of training
synsets, in other senses; `is_new` tells which are not, so that both kinds can be reported.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

KINDS = {"n": "noun", "v": "verb", "a": "adjective", "b": "adverb"}
SPLITS = ("train", "val", "held_out")
LICENSE = "WordNet"
"""of the texts (Princeton University); see NOTICE"""

_SHARE = 25  # one synset in 25 goes to each of val and held_out
_MIN_WORDS = 4  # of a gloss that can be held out
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Synset:
    """A meaning: its words and its gloss; `kind` is a key of `KINDS`."""

    id: str
    kind: str
    words: tuple[str, ...]
    gloss: str

    @property
    def kind_name(self) -> str:
        """The part of speech in words."""
        return KINDS[self.kind]


class WordNet:
    """All synsets.

    Args:
        synsets: in the order of the source.
    """

    def __init__(self, synsets: Sequence[Synset]) -> None:
        self.synsets = tuple(synsets)

    def select(self, split: str) -> list[Synset]:
        """The synsets of a split, in the order of a hash (so the first n are a fair sample)."""
        chosen = [item for item in self.synsets if self.splits[item.id] == split]
        return sorted(chosen, key=lambda item: _hash(f"order/{item.id}"))

    def is_new(self, synset: Synset) -> bool:
        """Whether none of its words heads a training synset."""
        return not any(word.lower() in self._training_words for word in synset.words)

    @cached_property
    def splits(self) -> dict[str, str]:
        """Synset id -> split."""
        wanted = {item.id: _draw(item.gloss) for item in self.synsets}
        quoted = self._find_quoted([item for item in self.synsets if wanted[item.id] != "train"])
        return {name: "train" if name in quoted else split for name, split in wanted.items()}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all texts."""
        digest = hashlib.sha256()
        for item in self.synsets:
            digest.update(repr(item).encode())
        return digest.hexdigest()

    @cached_property
    def _training_words(self) -> set[str]:
        return {word.lower() for item in self.synsets if self.splits[item.id] == "train" for word in item.words}

    def _find_quoted(self, held_out: Sequence[Synset]) -> set[str]:
        """Ids of those whose gloss stands, word for word, inside that of another synset."""
        openings: dict[tuple[str, ...], list[tuple[tuple[str, ...], str]]] = {}
        for item in held_out:
            words = _words(item.gloss)
            openings.setdefault(words[:_MIN_WORDS], []).append((words, item.id))
        quoted = set()
        for item in self.synsets:
            words = _words(item.gloss)
            for place in range(len(words) - _MIN_WORDS + 1):
                for gloss, name in openings.get(words[place : place + _MIN_WORDS], ()):
                    if name != item.id and words[place : place + len(gloss)] == gloss:
                        quoted.add(name)
        return quoted


def iterate_texts(synsets: Sequence[Synset]) -> Iterator[str]:
    """Every text of synsets: words and glosses."""
    for item in synsets:
        yield from (*item.words, item.gloss)


def _draw(gloss: str) -> str:
    words = _words(gloss)
    number = _hash(" ".join(words)) % _SHARE
    return SPLITS[1 + number] if number < 2 and len(words) >= _MIN_WORDS else "train"


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
