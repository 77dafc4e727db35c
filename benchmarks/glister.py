"""GLISTER against a pass over the pool for each pick, on the factors of the gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import glister

SIZES = {"small": (2000, 32, 50, 100), "medium": (50_000, 512, 100, 1000), "large": (1_000_000, 64, 1000, 1000)}
CLASSES = 10
LEARNING_RATE = 1e-3


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the whole, and the loop, which keeps C numbers for each row."""
    n_rows, n_columns, n, n_validation = SIZES[size]
    x = torch.nn.functional.normalize(clustered(n_rows + n_validation, n_columns)(torch.device(device)))
    generator = torch.Generator().manual_seed(0)
    weight = (4 * torch.randn(CLASSES, n_columns, generator=generator)).to(x.device)
    targets = torch.randint(CLASSES, (n_validation,), generator=generator).to(x.device)
    x, held = x[:n_rows], x[n_rows:]
    bias = torch.zeros(CLASSES, device=x.device)
    loop = "plain: a pass a pick"
    yield from compare(
        f"GLISTER, {n_rows} x {n_columns}, {CLASSES} classes, {n_validation} validation rows, {n} picks",
        {
            "ours": lambda: glister(
                x,
                n,
                weight=weight,
                bias=bias,
                validation_features=held,
                validation_targets=targets,
                learning_rate=LEARNING_RATE,
            ),
            loop: lambda: plain(x, n, weight, held, targets),
        },
        repeats=1 if size == "large" else 3,
        device=device,
        once=[loop] if size == "large" else [],
    )


def plain(x: Tensor, n: int, weight: Tensor, held: Tensor, targets: Tensor) -> list[int]:
    """Compute all gains after each pick."""
    u = (x @ weight.T).softmax(1)
    u = u - one_hot(u.argmax(1), CLASSES)
    logits, labels = held @ weight.T, one_hot(targets, CLASSES)
    free = torch.ones(len(x), dtype=torch.bool, device=x.device)
    picked = []
    for _ in range(n):
        v = (logits.softmax(1) - labels) / len(held)
        gains = (u * torch.addmm(v.sum(0), x, held.T @ v)).sum(1).masked_fill_(~free, -torch.inf)
        row = int(gains.argmax())
        free[row] = False
        logits = logits - LEARNING_RATE * torch.outer(held @ x[row] + 1, u[row])
        picked.append(row)
    return picked
