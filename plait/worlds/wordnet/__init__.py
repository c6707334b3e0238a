"""WordNet 3.1 as plain text: words and their glosses, split by content. Data of an extra package, never needed by the demo."""

from plait.worlds.wordnet.archive import open_wordnet
from plait.worlds.wordnet.synsets import Synset, WordNet

__all__ = ["Synset", "WordNet", "open_wordnet"]
