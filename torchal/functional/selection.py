"""What a selection is, and the plainest way to make one: the rows with the largest scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_mask, as_tensor, check_budget
from torchal._chunks import values_per_chunk
from torchal.distributed import Group, as_shards
from torchal.engine.draws import draw_places
from torchal.engine.order_statistics import Largest, nth_true
from torchal.errors import DataError


class Selection(NamedTuple):
    """Rows in the order in which they were picked.

    Shapes:
        indices: (n,) int64, rows of the pool.
        scores: (n,) float, the value of each pick when it was picked; higher = more wanted.
    """

    indices: Tensor
    scores: Tensor


def top_n(scores: ArrayLike, n: int, *, candidates: ArrayLike | None = None, group: Group | None = None) -> Selection:
    """Pick the n candidates with the largest scores; equal scores go to the lowest row.

    `torch.topk` leaves the order of ties open, and it differs between devices. Here only the n-th largest value is
    taken from it; which rows stand at that value is decided by their number.

    Args:
        scores: of the rows, higher = more wanted.
        n: how many rows to pick.
        candidates: the rows that may be picked; all of them unless given.
        group: of ranks that call this together, each with its own rows; see `torchal.distributed`. Scores that say
            something about each row alone, as uncertainties do, every rank makes of its own rows.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        candidates: (N,) bool.

    Returns:
        indices (n,), largest score first; scores (n,).

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: scores and candidates disagree in shape or device.
        DataError: a candidate's score is NaN.
        GroupError: another rank failed or is gone.

    Complexity:
        O(N) reads and one sort of n values; O(N) memory.

    Example:
        >>> top_n(torch.tensor([0.1, 0.9, 0.9, 0.5]), 2).indices
        tensor([1, 2])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        scores = as_float("scores", scores, ndim=1)
        meeting.rows(len(scores), 1, name="scores")
        if candidates is not None:
            candidates = as_mask("candidates", candidates, n_rows=len(scores), device=scores.device)
        n_own = len(scores) if candidates is None else int(candidates.count_nonzero())
        meeting.count(n_own)
        meeting.same(n=n, dtype=scores.dtype)
        if shards.alone:
            check_budget(n, n_own)
        n_nan = 0
        for part, among in _parts(scores, candidates):
            nan = part.isnan() if among is None else part.isnan() & among
            n_nan += int(nan.count_nonzero())
        if n_nan:
            raise DataError(f"scores must not be NaN: {n_nan} of {n_own} candidates are")
    check_budget(n, meeting.totals[0])
    own = _top(scores, min(n, n_own), candidates)
    if shards.alone:
        return own
    sizes = [min(n, stop - start) for start, stop in itertools.pairwise(shards.offsets)]
    full = own.indices.new_full((sizes[shards.rank],), shards.n_rows)  # no row, where there are fewer candidates
    full[: len(own.indices)] = own.indices + shards.start
    best = torch.zeros(len(full), dtype=scores.dtype, device=scores.device)
    best[: len(own.scores)] = own.scores
    found, of_found = shards.all_gather_together([full, best], [sizes] * 2)
    order = found.argsort()[: int((found < shards.n_rows).sum())]
    best_of_all = _top(of_found[order], n, None)
    return Selection(found[order][best_of_all.indices], best_of_all.scores)


def _top(values: Tensor, n: int, candidates: Tensor | None) -> Selection:
    """Return the n rows with the largest of the values (N,), among the candidates (N,) bool or all."""
    if not n:
        return Selection(torch.empty(0, dtype=torch.int64, device=values.device), values[:0])
    largest, start = Largest(n, values), 0
    for part, among in _parts(values, candidates):
        largest.add(part, start, among)
        start += len(part)
    # rows ascend and the sort is stable, so equal scores keep the lowest row first
    found = largest.values.sort(descending=True, stable=True)
    return Selection(largest.rows[found.indices], found.values)


def _parts(scores: Tensor, candidates: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Return scores and candidates in parts: what is made of all at once would be larger than the scores."""
    size = values_per_chunk(scores.device)
    masks = itertools.repeat(None) if candidates is None else candidates.split(size)
    return zip(scores.split(size), masks, strict=False)


def uniform(n: int, *, candidates: ArrayLike, generator: torch.Generator, group: Group | None = None) -> Selection:
    """Pick n candidates at random, each set of n with the same probability, in random order.

    Args:
        n: how many rows to pick.
        candidates: the rows that may be picked.
        generator: the randomness.
        group: of ranks that call this together, each with its own rows, and with generators that were seeded alike; see
            `torchal.distributed`.

    Shapes:
        candidates: (N,) bool.

    Returns:
        indices (n,); scores (n,), all 0: no pick is wanted more than another.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: candidates is no bool vector.
        GroupError: another rank failed or is gone.

    Complexity:
        O(N) reads; memory for n numbers, if these are few beside the candidates or the candidates fewer than 2^22.

    Example:
        >>> mask = torch.tensor([True, False, True, True])
        >>> uniform(3, candidates=mask, generator=torch.Generator().manual_seed(0)).indices.sort().values
        tensor([0, 2, 3])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        mask = as_tensor("candidates", candidates)
        candidates = as_mask("candidates", candidates, n_rows=mask.numel(), device=mask.device)
        meeting.rows(len(candidates), 1, name="candidates")
        meeting.count(candidates.count_nonzero())
        meeting.same(n=n, generator=generator)
    check_budget(n, meeting.totals[0])
    places = draw_places(n, meeting.totals[0], generator).to(candidates.device)
    n_own = int(candidates.count_nonzero())
    ends = shards.all_gather(torch.tensor([n_own]), [1] * shards.world_size).cumsum(0)
    begin = int(ends[shards.rank]) - n_own
    mine = (places >= begin) & (places < begin + n_own)
    picked = torch.zeros_like(places)
    picked[mine] = nth_true(candidates, places[mine] - begin) + shards.start
    return Selection(shards.all_reduce(picked), torch.zeros(n, device=candidates.device))


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
