"""Health of a codebook on counts that can be worked out by hand."""

import numpy as np
import pytest
import torch

from plait.errors import VocabularyError
from plait.tokenizers.codebook import measure_codebook


def test_even_use_has_the_perplexity_of_its_codes() -> None:
    health = measure_codebook(np.array([[0, 1], [2, 3]], dtype=np.uint16), 16)
    assert (health.num_used, health.usage_share, health.top_share) == (4, 0.25, 0.25)
    assert health.perplexity == pytest.approx(4.0)


def test_one_code_alone_has_perplexity_one() -> None:
    health = measure_codebook(torch.full((2, 3, 3), 5), 8)
    assert (health.num_used, health.top_share) == (1, 1.0)
    assert health.perplexity == pytest.approx(1.0)


def test_uneven_use() -> None:
    health = measure_codebook(torch.tensor([0, 0, 0, 1]), 2)
    assert health.usage_share == 1.0
    assert health.perplexity == pytest.approx(0.75**-0.75 * 0.25**-0.25)


def test_refuses_codes_of_another_codebook_and_none() -> None:
    with pytest.raises(VocabularyError, match="from 0 to 8: expected 0 to 7"):
        measure_codebook(torch.tensor([0, 8]), 8)
    with pytest.raises(VocabularyError, match="No codes"):
        measure_codebook(torch.tensor([], dtype=torch.long), 8)
