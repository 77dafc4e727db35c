"""ALFA-Mix, all mixes at once, against one forward pass per anchor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered, gaussian
from torchal.functional import alfa_mix, flip_eps

SIZES = {"small": (5000, 32), "medium": (1_000_000, 64), "large": (1_000_000, 64)}
CLASSES = 10
PICKS = 1000


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the eps at which labels flip, then the whole selection. The anchors are means of 30 rows."""
    n_rows, n_columns = SIZES[size]
    for name, make in (("gaussian", gaussian), ("clustered ReLU", clustered)):
        x = make(n_rows, n_columns)(torch.device(device))
        weight, bias = last_layer(n_columns, device)
        anchors = x[: 30 * CLASSES].view(CLASSES, 30, n_columns).mean(1)
        layer = {"weight": weight, "bias": bias, "anchors": anchors}
        yield from compare(
            f"ALFA-Mix flips, {name} {n_rows} x {n_columns}, {CLASSES} classes",
            {
                "ours": partial(flipped, x, 0.2, **layer),
                "floor: logits and distances": partial(torch.mm, x, torch.cat([weight, anchors]).T),
                "plain: a pass per anchor, one eps": partial(plain, x, 0.2, **layer),
            },
            repeats=3,
            device=device,
        )
        n = min(PICKS, n_rows // 10)
        yield from compare(
            f"ALFA-Mix, {name} {n_rows} x {n_columns}, {n} picks",
            {"ours": partial(picks, x, n, **layer)},
            repeats=1,
            device=device,
        )


def last_layer(n_columns: int, device: str) -> tuple[Tensor, Tensor]:
    """Return a weight and a bias."""
    generator = torch.Generator().manual_seed(1)
    weight = 0.2 * torch.randn(CLASSES, n_columns, generator=generator)
    return weight.to(device), torch.zeros(CLASSES, device=device)


def picks(x: Tensor, n: int, *, weight: Tensor, bias: Tensor, anchors: Tensor) -> Tensor:
    """Pick n rows."""
    generator = torch.Generator().manual_seed(0)
    return alfa_mix(x, n, weight=weight, bias=bias, anchors=anchors, generator=generator).indices


def flipped(x: Tensor, eps: float, *, weight: Tensor, bias: Tensor, anchors: Tensor) -> Tensor:
    """Tell which rows flip."""
    return flip_eps(x, weight=weight, bias=bias, anchors=anchors) < eps


def plain(x: Tensor, eps: float, *, weight: Tensor, bias: Tensor, anchors: Tensor) -> Tensor:
    """Tell which rows flip, by the gradient of the loss and a forward pass of the mixed rows for each anchor."""
    leaf = x.clone().requires_grad_()
    logits = torch.nn.functional.linear(leaf, weight, bias)
    label = logits.argmax(1)
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, label, reduction="sum"), leaf)
    found = torch.zeros_like(label, dtype=torch.bool)
    for anchor in anchors:
        way = anchor - x
        size = eps / x.shape[1] ** 0.5 * way.norm(dim=1, keepdim=True) / gradient.norm(dim=1, keepdim=True)
        alpha = size * gradient / (way + 1e-8)
        mixed = (1 - alpha) * x + alpha * anchor
        found |= torch.nn.functional.linear(mixed, weight, bias).argmax(1) != label
    return found
