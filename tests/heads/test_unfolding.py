"""The unfolding head: one code after the other, each from what stands before it."""

import json
from pathlib import Path

import pytest
import torch

from plait.backbones.causal_lm import CausalLM
from plait.errors import RecipeError
from plait.heads.unfolding import UnfoldingHead
from plait.records import Generation, Turn
from plait.systems.text_side import text_rows
from tests import goldens
from tests.adapters.test_internlm2_golden import load

CODES, LENGTH, WIDTH = 20, 6, 32


def new_head(architecture: str = "llama", condition: str = "prefix", num_layers: int = 2) -> UnfoldingHead:
    torch.manual_seed(0)
    language_model = CausalLM.from_config(
        architecture,
        vocab_size=9,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
    )
    body = language_model.shallow(num_layers, CODES)
    head = UnfoldingHead(body, text_rows(body), codes_per_position=LENGTH, condition=condition)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)  # sharp, so that everything that is read shows
    return head.eval()


def logits(head: UnfoldingHead, hidden, codes):
    return head.rows.logits(head.states(hidden, codes)).unflatten(0, codes.shape)


def draw(head: UnfoldingHead, streams, choose):
    rows = torch.arange(sum(map(len, streams))).view(len(streams), -1)
    return head.step(Generation(cache=None, last=torch.cat(streams)), Turn(rows, (2,), choose))


def test_the_body_is_built_like_the_language_model() -> None:
    head = new_head("qwen3")
    config = head.body.config
    assert (config.model_type, config.num_hidden_layers, config.vocab_size, config.hidden_size) == ("qwen3", 2, CODES, WIDTH)
    assert not head.body.is_tied
    assert head.num_logits == CODES


@pytest.mark.parametrize("condition", ["prefix", "add"])
def test_no_code_is_seen_before_it_is_drawn(condition) -> None:
    head = new_head(condition=condition)
    hidden, codes = torch.randn(3, WIDTH), torch.randint(CODES, (3, LENGTH))
    with torch.inference_mode():
        before = logits(head, hidden, codes)
        for place in range(LENGTH):
            other = codes.clone()
            other[:, place] = (other[:, place] + 1) % CODES
            after = logits(head, hidden, other)
            assert torch.equal(after[:, : place + 1], before[:, : place + 1])
            if place + 1 < LENGTH:
                assert not torch.allclose(after[:, place + 1 :], before[:, place + 1 :])


@pytest.mark.parametrize("condition", ["prefix", "add"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
def test_drawing_scores_as_training_does(architecture, condition) -> None:
    head, seen = new_head(architecture, condition), []
    hidden = torch.randn(4, WIDTH)

    def choose(streams, before):
        assert before.shape == (4, len(seen))
        seen.append(streams[0])
        return (streams[0].argmax(-1) + len(seen)) % CODES

    with torch.inference_mode():
        drawn = draw(head, [hidden], choose)
        torch.testing.assert_close(torch.stack(seen, 1), logits(head, hidden, drawn), atol=1e-4, rtol=1e-4)


def test_streams_share_codes_and_nothing_else() -> None:
    head, seen = new_head(), []
    streams = [torch.randn(3, WIDTH) for _ in range(2)]

    def choose(scored, before):
        seen.append(scored)
        return (scored[0] + scored[1]).argmax(-1)

    with torch.inference_mode():
        drawn = draw(head, streams, choose)
        for number, hidden in enumerate(streams):
            together = torch.stack([scored[number] for scored in seen], 1)
            torch.testing.assert_close(together, logits(head, hidden, drawn), atol=1e-4, rtol=1e-4)


def test_patches_of_a_batch_do_not_see_each_other() -> None:
    head = new_head()
    hidden, codes = torch.randn(5, WIDTH), torch.randint(CODES, (5, LENGTH))
    with torch.inference_mode():
        together = logits(head, hidden, codes)
        for index in range(5):
            alone = logits(head, hidden[index : index + 1], codes[index : index + 1])
            torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=1e-4)


def test_a_batch_without_pictures_has_no_states() -> None:
    head = new_head()
    states = head.states(torch.randn(0, WIDTH, requires_grad=True), torch.zeros(0, LENGTH, dtype=torch.long))
    assert states.shape == (0, WIDTH)


def test_refusals() -> None:
    head = new_head()
    with pytest.raises(RecipeError, match="expected 'prefix' or 'add'"):
        UnfoldingHead(head.body, head.rows, codes_per_position=4, condition="suffix")
    with pytest.raises(RecipeError, match=r"A patch has 65 codes.*reaches 64"):
        UnfoldingHead(head.body, head.rows, codes_per_position=65)
    with pytest.raises(RecipeError, match="0 layers"):
        head.body.shallow(0, 4)


@pytest.mark.parametrize("path", goldens.family("internlm2_plain_model*"))
def test_golden(path: Path) -> None:
    """The stack of the head is the public model's: without places, with the first token's row as the hidden state, its logits are those
    of that model on the same ids."""
    golden = goldens.read(path)
    body = load(goldens.weights(golden), json.loads(str(golden["cfg"])))
    ids = goldens.tensor(golden["ids"]).long()
    head = UnfoldingHead(body, text_rows(body), codes_per_position=ids.shape[1]).eval()
    with torch.inference_mode():
        head.positions.zero_()
        following = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        found = logits(head, body.embed_text(ids[:, 0]), following)
    torch.testing.assert_close(found, goldens.tensor(golden["logits"]), atol=1e-4, rtol=0)
