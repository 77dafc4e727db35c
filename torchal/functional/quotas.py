"""Batches that hold each group of rows in proportion to its share of the pool."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import check_budget, check_float, check_groups, check_mask
from torchal.functional.selection import Selection, top_n

_PER_PICK = 4


def fill_quotas(scores: Tensor, groups: Tensor, n: int, *, candidates: Tensor | None = None) -> Selection:
    """Pick candidates from the highest score down, from each group as long as its part of the batch is below its share.

    A row is taken while (rows taken from its group) / n < (rows of the group in the pool) / N, so a group gives at most
    its share of the batch, rounded up. Where groups have too few candidates for that, the rest of the batch are the
    candidates with the highest scores among those left. Equal scores go to the lowest row.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        groups: (N,) int64, at least 0; rows that are no candidates count towards their group's share too.
        candidates: (N,) bool; all rows unless given.

    Returns:
        indices (n,): those within the shares, highest score first, then the rest likewise; scores (n,).

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the tensors disagree in shape, dtype or device.
        DataError: a candidate's score is NaN; a negative group.

    Complexity:
        O(N) reads and two sorts of a few n rows, of all candidates at worst; O(N) memory.

    Example:
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.1])
        >>> fill_quotas(scores, torch.tensor([0, 0, 1, 1]), 2).indices
        tensor([0, 2])
    """
    check_float("scores", scores, ndim=1)
    n_rows, device = len(scores), scores.device
    check_groups("groups", groups, n_rows=n_rows, device=device)
    if candidates is None:
        candidates = torch.ones(n_rows, dtype=torch.bool, device=device)
    check_mask("candidates", candidates, n_rows=n_rows, device=device)
    n_candidates = int(candidates.sum())
    check_budget(n, n_candidates)
    if int(groups.max()) >= n_rows:
        groups = groups.unique(return_inverse=True)[1]
    # In whole numbers, since shares such as 1 / 3 have no exact float: ceil(n * size / N)
    quotas = (n * groups.bincount() + n_rows - 1) // n_rows
    # Whether a row is taken depends on those before it alone, so a few more than n rows are mostly enough to look at.
    looked_at = min(_PER_PICK * n, n_candidates)
    while True:
        best = top_n(scores, looked_at, candidates=candidates)
        group = groups[best.indices]
        within = rank_within(group) < quotas[group]
        if looked_at == n_candidates or int(within.sum()) >= n:
            break
        looked_at = min(_PER_PICK * looked_at, n_candidates)
    chosen = torch.cat([within.nonzero().squeeze(1)[:n], (~within).nonzero().squeeze(1)])[:n]
    return Selection(best.indices[chosen], best.scores[chosen])


def rank_within(group: Tensor) -> Tensor:
    """Return how many earlier entries have the same group, (M,)."""
    together = group.argsort(stable=True)
    sizes = group.bincount()
    begins = (sizes.cumsum(0) - sizes)[group[together]]
    ranks = torch.empty_like(group)
    ranks[together] = torch.arange(len(group), device=group.device) - begins
    return ranks
