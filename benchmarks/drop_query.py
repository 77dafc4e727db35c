"""DropQuery against dropout as a module, and what its random numbers alone take."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.alfa_mix import PICKS, SIZES, last_layer
from benchmarks.harness import Row, compare
from benchmarks.k_center import gaussian
from torchal.functional import drop_query, dropout_disagreement


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the disagreement under three masks, then the whole selection."""
    n_rows, n_columns = SIZES[size]
    x = gaussian(n_rows, n_columns)(torch.device(device))
    weight, bias = last_layer(n_columns, device)
    generator = torch.Generator(device).manual_seed(0)

    def draws() -> None:
        for _ in range(3):
            torch.rand(x.shape, generator=generator, device=device)

    yield from compare(
        f"DropQuery disagreement, {n_rows} x {n_columns}, {len(weight)} classes, 3 masks",
        {
            "ours": lambda: dropout_disagreement(x, weight=weight, bias=bias, generator=generator),
            "floor: the draws alone": draws,
            "plain: dropout, logits, argmax": lambda: plain(x, weight, bias),
        },
        repeats=3,
        device=device,
    )
    n = min(PICKS, n_rows // 10)
    yield from compare(
        f"DropQuery, {n_rows} x {n_columns}, {n} picks",
        {"ours": lambda: drop_query(x, n, weight=weight, bias=bias, generator=torch.Generator().manual_seed(0))},
        repeats=1,
        device=device,
    )


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the disagreement by three passes over all rows."""
    label = torch.nn.functional.linear(x, weight, bias).argmax(1)
    changed = torch.zeros_like(label)
    for _ in range(3):
        dropped = torch.nn.functional.dropout(x, 0.75, training=True)
        changed += torch.nn.functional.linear(dropped, weight, bias).argmax(1) != label
    return changed / 3
