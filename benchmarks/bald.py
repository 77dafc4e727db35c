"""Mutual information and votes of a whole pool's posterior draws, against the plain expressions."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.harness import Row, compare
from torchal import functional

SHAPES = {
    "small": [(5_000, 20, 100), (50_000, 20, 10)],
    "medium": [(100_000, 20, 100), (1_000_000, 20, 10)],
    "large": [(100_000, 20, 1000), (10_000_000, 20, 10)],
}


def _draws(shape: tuple[int, int, int], device: str) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(0)
    log_probs = torch.empty(shape, device=device)
    for some in log_probs.split(10_000):  # without a second copy of all
        some.copy_((2 * torch.randn(some.shape, generator=generator, device=device)).log_softmax(2))
    return log_probs


def _plain(log_probs: torch.Tensor) -> torch.Tensor:
    probs = log_probs.exp()
    entropies: torch.Tensor = torch.special.entr(probs.mean(1)).sum(1)
    return entropies + (probs * log_probs).sum((1, 2)) / log_probs.shape[1]


def rows(size: str, device: str) -> Iterator[Row]:
    """Time BALD, a batch by PowerBALD, and vote entropy. The floor of each is one reduction over its input."""
    for shape in SHAPES[size]:
        log_probs = _draws(shape, device)
        yield from _compared(log_probs, " x ".join(map(str, shape)), device)


def _compared(log_probs: torch.Tensor, shape: str, device: str) -> Iterator[Row]:
    generator = torch.Generator(device).manual_seed(0)
    yield from compare(
        f"bald, {shape}",
        {
            "ours": lambda: functional.bald(log_probs),
            "1000 rows by power_bald": lambda: functional.top_n(
                functional.power_bald(log_probs, generator=generator), 1000
            ),
            "plain expression, unchecked": lambda: _plain(log_probs),
            "floor: logsumexp over the draws": lambda: log_probs.logsumexp(1),
            "floor: logsumexp over the classes": lambda: log_probs.logsumexp(2),
        },
        repeats=3,
        device=device,
    )
    yield from compare(
        f"vote entropy, {shape}",
        {"ours": lambda: functional.vote_entropy(log_probs), "floor: argmax": lambda: log_probs.argmax(2)},
        repeats=3,
        device=device,
    )
