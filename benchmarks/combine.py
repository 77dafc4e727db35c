"""The product of utilities against one pass per pick, and against the matrix product that applying all picks takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import gaussian
from torchal.functional import combined_greedy

SIZES = {"small": (2000, 32, 50), "medium": (50_000, 64, 1000), "large": (1_000_000, 64, 1000)}
N_LABELED = 100
N_CLASSES = 10


def rows(size: str, device: str) -> Iterator[Row]:
    """Time distances times a utility, and the same times the balance of ten classes."""
    n_rows, n_columns, n = SIZES[size]
    x = gaussian(n_rows, n_columns)(torch.device(device))
    worth = x[:, 0].abs()
    log_probs = (x[:, :N_CLASSES] - x[:, N_CLASSES : 2 * N_CLASSES]).log_softmax(1)
    labeled = torch.arange(n_rows, device=device) < N_LABELED
    for name, made_of in {"distance x utility": {}, "x balance": {"log_probs": log_probs}}.items():
        yield from _compare(
            f"product, {name}, {n_rows} x {n_columns}, {n} picks", x, worth, labeled, n, made_of, device
        )


def _compare(  # noqa: PLR0917 - one problem
    work: str, x: Tensor, worth: Tensor, labeled: Tensor, n: int, made_of: dict[str, Any], device: str
) -> Iterator[Row]:
    def ours() -> Tensor:
        return combined_greedy(n, utilities=[worth], strengths=[1.0], features=x, labeled=labeled, **made_of).indices

    candidates: dict[str, Callable[[], object]] = {
        "ours": ours,
        "floor: one mm, picks and labeled": lambda: torch.mm(x, x[: n + N_LABELED].T),
        "plain loop, one pass a pick": lambda: plain(x, worth, n, **made_of),
    }
    same = int((ours().cpu() == plain(x, worth, n, **made_of).cpu()).sum())
    notes = {"ours": f"{same} of {n} picks as the plain loop's"}
    yield from compare(work, candidates, repeats=3, device=device, once=["plain loop, one pass a pick"], notes=notes)


def plain(x: Tensor, worth: Tensor, n: int, log_probs: Tensor | None = None) -> Tensor:
    """Pick with one matrix-vector product per centre; the first rows are labeled."""
    sq = (x * x).sum(1)
    nearest = torch.full_like(sq, torch.inf)
    for center in range(N_LABELED):
        nearest = torch.minimum(nearest, sq - 2 * (x @ x[center]) + sq[center])
    probs = None if log_probs is None else log_probs.double().exp()
    counts = torch.zeros(N_CLASSES, dtype=torch.float64, device=x.device)
    free = torch.arange(len(x), device=x.device) >= N_LABELED
    picked = []
    for _ in range(n):
        values = worth * nearest.clamp(min=0).sqrt()
        if probs is not None:
            values = values * (probs @ (1 / (1 + counts)))
        pick = torch.where(free, values, -torch.inf).argmax()
        picked.append(pick)
        free[pick] = False
        nearest = torch.minimum(nearest, sq - 2 * (x @ x[pick]) + sq[pick])
        if probs is not None:
            counts += probs[pick]
    return torch.stack(picked)
