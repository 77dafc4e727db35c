"""Expected gradient length against one gradient per row and label."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.alfa_mix import CLASSES, SIZES, last_layer
from benchmarks.harness import Row, compare
from benchmarks.k_center import gaussian
from torchal.functional import expected_gradient_length


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the scores. The loop by gradients is timed on a hundredth of the rows; its note says so."""
    n_rows, n_columns = SIZES[size]
    x = gaussian(n_rows, n_columns)(torch.device(device))
    weight, bias = last_layer(n_columns, device)
    log_probs = torch.nn.functional.linear(x, weight, bias).log_softmax(1)
    some = slice(0, n_rows // 100)
    yield from compare(
        f"expected gradient length, {n_rows} x {n_columns}, {CLASSES} classes",
        {
            "ours": lambda: expected_gradient_length(log_probs, x),
            "floor: one sum of each": lambda: (log_probs.sum(), x.sum()),
            "plain: gradients, 1 % of the rows": lambda: plain(log_probs[some], x[some]),
        },
        repeats=3,
        device=device,
    )


def plain(log_probs: Tensor, x: Tensor) -> Tensor:
    """Return the scores by gradients (R, C, D + 1), one label after the other."""
    probs = log_probs.exp()
    inputs = torch.cat([x, x.new_ones(len(x), 1)], 1)
    out = torch.zeros_like(probs[:, 0])
    for label in range(probs.shape[1]):
        residual = probs.clone()
        residual[:, label] -= 1
        gradient = residual.unsqueeze(2) * inputs.unsqueeze(1)
        out += probs[:, label] * gradient.flatten(1).norm(dim=1)
    return out
