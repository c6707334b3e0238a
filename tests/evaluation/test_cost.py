"""Cost on networks whose cost is known by hand."""

import time

import pytest
import torch
from torch import nn

from plait.errors import RecipeError
from plait.evaluation.cost import count_flops, count_parameters, measure, summarise_cost


def test_shared_and_frozen_tensors_are_counted_once_and_as_frozen():
    body, head = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
    head.weight = body.weight
    frozen = nn.Linear(3, 5).requires_grad_(False)
    assert count_parameters({"body": body, "head": head, "frozen": frozen}) == (24 + 20, 24)
    with pytest.raises(RecipeError, match="hold no parameters"):
        count_parameters({"nothing": nn.Identity()})


def test_flops_of_a_product_are_two_per_multiply_and_three_times_that_with_gradients():
    layer = nn.Linear(16, 32, bias=False)
    x = torch.randn(8, 16, requires_grad=True)
    forward = 2 * 8 * 16 * 32
    assert count_flops(lambda: layer(x)) == forward
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * forward


def test_a_block_is_timed_and_its_memory_seen():
    with measure() as reading:
        time.sleep(0.02)
        held = torch.zeros(1000)
    assert 0.02 <= reading.duration_s < 5
    assert reading.peak_memory_bytes > held.nbytes
    with pytest.raises(ZeroDivisionError), measure() as failed:
        1 / 0  # noqa: B018
    assert failed.duration_s > 0


def test_the_summary_holds_the_rule_and_leaves_out_what_nobody_measured():
    parts = {"body": nn.Linear(10, 10, bias=False)}
    short = summarise_cost(parts, positions_per_image=18).to_dict()
    assert short == {"parameters": 100, "parameters_trained": 100, "positions_per_image": 18}
    with measure() as reading:
        pass
    full = summarise_cost(parts, 18, training_tokens=1000, training_flops_counted=7e5, training=reading).to_dict()
    assert full["training_flops_by_rule"] == 6 * 100 * 1000
    assert full["training_flops_counted"] == 7e5
    assert full["training_duration_s"] == reading.duration_s
