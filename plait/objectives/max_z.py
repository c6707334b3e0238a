"""Max-z loss: keeps the highest logit of each position small, against loss spikes of large models.

Liquid (arXiv 2412.04332, section 3) adds it from 7B on and refers to Baichuan 2 (arXiv 2309.10305) without a formula; its released code
does not have it. Recalled from Baichuan 2 and not re-checked: coefficient 2e-4 times z squared, z the highest logit over the whole
vocabulary. Inferred: averaged over the positions that carry a target. The coefficient is the weight of the term
(conf/objective/), not part of it. z is in nats, so the term is in nats squared, whatever its log key says.
"""

from typing import Any

import torch

from plait.axes import Hidden
from plait.records import LossTerms

MAX_Z = "max_z"
"""Name of the term."""


def max_z(head: Any, hidden: Hidden, batch: Any) -> LossTerms:
    """Sum of z squared over the positions that carry a target of this head (a `plait.protocols.Objective`)."""
    places = torch.cat([batch.wanted[name].places for name in head.terms]).sort().values
    highest = head.top(hidden.flatten(0, 1).index_select(0, places))
    return LossTerms({MAX_Z: highest.square().sum()}, {MAX_Z: float(len(highest))})
