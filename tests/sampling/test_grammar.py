"""Which ids are legal, whatever ids the text tokenizer has given to its markers."""

import pytest

from plait.sampling.grammar import Grammar, RowState
from plait.sequence.frames import code_frame
from plait.sequence.vocabulary import Vocabulary

PAD, BOS, EOS = 0, 1, 2


@pytest.mark.parametrize("shared", [{}, {"pad": EOS}, {"begin_document": EOS}, {"pad": EOS, "begin_document": EOS}])
def test_a_document_can_end_whatever_else_its_end_stands_for(shared):
    markers = {"pad": PAD, "begin_document": BOS, "end_document": EOS} | shared
    vocabulary = Vocabulary(10, (8,), markers)
    grammar = Grammar(vocabulary, code_frame(vocabulary.code_segments, ((2, 2),)), num_words=10)
    legal = grammar.masks[grammar.legal_text(RowState(tokens_left=20, images_left=0))]
    assert legal[EOS]
    assert not any(legal[index] for name, index in vocabulary.specials.items() if index != EOS)
    assert legal[3:10].all()
