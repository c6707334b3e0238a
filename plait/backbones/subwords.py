"""A small subword tokenizer, trained on the data: byte-level BPE (as in GPT-2), for texts whose words are not all known beforehand.

It writes every text that there is, so no word is unknown, and decoding gives back what was encoded, white space and all. For a closed
vocabulary `plait.backbones.text.WordTokenizer` is shorter and tells a misspelt word.
"""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from plait.backbones.text import BOS, EOS, PAD, WordTokenizer
from plait.errors import VocabularyError


class SubwordTokenizer(WordTokenizer):
    """Pieces of words; made by `train_subwords` or `load`."""

    def is_same(self, other: "SubwordTokenizer") -> bool:
        """Whether both give the same ids."""
        return self._tokenizer.to_str() == other._tokenizer.to_str()

    def encode(self, text: str) -> list[int]:
        """Ids without bos and eos; special strings in the text are read as such."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special strings written out; bytes that are no UTF-8 become U+FFFD.

        Raises:
            VocabularyError: an id outside the vocabulary.
        """
        outside = [index for index in ids if not 0 <= index < self.size]
        if outside:
            raise VocabularyError(f"Id {outside[0]} is not a text id: the subword tokenizer has ids 0 to {self.size - 1}.")
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


def train_subwords(
    texts: Iterable[str], specials: Sequence[str] = (), size: int = 2048, has_leading_space: bool = False
) -> SubwordTokenizer:
    """A subword tokenizer of at most `size` ids: <pad>, <bos>, <eos>, the specials, 256 bytes, then what is frequent in the texts.

    Args:
        specials: strings that are one id wherever they stand ("<start_of_turn>").
        size: ids at most; few texts give fewer.
        has_leading_space: a text is read as if a space stood before it, so that a word has one id wherever it stands; decoding then
            gives that space too.

    Raises:
        VocabularyError: a special is empty, doubled or one of the three that are always there, or `size` has no room for the bytes.
    """
    specials, alphabet = [PAD, BOS, EOS, *specials], sorted(pre_tokenizers.ByteLevel.alphabet())
    if len(set(specials)) < len(specials) or not all(specials):
        raise VocabularyError(f"Specials must be different non-empty strings, none of {PAD} {BOS} {EOS}, got {specials[3:]}.")
    if size < len(specials) + len(alphabet):
        raise VocabularyError(
            f"A subword tokenizer of {size} ids: expected at least {len(specials) + len(alphabet)}, for {len(specials)} specials and "
            f"{len(alphabet)} bytes. Set a larger size (backbone.vocab_size)."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=has_leading_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[AddedToken(special, special=True, normalized=False) for special in specials],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return SubwordTokenizer(tokenizer)
