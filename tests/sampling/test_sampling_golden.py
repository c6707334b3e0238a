"""Policies against numbers of the published samplers of Liquid and Chameleon: every file of these families."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plait.sampling.constraints import AllowAfter, AllowOnly, Disallow
from plait.sampling.policies import SamplingPolicy, keep_top_k, keep_top_p
from tests import goldens


@pytest.mark.parametrize("path", goldens.family("liquid_sampler*"))
def test_golden(path: Path) -> None:
    """Guidance, what is filtered, and the ids that torch.multinomial draws from the whole vocabulary under a global seed."""
    golden = goldens.read(path)
    offset = int(golden["offset"])
    full, nothing = (goldens.tensor(golden[name])[:, -1] for name in ("cond", "uncond"))
    for case in sorted(int(name[4:]) for name in golden if name.startswith("case")):
        scale, temperature, top_k, top_p, samples = golden[f"case{case}"].tolist()
        # The published loop masks text ids inside its top-k/top-p filter: where both are off, nothing is masked.
        start = offset if top_k > 0 or top_p < 1 else 0
        policy = SamplingPolicy(scale, max(temperature, 1e-5), int(top_k), top_p)
        wide = policy.guide(full, [nothing]) if policy.guidance_weights else full
        np.testing.assert_allclose(wide.numpy(), golden[f"cfg{case}"][:, -1], atol=1e-6)

        filtered = keep_top_p(keep_top_k(wide[:, start:] / policy.temperature, policy.top_k), policy.top_p)
        expected = golden[f"filtered{case}"]
        np.testing.assert_array_equal(filtered.isfinite().numpy(), np.isfinite(expected[:, start:]))
        assert not np.isfinite(expected[:, :start]).any()
        kept = np.isfinite(expected[:, start:])
        np.testing.assert_allclose(filtered.numpy()[kept], expected[:, start:][kept], rtol=1e-6, atol=1e-6)

        def noise(probabilities, rows, case=case, start=start, samples=samples):
            wide = torch.nn.functional.pad(probabilities, (start, 0))
            np.testing.assert_allclose(wide.numpy(), golden[f"probs{case}"], atol=1e-6)
            if not samples:
                return wide.argmax(-1) - start
            torch.manual_seed(51 + case)
            return torch.multinomial(wide, 1).squeeze(-1) - start

        branches = [nothing[:, start:]] if policy.guidance_weights else []
        drawn = policy.draw(full[:, start:], branches, torch.arange(len(full)), SimpleNamespace(choose=noise, normal=noise))
        np.testing.assert_array_equal(drawn.numpy() + start, golden[f"draw{case}"][:, 0])


@pytest.mark.parametrize("path", goldens.family("chameleon_logits*"))
def test_golden_processors(path: Path) -> None:
    """Two- and three-row guidance, allow and disallow lists, top-p on probabilities."""
    golden = goldens.read(path)
    two, three = goldens.tensor(golden["logits2"]), goldens.tensor(golden["logits3"])
    full, nothing = two.chunk(2)
    guided = SamplingPolicy(float(golden["scale"])).guide(full, [nothing])
    np.testing.assert_allclose(guided.repeat(2, 1).numpy(), golden["in_batch_cfg"], atol=1e-6)
    full, image, nothing = three.chunk(3)
    policy = SamplingPolicy((float(golden["scale_image"]), float(golden["scale_text"])))
    np.testing.assert_allclose(
        policy.guide(full, [nothing, image]).repeat(3, 1).numpy(), golden["in_batch_instruct_cfg"], atol=1e-6
    )

    history = golden["input_ids"].tolist()
    constrained(AllowOnly(tuple(golden["allow_ids"].tolist())), two, history, golden["allow_only"])
    names = [name for name in golden if name.startswith("disallow_at_or_after_")]
    assert names
    for name in names:
        constraint = Disallow(tuple(golden["disallow_ids"].tolist()), from_length=int(name.rsplit("_", 1)[1]))
        constrained(constraint, two, history, golden[name])
    check_relative_offset(golden, two, history)

    probabilities = goldens.tensor(golden["probs"])
    for name in (name for name in golden if name.startswith("top_p_")):
        kept = keep_top_p(probabilities.log(), float(name.removeprefix("top_p_"))).softmax(-1)
        np.testing.assert_allclose(kept.numpy(), golden[name], atol=1e-6)


def check_relative_offset(golden, logits: torch.Tensor, history: list[list[int]]) -> None:
    """The file stores the trigger but neither the offset nor the ids allowed after it: both are read off the rows that were masked,
    and must then explain every row."""
    expected = golden["relative_offset_allow"]
    trigger, finite = int(golden["rel_trigger"]), np.isfinite(expected)
    masked = [row for row in range(len(expected)) if not finite[row].all()]
    assert masked, "the golden masks no row: nothing is tested"
    allowed = tuple(np.flatnonzero(finite[masked[0]]).tolist())
    length = len(history[0])
    offsets = [k for k in range(1, length + 1) if [r for r in range(len(history)) if history[r][-k] == trigger] == masked]
    assert len(offsets) == 1
    constrained(AllowAfter(trigger, allowed, offsets[0]), logits, history, expected)


def constrained(constraint, logits: torch.Tensor, history: list[list[int]], expected: np.ndarray) -> None:
    found = SamplingPolicy(constraints=(constraint,)).constrain(logits, history)
    np.testing.assert_array_equal(found.numpy(), expected)
