"""A small subword tokenizer trained on texts: byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909), as released ones have.

It can write any text, where the word tokenizer of `text.py` refuses a word that it never saw. A text begins as if a space stood before
it, so that a word has one id wherever it stands.
"""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from plait.backbones.text import BOS, EOS, PAD, PretrainedTokenizer
from plait.errors import VocabularyError

NUM_BYTES = 256


def train_subwords(texts: Iterable[str], size: int, specials: Sequence[str] = ()) -> PretrainedTokenizer:
    """A tokenizer with at most `size` ids: <pad>, <bos>, <eos>, the specials in the given order, all bytes, then merges by frequency.

    The same texts give the same ids, in whatever order they come.

    Args:
        texts: what it is trained on.
        specials: strings that are one id wherever they stand ("<start_of_turn>").

    Raises:
        VocabularyError: the size leaves no room for merges, or the specials are not different.
    """
    specials = [PAD, BOS, EOS, *specials]
    if len(set(specials)) < len(specials) or not all(specials):
        raise VocabularyError(f"Specials must be different non-empty strings, none of {PAD} {BOS} {EOS}, got {specials[3:]}.")
    if size <= NUM_BYTES + len(specials):
        raise VocabularyError(
            f"A subword tokenizer of {size} ids has no room beside {NUM_BYTES} bytes and {len(specials)} specials: "
            f"expected more than {NUM_BYTES + len(specials)}. Raise the size."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PretrainedTokenizer.wrap(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)
    )
