"""A trigram model with interpolated Kneser-Ney smoothing, the baseline that a language model must beat on the same tokens.

Chen and Goodman (1999), section 4.1: absolute discounting with one discount per order, estimated from the counts of counts as
n1 / (n1 + 2 n2); lower orders count in how many contexts a token was seen; below the single token stands the uniform distribution.
It knows token ids only. Counts are sorted arrays of packed ids: three million tokens take seconds.
"""

from collections.abc import Iterable

import numpy as np

from plait.errors import DocumentError

Ids = np.ndarray
"""int64 (tokens,)"""


class Trigrams:
    """Counts of training sequences.

    Args:
        sequences: ids of each document; what precedes its first token is that token again.
        size: ids run from 0 to size - 1, at most 2^21 of them.

    Raises:
        DocumentError: there is no trigram at all, or an id lies outside.
    """

    def __init__(self, sequences: Iterable[Ids], size: int) -> None:
        self.size = size
        kept = [ids for ids in sequences if len(ids) > 1]
        if not kept:
            raise DocumentError("A trigram model needs training documents of at least 2 tokens: there is none.")
        if min(ids.min() for ids in kept) < 0 or max(ids.max() for ids in kept) >= size:
            raise DocumentError(f"Training ids lie outside 0 to {size - 1}, the ids that the trigram model was made for.")
        triples, counts = np.unique(np.concatenate([self._pack(ids) for ids in kept]), return_counts=True)
        pairs, pair_counts = np.unique(triples % size**2, return_counts=True)  # in how many contexts bc was seen
        singles, single_counts = np.unique(pairs % size, return_counts=True)
        self._orders = [_Order(table, number, size) for table, number in ((triples, counts), (pairs, pair_counts))]
        self._single = _Table(singles, single_counts)
        self._single_total, self._single_discount = single_counts.sum(), _estimate_discount(single_counts)

    def score(self, ids: Ids) -> np.ndarray:
        """Minus the logarithm of the probability of every token after the first, in nats (tokens - 1,)."""
        keys = self._pack(np.asarray(ids))
        discount, total = self._single_discount, self._single_total
        backed = np.maximum(self._single(keys % self.size) - discount, 0) / total
        probability = backed + discount * len(self._single) / total / self.size
        for order, modulus in zip(reversed(self._orders), (self.size**2, self.size**3), strict=True):
            probability = order.interpolate(keys % modulus, probability)
        return -np.log(probability)

    def _pack(self, ids: Ids) -> np.ndarray:
        """The trigram that ends at every token after the first, as one number."""
        before = np.concatenate([ids[:1], ids[:-2]])
        return (before * self.size + ids[:-1]) * self.size + ids[1:]


class _Table:
    """Sorted keys -> counts, 0 for keys that are not there."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self.keys, self.counts = keys, counts

    def __len__(self) -> int:
        return len(self.keys)

    def __call__(self, asked: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.keys, asked).clip(max=len(self.keys) - 1)
        return np.where(self.keys[place] == asked, self.counts[place], 0)


class _Order:
    """One order: counts of n-grams, and of each context how many tokens and how many different ones followed."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray, size: int) -> None:
        self.size, self.discount = size, _estimate_discount(counts)
        self.grams = _Table(keys, counts)
        contexts, first, kinds = np.unique(keys // size, return_index=True, return_counts=True)
        self.totals, self.kinds = _Table(contexts, np.add.reduceat(counts, first)), _Table(contexts, kinds)

    def interpolate(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Probabilities of n-grams, given those of the order below; contexts that were never seen leave it to the order below."""
        totals = self.totals(keys // self.size)
        seen = np.maximum(self.grams(keys) - self.discount, 0) + self.discount * self.kinds(keys // self.size) * lower
        return np.where(totals > 0, seen / np.maximum(totals, 1), lower)


def _estimate_discount(counts: np.ndarray) -> float:
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    return once / (once + 2 * twice) if once and twice else 0.75
