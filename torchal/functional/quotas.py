"""Batches that hold each group of rows in proportion to its share of the pool."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_groups, as_integers, as_mask, check_budget, check_finite
from torchal.errors import DataError, ShapeError
from torchal.functional.selection import Selection, top_n

_PER_PICK = 4


def fill_quotas(
    scores: ArrayLike,
    groups: ArrayLike,
    n: int,
    *,
    candidates: ArrayLike | None = None,
    quotas: ArrayLike | None = None,
) -> Selection:
    """Pick candidates from the highest score down, from each group as long as its part of the batch is below its share.

    A row is taken while (rows taken from its group) / n < (rows of the group in the pool) / N, so a group gives at most
    its share of the batch, rounded up; or while its group has given fewer rows than its quota. Where groups have too
    few candidates for that, the rest of the batch are the candidates with the highest scores among those left. Equal
    scores go to the lowest row.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        groups: (N,) int64, at least 0; rows that are no candidates count towards their group's share too.
        candidates: (N,) bool; all rows unless given.
        quotas: (G,) int64, of each group the most rows that it gives within its share, as `class_quotas` makes them.

    Returns:
        indices (n,): those within the shares, highest score first, then the rest likewise; scores (n,).

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: the tensors disagree in shape, dtype or device.
        DataError: a candidate's score is NaN; a negative group, or one without a quota.

    Complexity:
        O(N) reads and two sorts of a few n rows, of all candidates at worst; O(N) memory.

    Example:
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.1])
        >>> fill_quotas(scores, torch.tensor([0, 0, 1, 1]), 2).indices
        tensor([0, 2])
    """
    scores = as_float("scores", scores, ndim=1)
    n_rows, device = len(scores), scores.device
    of = as_groups("groups", groups, n_rows=n_rows, device=device)
    if candidates is None:
        candidates = torch.ones(n_rows, dtype=torch.bool, device=device)
    candidates = as_mask("candidates", candidates, n_rows=n_rows, device=device)
    n_candidates = int(candidates.sum())
    check_budget(n, n_candidates)
    if quotas is None:
        if int(of.max()) >= n_rows:
            of = of.unique(return_inverse=True)[1]
        # In whole numbers, since shares such as 1 / 3 have no exact float: ceil(n * size / N)
        most = (n * of.bincount() + n_rows - 1) // n_rows
    else:
        most = as_integers("quotas", quotas).to(device)
        if int(of.max()) >= len(most):
            raise DataError(f"group {int(of.max())} has no quota: there are {len(most)}")
    # Whether a row is taken depends on those before it alone, so a few more than n rows are mostly enough to look at.
    looked_at = min(_PER_PICK * n, n_candidates)
    while True:
        best = top_n(scores, looked_at, candidates=candidates)
        group = of[best.indices]
        within = rank_within(group) < most[group]
        if looked_at == n_candidates or int(within.sum()) >= n:
            break
        looked_at = min(_PER_PICK * looked_at, n_candidates)
    chosen = torch.cat([within.nonzero().squeeze(1)[:n], (~within).nonzero().squeeze(1)])[:n]
    return Selection(best.indices[chosen], best.scores[chosen])


def class_quotas(
    n: int, available: ArrayLike, *, counts: ArrayLike | None = None, target: ArrayLike | None = None
) -> Tensor:
    """Share n picks out among classes, so that the labels come as near to a target distribution as they can.

    Of all quotas that sum to n and ask no class for more than it has, these have the least squared difference from the
    target numbers, summed over classes: target x (labels so far + n) less the labels so far. They are found pick by
    pick, each for the class that is farthest below its number; of several, for the lowest.

    Args:
        n: how many picks are shared out.
        available: rows that each class can give.
        counts: labels of each class so far; none unless given.
        target: the distribution wanted; the same for each class with rows or labels unless given. It need not sum to 1.

    Shapes:
        available: (C,) int64.
        counts: (C,) int64.
        target: (C,) float.

    Returns:
        (C,) int64 on the CPU.

    Raises:
        BudgetError: n is not between 1 and the number of rows available.
        ShapeError: the tensors disagree in shape or dtype.
        DataError: a number that is negative, or a target that is not finite or 0 for every class.

    Complexity:
        O(n log C).

    Example:
        >>> class_quotas(7, torch.tensor([100, 1, 100]))
        tensor([3, 1, 3])
        >>> class_quotas(4, torch.tensor([100, 100, 100]), counts=torch.tensor([5, 1, 0]))
        tensor([0, 2, 2])
    """
    available = as_integers("available", available).cpu()
    n_classes = len(available)
    counts = torch.zeros_like(available) if counts is None else as_integers("counts", counts).cpu()
    if target is None:
        wanted = ((available > 0) | (counts > 0)).double()
    else:
        target = as_float("target", target, ndim=1)
        check_finite("target", target)
        wanted = target.detach().cpu().double()
    if len(counts) != n_classes or len(wanted) != n_classes:
        raise ShapeError(
            f"counts and target must have a number for each of {n_classes} classes, got {len(counts)} and {len(wanted)}"
        )
    for name, numbers in (("available", available), ("counts", counts), ("target", wanted)):
        if bool((numbers < 0).any()):
            raise DataError(f"{name} must not be negative: {int((numbers < 0).sum())} of {n_classes} classes are")
    check_budget(n, int(available.sum()))
    if not bool((wanted > 0).any()):
        raise DataError(f"target must be above 0 for at least one of {n_classes} classes")
    # Over a common denominator where the target is equal shares: 1 / 3 has no exact float, and ties go to the lowest.
    total, parts = int(counts.sum()) + n, wanted.sum()
    surplus = (counts.double() * parts - wanted * total).tolist()
    left, step = available.tolist(), float(parts)
    heap = [(surplus[c], c) for c in range(n_classes) if left[c]]
    heapify(heap)
    given = [0] * n_classes
    for _ in range(n):
        over, c = heap[0]
        given[c] += 1
        if given[c] < left[c]:
            heapreplace(heap, (over + step, c))
        else:
            heappop(heap)
    return torch.tensor(given, dtype=torch.int64)


def rank_within(group: Tensor) -> Tensor:
    """Return how many earlier entries have the same group, (M,)."""
    together = group.argsort(stable=True)
    sizes = group.bincount()
    begins = (sizes.cumsum(0) - sizes)[group[together]]
    ranks = torch.empty_like(group)
    ranks[together] = torch.arange(len(group), device=group.device) - begins
    return ranks
