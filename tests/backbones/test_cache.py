"""Every way of feeding a cache gives the hidden states of one uncached run."""

import pytest
import torch

from plait.backbones.cache import FIRST_STORAGE, RowCache
from plait.backbones.causal_lm import CausalLM
from plait.errors import LayoutError

LENGTHS = [9, 4, 12, 7, 1]


@pytest.fixture
def documents() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(50, (length,), generator=generator) for length in LENGTHS]


@pytest.fixture
def expected(backbone, documents, new_layout) -> list[torch.Tensor]:
    """Each document alone, without a cache."""
    return [run_alone(backbone, ids, new_layout) for ids in documents]


@torch.no_grad()
def run_alone(backbone: CausalLM, ids: torch.Tensor, new_layout) -> torch.Tensor:
    return backbone(backbone.embed_text(ids[None]), new_layout([[len(ids)]]))[0]


@torch.no_grad()
def feed(backbone: CausalLM, cache: RowCache, feeds: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """One call that appends ids to rows; padding holds noise that must not matter."""
    lengths = [len(ids) for ids in feeds.values()]
    layout = cache.append(torch.tensor(list(feeds)), torch.tensor(lengths))
    embeddings = torch.randn(len(feeds), max(lengths), backbone.width) * 100
    for row, ids in enumerate(feeds.values()):
        embeddings[row, : len(ids)] = backbone.embed_text(ids)
    hidden = backbone(embeddings, layout, cache=cache)
    return {row: states[:length] for row, states, length in zip(feeds, hidden, lengths, strict=True)}


def check(parts: list[list[torch.Tensor]], expected: list[torch.Tensor]) -> None:
    for pieces, hidden in zip(parts, expected, strict=True):
        torch.testing.assert_close(torch.cat(pieces), hidden, atol=1e-5, rtol=1e-4)


def test_token_by_token(backbone, documents, expected) -> None:
    cache = backbone.new_cache(len(documents), max(LENGTHS))
    parts: list[list[torch.Tensor]] = [[] for _ in documents]
    for step in range(max(LENGTHS)):
        feeds = {row: ids[step : step + 1] for row, ids in enumerate(documents) if step < len(ids)}
        for row, states in feed(backbone, cache, feeds).items():
            parts[row].append(states)
    check(parts, expected)
    assert cache.lengths.tolist() == LENGTHS


@pytest.mark.parametrize("seed", range(4))
def test_ragged_appends_of_row_subsets(backbone, documents, expected, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    cache = backbone.new_cache(len(documents) + 2, max(LENGTHS))
    homes = torch.randperm(len(documents) + 2, generator=generator)[: len(documents)].tolist()
    done = [0] * len(documents)
    parts: list[list[torch.Tensor]] = [[] for _ in documents]
    while any(count < length for count, length in zip(done, LENGTHS, strict=True)):
        # any documents in any order, each by 0 to 4 tokens
        order = torch.randperm(len(documents), generator=generator).tolist()[: 1 + seed]
        steps = {i: min(int(torch.randint(5, (), generator=generator)), LENGTHS[i] - done[i]) for i in order}
        if not any(steps.values()):
            continue
        feeds = {homes[i]: documents[i][done[i] : done[i] + number] for i, number in steps.items()}
        for i, states in zip(steps, feed(backbone, cache, feeds).values(), strict=True):
            parts[i].append(states)
            done[i] += steps[i]
    check(parts, expected)
    assert cache.lengths[homes].tolist() == LENGTHS


def test_all_rows_in_step(backbone, documents, new_layout) -> None:
    # equal lengths: the path without a mask
    ids = [documents[2][:6], documents[0][:6], documents[3][:6]]
    cache = backbone.new_cache(3, 6)
    pieces = [[], [], []]
    for begin, end in ((0, 3), (3, 4), (4, 5), (5, 6)):
        for row, states in feed(backbone, cache, {row: ids[row][begin:end] for row in range(3)}).items():
            pieces[row].append(states)
    check(pieces, [run_alone(backbone, document, new_layout) for document in ids])


def test_reset_forgets_some_rows(backbone, documents, expected) -> None:
    cache = backbone.new_cache(3, max(LENGTHS))
    first = feed(backbone, cache, {0: documents[0], 1: documents[1][:2], 2: documents[2]})
    cache.reset(torch.tensor([2, 0]))
    assert cache.lengths.tolist() == [0, 2, 0]
    second = feed(backbone, cache, {0: documents[3][:3], 1: documents[1][2:], 2: documents[4]})
    third = feed(backbone, cache, {0: documents[3][3:]})
    check(
        [[first[0]], [first[1], second[1]], [first[2]], [second[0], third[0]], [second[2]]],
        expected,
    )


def test_storage_grows_with_the_rows(new_backbone, new_layout) -> None:
    backbone = new_backbone()
    ids = torch.arange(3 * FIRST_STORAGE) % 50
    cache = backbone.new_cache(2, 10_000)
    parts = [feed(backbone, cache, {1: chunk})[1] for chunk in ids.split(50)]
    check([parts], [run_alone(backbone, ids, new_layout)])
    keys, _ = cache.storage(0, torch.empty(0, 0, 0, 0), 1)
    assert keys.shape == (2, 2, 4 * FIRST_STORAGE, 8)


def test_a_cache_under_autocast(backbone, documents, expected) -> None:
    cache = backbone.new_cache(1, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = [feed(backbone, cache, {0: documents[2][:5]})[0]]
        states += [feed(backbone, cache, {0: token[None]})[0] for token in documents[2][5:]]
    similarity = torch.nn.functional.cosine_similarity(torch.cat(states).float(), expected[2], dim=-1)
    assert similarity.min() > 0.99


def test_training_mode_with_checkpointing_still_caches(new_backbone, documents, new_layout) -> None:
    backbone = CausalLM(new_backbone("llama").model, gradient_checkpointing=True).train()
    cache = backbone.new_cache(1, 20)
    parts = [feed(backbone, cache, {0: chunk})[0] for chunk in documents[2].split(5)]
    check([parts], [run_alone(backbone, documents[2], new_layout)])


def test_overflow_is_refused_with_numbers_and_leaves_the_cache_as_it_was(new_backbone, documents) -> None:
    backbone = new_backbone()
    cache = backbone.new_cache(3, 10)
    feed(backbone, cache, {1: documents[0]})
    with pytest.raises(LayoutError, match="Row 1 holds 9 tokens and cannot take 2 more: the cache has 10 positions"):
        cache.append(torch.tensor([0, 1]), torch.tensor([5, 2]))
    assert cache.lengths.tolist() == [0, 9, 0]
    feed(backbone, cache, {1: documents[4]})


@pytest.mark.parametrize(
    ("rows", "lengths", "message"),
    [
        ([0, 0], [1, 1], "only once"),
        ([3], [1], "rows 0 to 2"),
        ([-1], [1], "rows 0 to 2"),
        ([], [], "two vectors"),
        ([0, 1], [0, 0], "at least one token"),
        ([0, 1], [2, -1], "no negative"),
    ],
)
def test_malformed_appends_are_refused(rows, lengths, message) -> None:
    cache = RowCache(3, 10, layers=1)
    with pytest.raises(LayoutError, match=message):
        cache.append(torch.tensor(rows, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))


def test_calls_must_follow_their_announcement(new_backbone) -> None:
    backbone = new_backbone()
    cache = backbone.new_cache(2, 10)
    one = torch.ones(1, dtype=torch.int64)
    embeddings = torch.zeros(1, 1, backbone.width)
    layout = cache.append(one, one)
    with pytest.raises(LayoutError, match="called twice"):
        cache.append(one, one)
    with pytest.raises(LayoutError, match=r"between cache\.append and the backbone call"):
        cache.reset(one)
    with pytest.raises(LayoutError, match="keeps no gradients"):
        backbone(embeddings, layout, cache=cache)
    with torch.no_grad():
        backbone(embeddings, layout, cache=cache)
        with pytest.raises(LayoutError, match="no call was announced"):
            backbone(embeddings, layout, cache=cache)
        cache.append(one, one)
        with pytest.raises(LayoutError, match="got another one"):
            backbone(embeddings, layout, cache=cache)
    with pytest.raises(LayoutError, match="at least one row"):
        RowCache(0, 5, layers=1)
