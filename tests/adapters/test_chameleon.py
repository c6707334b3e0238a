"""Names of image tokens, against Chameleon's own table."""

from pathlib import Path

import numpy as np
import pytest

from plait.errors import VocabularyError
from tests import goldens
from tests.adapters.chameleon import image_codes, read_code


@pytest.mark.parametrize("path", goldens.family("chameleon_vocab*"))
def test_golden(path: Path) -> None:
    golden = goldens.read(path)
    codes = image_codes({str(name): index for index, name in enumerate(golden["names"])})
    np.testing.assert_array_equal(list(codes), golden["bpe"])
    np.testing.assert_array_equal(list(codes.values()), golden["img"])
    back = {code: index for index, code in codes.items()}
    np.testing.assert_array_equal([back[code] for code in golden["img"].tolist()], golden["back"])


def test_other_names_are_refused() -> None:
    assert read_code("IMGIMGIBJBZ") == 8191
    with pytest.raises(VocabularyError, match="no image token"):
        read_code("IMGIMGAKZ")
    with pytest.raises(VocabularyError, match="2 image tokens stand for 1 codes"):
        image_codes({"IMGIMGBZ": 6, "IMGIMGABZ": 7})
