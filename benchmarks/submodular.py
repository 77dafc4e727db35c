"""Facility location and herding against the plain greedy on all similarities, and the products it starts from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import facility_location, max_herding, similar

SIZES = {"small": (1000, 32, 50), "medium": (5000, 512, 100), "large": (5000, 512, 100)}
PAIRS = {"small": (2000, 32, 50), "medium": (20_000, 512, 200), "large": (20_000, 512, 200)}
_PLAIN = 5  # picks of the plain loop where more would take minutes


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the picks where all similarities are held, and where they are not; and those that are like a query."""
    n_rows, n_columns, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    same = max_herding(x, n).indices.tolist() == plain(_kernels(x), n)
    yield from compare(
        f"max_herding {n_rows} x {n_columns}, {n} picks",
        {"ours": lambda: max_herding(x, n), "plain loop, all kernels": lambda: plain(_kernels(x), n)},
        repeats=3,
        device=device,
        notes={"ours": "the same picks" if same else "OTHER PICKS"},
    )
    n_rows, n_columns, n = PAIRS[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    part = max(64, (1 << 22) // n_rows)

    def products() -> None:
        for start in range(0, n_rows, part):
            torch.mm(x[start : start + part], x[start:].T)  # each pair once

    few = f"plain loop, {_PLAIN} picks"
    table = _cosines(x)
    same = facility_location(x, _PLAIN).indices.tolist() == plain(table, _PLAIN)
    yield from compare(
        f"facility_location {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: facility_location(x, n),
            "floor: one product of each pair": products,
            few: lambda: plain(table, _PLAIN),
        },
        repeats=2,
        device=device,
        notes={"ours": "the same picks" if same else "OTHER PICKS", few: "without its products"},
    )
    query = x[:100].clone()
    yield from compare(
        f"similar, flqmi of 100 rows, {n_rows} x {n_columns}, {n} picks",
        {"ours": lambda: similar(x, n, measure="flqmi", query=query)},
        repeats=2,
        device=device,
    )


def plain(table: Tensor, n: int) -> list[int]:
    """Pick with one pass over a matrix of all similarities per pick."""
    value = table.new_zeros(len(table))
    picked: list[int] = []
    for _ in range(n):
        gain = (table - value).clamp_(min=0).sum(1)
        gain[picked] = -1
        picked.append(int(gain.argmax()))
        value = torch.maximum(value, table[picked[-1]])
    return picked


def _cosines(x: Tensor) -> Tensor:
    x = torch.nn.functional.normalize(x)
    return (x @ x.T).clamp_(min=0)


def _kernels(x: Tensor) -> Tensor:
    x = torch.nn.functional.normalize(x)
    return (x @ x.T).mul_(2).sub_(2).exp_()
