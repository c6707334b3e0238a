"""The trigram baseline: a distribution, equal to the formula written out, and as good as its text allows."""

from collections import Counter

import numpy as np
import pytest

from plait.errors import DocumentError
from plait.evaluation.trigram import Trigrams

SIZE = 7
GENERATOR = np.random.default_rng(0)
SEQUENCES = [GENERATOR.choice(SIZE - 1, size=20, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]) for _ in range(12)]


def test_probabilities_sum_to_one_after_any_context() -> None:
    model = Trigrams(SEQUENCES, SIZE)
    for context in ((0, 0), (0, 1), (1, 3), (6, 2), (6, 6)):  # 6 never occurs
        total = sum(np.exp(-model.score(np.array([*context, token]))[-1]) for token in range(SIZE))
        assert total == pytest.approx(1.0)


def reference(a: int, b: int, c: int) -> float:
    """Interpolated Kneser-Ney from dictionaries."""
    grams: Counter = Counter()
    for ids in SEQUENCES:
        padded = [ids[0], *ids]
        grams.update(zip(padded, padded[1:], padded[2:], strict=False))
    pairs = Counter((y, z) for _, y, z in grams)
    singles = Counter(z for _, z in pairs)

    def discount(counts: Counter) -> float:
        kinds = Counter(counts.values())
        return kinds[1] / (kinds[1] + 2 * kinds[2]) if kinds[1] and kinds[2] else 0.75

    d, total = discount(singles), singles.total()
    value = max(singles[c] - d, 0) / total + d * len(singles) / total / SIZE
    for counts, context, gram in ((pairs, (b,), (b, c)), (grams, (a, b), (a, b, c))):
        followers = {key: count for key, count in counts.items() if key[:-1] == context}
        if followers:
            d, total = discount(counts), sum(followers.values())
            value = max(counts[gram] - d, 0) / total + d * len(followers) / total * value
    return value


def test_it_is_the_formula_written_out() -> None:
    model = Trigrams(SEQUENCES, SIZE)
    for a, b, c in GENERATOR.integers(0, SIZE, size=(60, 3)):
        assert np.exp(-model.score(np.array([a, b, c]))[-1]) == pytest.approx(reference(a, b, c))


def test_it_knows_what_it_read() -> None:
    sequence = np.arange(30)
    model = Trigrams([sequence] * 5, 31)
    assert model.score(sequence).mean() < 0.2
    assert model.score(sequence[::-1]).mean() > 3


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(DocumentError, match="at least 2 tokens"):
        Trigrams([np.array([1])], SIZE)
    with pytest.raises(DocumentError, match="outside 0 to 6"):
        Trigrams([np.array([1, 8])], SIZE)
