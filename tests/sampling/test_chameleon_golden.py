"""The state machine against Chameleon's generator: which ids follow which, three rows per image step, ids exact.

The golden's fake model makes the logits of a row from its last id, the padded length and the sum of its ids; here it stands behind the
backbone seam. Chameleon's ids are in another order than ours, so the test carries a table between the two.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from plait.document import Document, ImageSpan, TextSpan
from plait.records import Layout
from plait.sampling.interleaved import InterleavedSampler
from plait.sampling.policies import PerSampleNoise, SamplingPolicy
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from tests import goldens
from tests.sampling.stub_head import StubHead, read_ids

HOLE = ImageSpan("drawn", form="codes")


class ChameleonIds:
    """Chameleon's ids behind `TextTokenizer`: a word is the number of an id. Text ids come first here, then markers; end-of-turn
    lies beyond the readable words, as the generator never writes it."""

    special_ids = frozenset()
    """a prompt writes its ids, markers too"""

    def __init__(self, golden) -> None:
        names = {"begin_document": "bos", "pad": "pad", "end_document": "eos", "begin_image": "boi", "end_image": "eoi"}
        own = golden["text_ids"].tolist()
        rest = [
            index for index in golden["special_ids"].tolist() if index not in {int(golden[name]) for name in names.values()}
        ]
        table = [*own, *(int(golden[name]) for name in names.values()), *rest]
        self.markers = {marker: len(own) + place for place, marker in enumerate(names)} | {"unconditional": len(table) - 1}
        self.size = len(table) - len(rest)
        self.table = [*table, *golden["image_ids"].tolist()]
        self.text_rows = len(table)
        self.bos_id, self.eos_id, self.pad_id = (self.markers[name] for name in ("begin_document", "end_document", "pad"))

    def encode(self, text: str) -> list[int]:
        return [self.table.index(int(word)) for word in text.split()]

    def decode(self, ids) -> str:
        return " ".join(str(self.table[index]) for index in ids)


class FakeCache:
    def __init__(self, rows: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.call = None

    def append(self, rows, lengths) -> Layout:
        self.call = (rows, lengths)
        shape = (len(rows), int(lengths.max()))
        return Layout(torch.zeros(shape, dtype=torch.long), torch.where(torch.arange(shape[1]) < lengths[:, None], 0, -1))

    def reset(self, rows) -> None:
        for row in rows.tolist():
            self.rows[row] = []


class FakeModel:
    """The hidden state of a row is its logits over Chameleon's ids. Chameleon pads all rows of a call to the longest of the batch."""

    max_length = 10_000

    def __init__(self, golden, ids: ChameleonIds, num_samples: int) -> None:
        self.golden, self.ids, self.num_samples = golden, ids, num_samples
        self.width = len(golden["vocab_names"])
        self.calls: list[list[int]] = []

    def new_cache(self, rows: int, capacity: int) -> FakeCache:
        return FakeCache(rows)

    def __call__(self, embeddings, layout, side=None, cache=None):
        rows, lengths = (values.tolist() for values in cache.call)
        out = torch.zeros(*embeddings.shape[:2], self.width)
        for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            cache.rows[row] += [self.ids.table[int(index)] for index in embeddings[line, :length, 0]]
        columns = max(len(cache.rows[sample]) for sample in range(self.num_samples))
        for line, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            out[line, length - 1] = self._logits(cache.rows[row], columns)
        self.calls.append([len(rows), columns])
        return out

    def _logits(self, row: list[int], columns: int) -> torch.Tensor:
        golden = self.golden
        pad = int(golden["pad"])
        total = sum(index for index in row if index != pad)
        first, second, third = (goldens.tensor(golden[name]) for name in ("T1", "T2", "T3"))
        logits = first[row[-1]] + second[columns % len(second)] + 0.5 * third[total % len(third)]
        for when, token, bonus in golden["script"].tolist():
            if when == columns:
                logits = logits.clone()
                logits[int(token)] += bonus
        return logits


def branches(document: Document, index: int) -> tuple[Document, ...]:
    """Chameleon's: begin markers alone, and the pictures so far without the text."""
    return Document((HOLE,), ends=False), Document(document.images, ends=False)


@pytest.mark.parametrize("path", goldens.family("chameleon_fsm*"))
def test_golden(path: Path) -> None:
    golden = goldens.read(path)
    options = json.loads(str(golden["options"]))
    ids, count = ChameleonIds(golden), int(golden["image_tokens_per_image"])
    vocabulary = Vocabulary(ids.text_rows, (len(golden["image_ids"]),), ids.markers)
    writes_text = bool(options["txt"])
    prompts = [
        " ".join(word for word in str(prompt).split() if int(word) != int(golden["bos"])) for prompt in golden["prompts"]
    ]
    model = FakeModel(golden, ids, len(prompts))

    def logits(hidden, segments):
        runs = [list(range(vocabulary.segments[s].offset, vocabulary.segments[s].stop)) for s in segments]
        return hidden[:, [ids.table[index] for run in runs for index in run]]

    sampler = InterleavedSampler(
        backbone=model,
        read=lambda reading: (read_ids(reading, vocabulary), None),
        heads=dict.fromkeys(("text", "image"), StubHead(logits)),
        builder=SequenceBuilder(DocumentLayout(vocabulary, ids, [code_frame(vocabulary.code_segments, ((1, count),))])),
        guidance_branches=branches,
    )
    given = len(prompts[0].split()) + 1
    budget = {"max_images": 99, "max_tokens": int(golden["max_seq_len"]) - given} if writes_text else {"max_tokens": 1}
    spans = [(TextSpan(prompt),) if writes_text else (TextSpan(prompt), HOLE) for prompt in prompts]
    documents = sampler.generate(
        [Document(span, ends=False) for span in spans], policies(options), PerSampleNoise([0] * len(prompts)), **budget
    )
    for row, document in enumerate(documents):
        found = [ids.table[index] for index in sampler.layout.encode(document).ids]
        if writes_text:
            np.testing.assert_array_equal(found[given:], golden["out_ids"][row])
            assert kinds(golden, found[given:]) == str(golden["out_kinds"][row])
        else:  # the generator stops before the end marker; ours always closes a picture
            start = len(prompts[row].split()) + 2
            np.testing.assert_array_equal(found[start : start + count], golden["out_ids"][row])
    expected = golden["model_call_shapes"].tolist()
    assert model.calls[: len(expected)] == expected


def policies(options) -> dict[str, SamplingPolicy]:
    """Greedy, as the file says; temperature and top-p of the options change no greedy choice."""
    text, image = options["txt"] or {}, options["img"]
    assert image["greedy"]
    assert not text or text["greedy"]
    weights = (image["cfg"]["guidance_scale_image"], image["cfg"]["guidance_scale_text"])
    penalty = text.get("repetition_penalty", 1.0)
    return {
        "text": SamplingPolicy(temperature=0.0, repetition_penalty=penalty),
        "image": SamplingPolicy(weights, temperature=0.0),
    }


def kinds(golden, found: list[int]) -> str:
    """The kind of every id as the golden spells it."""
    letters = {int(golden["boi"]): "B", int(golden["eoi"]): "E", int(golden["eos"]): "S"}
    letters |= dict.fromkeys(golden["image_ids"].tolist(), "I") | dict.fromkeys(golden["text_ids"].tolist(), "T")
    return "".join(letters[index] for index in found)
