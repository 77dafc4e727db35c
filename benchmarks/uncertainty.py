"""Scores of a whole pool and the best rows of it, against the plain expressions."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.harness import Row, compare
from torchal import functional

ROWS = {"small": 100_000, "medium": 1_000_000, "large": 10_000_000}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time margin, entropy and top_n on N rows of 10 classes. The floor of each is one pass over its input."""
    n = ROWS[size]
    generator = torch.Generator(device).manual_seed(0)
    log_probs = torch.randn(n, 10, generator=generator, device=device).log_softmax(1)
    scores = log_probs[:, 0].contiguous()

    def sorted_margin() -> torch.Tensor:
        ordered = log_probs.sort(1).values
        return ordered[:, -2] - ordered[:, -1]

    yield from compare(
        f"margin, N={n}, C=10",
        {
            "ours": lambda: functional.margin(log_probs),
            "full sort": sorted_margin,
            "floor: one sum": log_probs.sum,
        },
        repeats=5,
        device=device,
    )
    yield from compare(
        f"entropy, N={n}, C=10",
        {
            "ours": lambda: functional.entropy(log_probs),
            "plain expression, unchecked": lambda: -(log_probs.exp() * log_probs).sum(1),
            "floor: one sum": log_probs.sum,
        },
        repeats=5,
        device=device,
    )
    yield from compare(
        f"top 1000 of N={n}, ties to the lowest row",
        {
            "ours": lambda: functional.top_n(scores, 1000),
            "stable sort": lambda: scores.sort(descending=True, stable=True).indices[:1000],
            "floor: topk, ties in any order": lambda: scores.topk(1000),
        },
        repeats=5,
        device=device,
    )
