"""Rows of new tokens begin as said, beside the table they join."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from plait.errors import RecipeError
from plait.heads.rows import DenseRows, FactorisedRows
from plait.heads.starts import RowStart

ROWS, WIDTH = 4000, 8


@pytest.fixture
def table() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(500, WIDTH) * torch.linspace(0.1, 2.0, WIDTH) + torch.linspace(-3, 3, WIDTH)


def test_mean_is_where_transformers_puts_new_rows(table) -> None:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=500, tie_word_embeddings=True, **sizes))
    model.get_input_embeddings().weight.data.copy_(table)
    model.resize_token_embeddings(500 + 64, mean_resizing=True)
    theirs = model.get_input_embeddings().weight[500:].detach()
    ours = DenseRows(64, WIDTH, is_tied=True, start=RowStart.beside(table, "mean")).weight.detach()
    # specs/liquid.md, section 9, test 10: new rows within about 1e-3 of the old mean
    assert (theirs - table.mean(0)).abs().max() < 1e-3
    assert (ours - table.mean(0)).abs().max() < 1e-3
    assert ours.std(0).min() > 0  # and no two alike


def test_like_text_has_the_table_s_mean_and_spread(table) -> None:
    rows = DenseRows(ROWS, WIDTH, is_tied=False, start=RowStart.beside(table, "like_text"), output_start=RowStart())
    assert torch.allclose(rows.weight.mean(0), table.mean(0), atol=0.15)
    assert torch.allclose(rows.weight.std(0), table.std(0), rtol=0.1)
    assert rows.output_weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_factorised_code_begins_like_a_row_of_the_table(table) -> None:
    rows = FactorisedRows((64, 64), WIDTH, start=RowStart.beside(table, "like_text"))
    codes = rows.embed(torch.arange(rows.size))
    assert torch.allclose(codes.mean(0), table.mean(0), atol=0.6)
    assert torch.allclose(codes.std(0), table.std(0), rtol=0.2)
    output = rows.output_weight[:64].mean(0) + rows.output_weight[64:].mean(0)
    assert torch.allclose(output, table.mean(0), atol=0.8)


def test_normal_does_not_look_at_the_table(table) -> None:
    assert RowStart.beside(table, "normal") == RowStart()


def test_an_unknown_start_is_refused(table) -> None:
    with pytest.raises(RecipeError, match="new_rows is 'median', expected one of normal, mean, like_text"):
        RowStart.beside(table, "median")
