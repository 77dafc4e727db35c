"""What a selection is, and the plainest way to make one: the rows with the largest scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_mask, check_budget
from torchal.errors import DataError


class Selection(NamedTuple):
    """Rows in the order in which they were picked.

    Shapes:
        indices: (n,) int64, rows of the pool.
        scores: (n,) float, the value of each pick when it was picked; higher = more wanted.
    """

    indices: Tensor
    scores: Tensor


def top_n(scores: ArrayLike, n: int, *, candidates: ArrayLike | None = None) -> Selection:
    """Pick the n candidates with the largest scores; equal scores go to the lowest row.

    `torch.topk` leaves the order of ties open, and it differs between devices. Here only the n-th largest value is
    taken from it; which rows stand at that value is decided by their number.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        candidates: (N,) bool, the rows that may be picked; all of them when not given.

    Returns:
        indices (n,), largest score first; scores (n,).

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: scores and candidates disagree in shape or device.
        DataError: a candidate's score is NaN.

    Complexity:
        O(N) reads and one sort of n values; O(N) memory.

    Example:
        >>> top_n(torch.tensor([0.1, 0.9, 0.9, 0.5]), 2).indices
        tensor([1, 2])
    """
    scores = as_float("scores", scores, ndim=1)
    if candidates is None:
        rows, values = None, scores
    else:
        candidates = as_mask("candidates", candidates, n_rows=len(scores), device=scores.device)
        rows = candidates.nonzero().squeeze(1)
        values = scores[rows]
    check_budget(n, len(values))
    if bool(values.isnan().any()):
        raise DataError(f"scores must not be NaN: {int(values.isnan().sum())} of {len(values)} candidates are")
    nth = values.topk(n).values[-1]
    above = (values > nth).nonzero().squeeze(1)
    level = (values == nth).nonzero().squeeze(1)[: n - len(above)]
    # above and level each ascend in row number, and the sort is stable, so equal scores keep the lowest row first
    chosen = torch.cat([above, level])
    chosen = chosen[values[chosen].sort(descending=True, stable=True).indices]
    return Selection(chosen if rows is None else rows[chosen], values[chosen])


def filled_up(chosen: Tensor, n: int, scores: Tensor, candidates: Tensor) -> Selection:
    """Return the chosen rows, at most n, and those candidates with the highest scores that make them n.

    Shapes:
        chosen: (N,) bool, some of the candidates.
        scores: (N,) float.
        candidates: (N,) bool.
    """
    missing = n - int(chosen.sum())
    if missing:
        chosen = chosen.index_fill(0, top_n(scores, missing, candidates=candidates & ~chosen).indices, True)
    return top_n(scores, n, candidates=chosen)
