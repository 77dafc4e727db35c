"""Greedy determinants against one pass per pick with a number kept for each row and pick, and one matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import log_det, max_det

SIZES = {"small": (2000, 32, 50), "medium": (50_000, 512, 1000), "large": (1_000_000, 64, 1000)}
CLASSES = 10


def rows(size: str, device: str) -> Iterator[Row]:
    """Time `log_det` with the cosine, then `max_det`."""
    n_rows, n_columns, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    loop = "plain: Chen et al., a pass a pick"
    yield from compare(
        f"log-determinant, {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: log_det(x, n),
            loop: lambda: plain_cosine(x, n),
            "floor: one product N x D x n": lambda: product(x, n),
        },
        repeats=1 if size == "large" else 3,
        device=device,
        once=[loop],
        notes={loop: f"keeps {4 * n_rows * n / 2**20:.0f} MiB"},
    )
    n = min(n, 300)
    weight = torch.randn(n_columns, CLASSES, generator=torch.Generator().manual_seed(0)).to(x.device)
    log_probs = (4 * torch.nn.functional.normalize(x) @ weight).log_softmax(1)
    yield from compare(
        f"MaxDet, {n_rows} x {n_columns}, {CLASSES} classes, {n} picks",
        {
            "ours": lambda: max_det(log_probs, x, n),
            loop: lambda: plain_gradients(log_probs, x, n),
        },
        repeats=1 if size == "large" else 3,
        device=device,
        once=[loop],
    )


def plain(variances: Tensor, kernel_with: Callable[[int], Tensor], n: int, ridge: float) -> list[int]:
    """Make each pick by one pass, Chen, Zhang & Zhou, Algorithm 1."""
    known = variances.new_empty(n, len(variances))
    picked: list[int] = []
    for step in range(n):
        row = int(variances.argmax())
        new = kernel_with(row) - known[:step].T @ known[:step, row]
        known[step] = new / (variances[row] + ridge).sqrt()
        variances = variances - known[step].square()
        picked.append(row)
        variances[picked] = -torch.inf
    return picked


def plain_cosine(x: Tensor, n: int) -> list[int]:
    """Pick by the cosine."""
    x = torch.nn.functional.normalize(x)
    return plain(torch.ones_like(x[:, 0]), lambda row: x @ x[row], n, 1.0)


def plain_gradients(log_probs: Tensor, x: Tensor, n: int) -> list[int]:
    """Pick by the products of gradients."""
    u = log_probs.exp()
    u = u - torch.nn.functional.one_hot(u.argmax(1), u.shape[1])
    sq = u.square().sum(1) * x.square().sum(1)
    return plain(sq, lambda row: (u @ u[row]) * (x @ x[row]), n, 0.01 * float(sq.mean()))


def product(x: Tensor, n: int) -> None:
    """Multiply all rows with n of them, chunk by chunk."""
    centers = x[:n].T.contiguous()
    for chunk in x.split(4096):
        chunk @ centers
