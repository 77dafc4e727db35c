"""BADGE in few passes against one pass per draw over both factors of the gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered, gaussian
from torchal.functional.badge import badge


class Work(NamedTuple):
    """One problem."""

    n_rows: int
    n_columns: int
    n_classes: int
    n: int


WORKS = {
    "small": [Work(2000, 32, 10, 50)],
    "medium": [Work(50_000, 512, 10, 1000), Work(50_000, 512, 100, 1000), Work(20_000, 2048, 1000, 100)],
    "large": [Work(50_000, 512, 100, 1000), Work(20_000, 2048, 1000, 100), Work(1_000_000, 64, 10, 1000)],
}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time draws; the floor applies all of them to all rows, by one matrix product for each factor."""
    for work in WORKS[size]:
        for name, make in (("gaussian", gaussian), ("clustered ReLU", clustered)):
            x = make(work.n_rows, work.n_columns)(torch.device(device))
            log_probs = linear(x, work.n_classes)
            yield from compare(
                f"BADGE {name} {work.n_rows} x {work.n_columns}, C={work.n_classes}, {work.n} draws",
                {
                    "ours": partial(ours, log_probs, x, work.n),
                    "floor: two mm, all draws": partial(floor, log_probs, x, work.n),
                    "plain loop, one pass a draw": partial(plain, log_probs, x, work.n),
                },
                repeats=5,
                device=device,
                once=["plain loop, one pass a draw"] if size != "small" else [],
            )


def linear(x: Tensor, n_classes: int) -> Tensor:
    """Return log-probabilities of a linear model that is sure of some rows and not of others."""
    generator = torch.Generator(x.device).manual_seed(1)
    weight = torch.randn(n_classes, x.shape[1], generator=generator, device=x.device)
    logits: Tensor = 3 * x @ weight.T / x.shape[1] ** 0.5
    return logits.log_softmax(1)


def ours(log_probs: Tensor, x: Tensor, n: int) -> Tensor:
    """Draw with random numbers of the CPU, so that every device gets the same."""
    return badge(log_probs, x, n, generator=torch.Generator().manual_seed(0)).indices


def floor(log_probs: Tensor, x: Tensor, n: int) -> None:
    """Multiply both factors of all rows with those of as many rows as are drawn."""
    torch.mm(x, x[:n].T)
    torch.mm(log_probs, log_probs[:n].T)


def plain(log_probs: Tensor, x: Tensor, n: int) -> Tensor:
    """Draw with one matrix-vector product per factor and draw."""
    generator = torch.Generator(x.device).manual_seed(0)
    residuals = log_probs.exp()
    best = residuals.argmax(1, keepdim=True)
    residuals.scatter_add_(1, best, torch.full_like(residuals[:, :1], -1))
    length_sq = residuals.square().sum(1) * x.square().sum(1)
    pick = length_sq.argmax()
    picked, nearest = [pick], torch.full_like(length_sq, torch.inf)
    for _ in range(n - 1):
        products = (residuals @ residuals[pick]).mul_(x @ x[pick])
        sq_distance = torch.add(length_sq, products, alpha=-2).add_(length_sq[pick]).clamp_(min=0)
        torch.minimum(nearest, sq_distance, out=nearest)
        nearest[pick] = 0
        ends = nearest.cumsum(0, dtype=torch.float64)
        point = ends[-1] * torch.rand((), generator=generator, device=x.device, dtype=torch.float64)
        pick = torch.searchsorted(ends, point).clamp_(max=len(x) - 1)
        picked.append(pick)
    return torch.stack(picked).cpu()
