"""The state machine: everything it writes parses, whatever the logits; batches equal singles; holes are filled; budgets hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import LayoutError, RecipeError
from plait.records import Layout
from plait.sampling.interleaved import InterleavedSampler
from plait.sampling.policies import PerSampleNoise, SamplingPolicy
from tests.sampling.stub_head import StubHead, read_ids
from tests.sequence.random_documents import tiny_builder

POLICIES = {"text": SamplingPolicy(), "image": SamplingPolicy()}
GUIDED = {"text": SamplingPolicy(), "image": SamplingPolicy(guidance=2.0)}
TWICE_GUIDED = {"text": SamplingPolicy(repetition_penalty=1.2), "image": SamplingPolicy(guidance=(1.2, 3.0))}


class HashCache:
    """Rows of token sums: enough state to make the hidden state a function of the whole history."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.history = torch.zeros(rows, dtype=torch.double)
        self.capacity = capacity
        self.call = None

    def append(self, rows, lengths) -> Layout:
        self.call = (rows, lengths)
        positions = self.lengths[rows][:, None] + torch.arange(int(lengths.max()))
        assert int((self.lengths[rows] + lengths).max()) <= self.capacity
        self.lengths[rows] += lengths
        return Layout(positions, torch.where(torch.arange(int(lengths.max())) < lengths[:, None], 0, -1))

    def reset(self, rows) -> None:
        self.lengths[rows] = 0
        self.history[rows] = 0


class HashBackbone:
    """hidden = running hash of all tokens of the row so far: a causal model without weights."""

    width, max_length = 1, 4096

    def new_cache(self, rows: int, capacity: int) -> HashCache:
        return HashCache(rows, capacity)

    def __call__(self, embeddings, layout, side=None, cache=None):
        rows, _ = cache.call
        out = torch.zeros(*embeddings.shape[:2], 1, dtype=torch.double)
        for line, row in enumerate(rows.tolist()):
            for column in range(embeddings.shape[1]):
                if layout.documents[line, column] >= 0:
                    cache.history[row] = (cache.history[row] * 31 + embeddings[line, column, 0] + 1) % 99991
                    out[line, column, 0] = cache.history[row]
        return out


BLIND = Document((TextSpan("<unconditional>"), ImageSpan("u", form="codes")), ends=False)


def blind(document: Document, index: int) -> tuple[Document, ...]:
    return (BLIND,)


def pictures_alone(document: Document, index: int) -> tuple[Document, ...]:
    return BLIND, Document(document.images, ends=False)


def sampler(builder, sharpness: float = 3.0, branches=blind) -> InterleavedSampler:
    sizes = [segment.size for segment in builder.vocabulary.segments]

    def logits(hidden, segments):
        columns = torch.cat([torch.arange(sizes[s]) + 1000 * s for s in segments]).double()
        return (torch.sin(hidden * 12.9898 + columns * 78.233) * sharpness).float()

    return InterleavedSampler(
        backbone=HashBackbone(),
        read=lambda reading: (read_ids(reading, builder.vocabulary).double(), None),
        heads=dict.fromkeys(("text", "image"), StubHead(logits)),
        builder=builder,
        guidance_branches=branches,
    )


PROMPTS = (
    Document((TextSpan("a red car"),), id="text", ends=False),
    Document((TextSpan("a red car"), ImageSpan("hole", form="codes")), id="hole", ends=False),
    Document(
        (TextSpan("a"), ImageSpan("one", form="codes"), TextSpan("blue"), ImageSpan("two", form="codes"), TextSpan("is")),
        id="two holes",
        ends=False,
    ),
)


@pytest.mark.parametrize("policies", [POLICIES, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize(("shapes", "sizes"), [(((2, 3),), (11,)), (((1, 2), (2, 2)), (5, 7))], ids=["one", "two levels"])
def test_random_logits_always_parse(policies, shapes, sizes) -> None:
    """2,500 documents in each of four settings: 10,000 in all."""
    builder = tiny_builder(shapes, sizes)
    machine = sampler(builder)
    drawn = 0
    for start in range(0, 2500, 500):
        prompts = [replace(PROMPTS[i % 3], id=f"d{i}") for i in range(start, start + 500)]
        noise = PerSampleNoise(range(start, start + 500))
        done = machine.generate(prompts, policies, noise, max_images=3, max_tokens=25 + start // 100)
        for document in done:
            tokens = builder.encode(document)  # raises unless every picture is whole and every id legal
            assert builder.layout.decode(tokens) == document.merged()
            assert document.ends
            drawn += len(document.images)
    assert drawn > 2500


def test_a_prompt_that_is_too_long_is_refused() -> None:
    machine = sampler(tiny_builder())
    machine.backbone.max_length = 20
    with pytest.raises(LayoutError, match="needs 24 positions, the backbone has 20"):
        machine.generate([PROMPTS[0]], POLICIES, PerSampleNoise([0]), max_tokens=20)


def test_budgets_hold() -> None:
    builder = tiny_builder()
    machine = sampler(builder)
    prompts = [replace(PROMPTS[0], id=str(i)) for i in range(200)]
    for max_images, max_tokens in ((0, 5), (1, 30), (2, 12)):
        done = machine.generate(prompts, POLICIES, PerSampleNoise(range(200)), max_images=max_images, max_tokens=max_tokens)
        for prompt, document in zip(prompts, done, strict=True):
            assert len(document.images) <= max_images
            assert len(builder.encode(document)) - len(builder.encode(prompt)) <= max_tokens


@pytest.mark.parametrize("policies", [POLICIES, GUIDED, TWICE_GUIDED], ids=["plain", "guided", "twice guided"])
def test_batch_of_eight_equals_eight_singles(policies) -> None:
    builder = tiny_builder()
    machine = sampler(builder, branches=pictures_alone if policies is TWICE_GUIDED else blind)
    prompts = [replace(PROMPTS[i % 3], id=str(i)) for i in range(8)]
    budget = {"max_images": 2, "max_tokens": 40}
    together = machine.generate(prompts, policies, PerSampleNoise(range(8)), **budget)
    for seed, (prompt, document) in enumerate(zip(prompts, together, strict=True)):
        assert machine.generate([prompt], policies, PerSampleNoise([seed]), **budget) == [document]


def test_guidance_changes_pictures_and_only_them() -> None:
    builder = tiny_builder()
    machine = sampler(builder, sharpness=1.0)
    prompts = [replace(PROMPTS[1], id=str(i)) for i in range(50)]
    plain = machine.generate(prompts, POLICIES, PerSampleNoise(range(50)))
    guided = machine.generate(prompts, GUIDED, PerSampleNoise(range(50)))
    changed = sum(a.images[0] != b.images[0] for a, b in zip(plain, guided, strict=True))
    assert changed > 40
    greedy = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(guidance=0.0, temperature=0.0)}
    alike = machine.generate(prompts, greedy, PerSampleNoise(range(50)))
    # guidance 0 reads the unconditional branch alone: one prompt for all, one picture for all
    assert all(np.array_equal(document.images[0].codes[0], alike[0].images[0].codes[0]) for document in alike)


def test_a_weight_for_every_branch() -> None:
    machine = sampler(tiny_builder())
    with pytest.raises(RecipeError, match="weighs 2 guidance branches, the template has 1"):
        machine.generate([PROMPTS[1]], TWICE_GUIDED, PerSampleNoise([0]))
