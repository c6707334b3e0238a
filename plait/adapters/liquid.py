"""The released Liquid (arXiv 2412.04332; the repository Junfeng5/Liquid_V1_7B) <-> our names.

A release is a plain decoder of transformers with one longer table: rows of text, then one row per image code (Gemma-7B: 256,000 and
8,192, so code c is id 256,000 + c). In plait the text rows are the backbone's and every other segment of the vocabulary has rows of
its own. The order of the rows is that of our global ids, so any model of dense rows can be written in this layout. Names and shapes
only: it does not know who builds a model, nor whether the weights fit one (`plait.checkpoints.check_weights` says that).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plait.errors import CheckpointError

INPUT, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
BACKBONE = "backbone.model."
OWN_ROWS = "head.own_rows."
KINDS = {INPUT: "weight", OUTPUT: "output_weight"}
"""table of the release -> name of its rows in a segment of ours"""


def to_unified(released: Mapping[str, Tensor], segment_sizes: Sequence[int], is_tied: bool) -> dict[str, Tensor]:
    """A released state dict under the names of a UnifiedModel; rows are views of the released tables.

    Args:
        segment_sizes: rows of each segment of the vocabulary, text first.
        is_tied: whether input and output share the table; then `lm_head.weight` may be missing.

    Raises:
        CheckpointError: a table is missing or has another number of rows, or a tied head differs from the table.
    """
    tables = [INPUT] if is_tied else [INPUT, OUTPUT]
    missing = [table for table in tables if table not in released]
    if missing:
        raise CheckpointError(
            f"The release lacks {', '.join(missing)}: it holds {len(released)} tensors, {sorted(released)[:3]}."
        )
    if is_tied and OUTPUT in released and not torch.equal(released[OUTPUT], released[INPUT]):
        raise CheckpointError(f"{OUTPUT} differs from {INPUT}, but the backbone's config ties them (tie_word_embeddings).")
    weights = {BACKBONE + name: value for name, value in released.items() if name not in KINDS}
    for table in tables:
        rows = released[table]
        if len(rows) != sum(segment_sizes):
            raise CheckpointError(
                f"{table} has {len(rows)} rows, expected {sum(segment_sizes)}: the segments of the vocabulary have "
                f"{list(segment_sizes)}. Set the backbone's vocab_size to the rows of text alone."
            )
        text, *own = rows.split(list(segment_sizes))
        weights[BACKBONE + table] = text
        weights |= {f"{OWN_ROWS}{index}.{KINDS[table]}": part for index, part in enumerate(own)}
    if is_tied:
        weights[BACKBONE + OUTPUT] = weights[BACKBONE + INPUT]
    return weights


def to_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a UnifiedModel in the released layout; a tied head is left out, as transformers does.

    Raises:
        CheckpointError: the model holds what the layout has no place for.
    """
    own = [name.removeprefix(OWN_ROWS).partition(".") for name in weights if name.startswith(OWN_ROWS)]
    indices = sorted({int(index) for index, _, _ in own})
    is_tied = not any(kind == KINDS[OUTPUT] for _, _, kind in own)
    released: dict[str, Tensor] = {}
    used = {BACKBONE + OUTPUT}
    for table in [INPUT] if is_tied else [INPUT, OUTPUT]:
        names = [BACKBONE + table, *(f"{OWN_ROWS}{index}.{KINDS[table]}" for index in indices)]
        missing = [name for name in names if name not in weights]
        if missing:
            raise CheckpointError(f"The model lacks {', '.join(missing)}: it has no dense rows to write into {table}.")
        released[table] = torch.cat([weights[name] for name in names])
        used |= set(names)
    rest = {name: value for name, value in weights.items() if name not in used}
    homeless = [name for name in rest if not name.startswith(BACKBONE)]
    if homeless:
        raise CheckpointError(
            f"{len(homeless)} tensors have no place in the released layout ({', '.join(homeless[:3])}): it is a plain language "
            "model with one row per code. Expected code_rows=dense and no image positions."
        )
    return released | {name.removeprefix(BACKBONE): value for name, value in rest.items()}
