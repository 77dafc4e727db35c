"""What torch's own operators do too slowly on CUDA; the only module that imports triton, which comes with torch there.

Picks in a block follow one from another, and a dozen launches for each cost more than all else: here one program makes
them all, with the values in its registers. And `torch.cdist` starts a group of threads for each manhattan distance.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 64


@triton.jit
def _pick(  # noqa: PLR0917
    values_at, distances_at, least_at, picked_at, scores_at, weights_at, n, m, M: tl.constexpr, WEIGHTED: tl.constexpr
):
    column = tl.arange(0, M)
    inside = column < m
    values = tl.load(values_at + column, mask=inside, other=float("-inf"))
    if WEIGHTED:
        weights = tl.load(weights_at + column, mask=inside, other=1.0)
    least = tl.load(least_at)
    best = tl.max(values, axis=0)
    step = 0
    while (step < n) & (best >= least) & (best > float("-inf")):
        row = tl.min(tl.where(values == best, column, M), axis=0)
        # then no row like this one was picked, and the lowest of them is meant
        distances = tl.load(distances_at + row * m + column, mask=inside, other=float("inf"))
        same = (distances == 0) & (values > float("-inf"))
        if WEIGHTED:
            same = same & (weights == tl.max(tl.where(column == row, weights, 0.0), axis=0))
        alike = tl.min(tl.where(same, column, M), axis=0)
        row = tl.where((best > 0) & (alike < M), alike, row)
        distances = tl.load(distances_at + row * m + column, mask=inside, other=float("inf"))
        if WEIGHTED:
            distances = distances * weights
        tl.store(picked_at + step, row.to(tl.int64))
        tl.store(scores_at + step, best)
        values = tl.where(column == row, float("-inf"), tl.minimum(values, distances))
        best = tl.max(values, axis=0)
        step += 1
    tl.store(values_at + column, values, mask=inside)


def pick_in_matrix(
    values: Tensor, distances: Tensor, n: int, least: Tensor | float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Pick the row of the largest value again and again, n times or until it is below `least`; picks lower the values.

    Shapes:
        values: (R,) float, -inf where a row may not be picked; left as the picks have made them.
        distances: (R, R), contiguous.
        weights: (R,) in the dtype of the values: what distances are multiplied with to make values.

    Returns:
        rows (p,) int64 in pick order, and their values (p,) when they were picked.
    """
    n = min(n, len(values))
    picked = torch.full((n,), -1, dtype=torch.int64, device=values.device)
    scores = values.new_zeros(n)
    least = torch.as_tensor(least, dtype=values.dtype, device=values.device).reshape(1)
    size = triton.next_power_of_2(len(values))
    _pick[(1,)](
        *(values, distances, least, picked, scores, values if weights is None else weights, n, len(values)),
        M=size,
        WEIGHTED=weights is not None,
        num_warps=4 if size <= 2048 else 16,
    )
    done = int((picked >= 0).sum())
    return picked[:done], scores[:done]


@triton.jit
def _manhattan(a_at, b_at, out_at, n_a, n_b, n_columns, TILE: tl.constexpr):  # noqa: PLR0917
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    j = tl.program_id(1) * TILE + tl.arange(0, TILE)
    first = tl.load(a_at + i, mask=i < n_a, other=0.0)
    total = tl.zeros((TILE, TILE), dtype=first.dtype)
    for column in range(n_columns):
        x = tl.load(a_at + column * n_a + i, mask=i < n_a, other=0.0)
        y = tl.load(b_at + column * n_b + j, mask=j < n_b, other=0.0)
        total += tl.abs(x[:, None] - y[None, :])
    at = out_at + i[:, None].to(tl.int64) * n_b + j[None, :]
    tl.store(at, total, mask=(i[:, None] < n_a) & (j[None, :] < n_b))


def manhattan(a: Tensor, b: Tensor) -> Tensor:
    """Return the manhattan distances between the rows of a (A, D) and of b (B, D), (A, B) in their dtype."""
    out = a.new_empty(len(a), len(b))
    if out.numel():
        grid = (triton.cdiv(len(a), _TILE), triton.cdiv(len(b), _TILE))
        # column by column, so that neighbouring threads read neighbouring numbers
        _manhattan[grid](a.T.contiguous(), b.T.contiguous(), out, len(a), len(b), a.shape[1], TILE=_TILE, num_warps=8)
    return out
