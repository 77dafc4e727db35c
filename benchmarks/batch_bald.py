"""BatchBALD by stale bounds, against every gain computed anew for every pick."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from torchal import functional

# rows, draws, classes, picks, configurations
SIZES = {
    "small": (500, 20, 4, 5, 500),
    "medium": (20_000, 100, 10, 10, 10_000),
    "large": (20_000, 100, 10, 10, 100_000),
}
PLAIN_ROWS = {"small": 500, "medium": 500, "large": 50}  # of the plain loop, whose time is in proportion to its rows


def posterior_draws(n_rows: int, n_draws: int, n_classes: int, *, device: str) -> Tensor:
    """Return log-probabilities (N, K, C) by linear models of 16 columns, drawn around one."""
    generator = torch.Generator(device).manual_seed(0)
    features = torch.randn(n_rows, 16, generator=generator, device=device)
    mean = torch.randn(16, n_classes, generator=generator, device=device) / 2
    out = torch.empty(n_rows, n_draws, n_classes, device=device)
    for draw in range(n_draws):
        weights = mean + torch.randn(16, n_classes, generator=generator, device=device) / 4
        out[:, draw] = (features @ weights).log_softmax(1)
    return out


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the batch; the floor is one look at every row, its BALD."""
    n_rows, n_draws, n_classes, n, most = SIZES[size]
    log_probs = posterior_draws(n_rows, n_draws, n_classes, device=device)
    generator = torch.Generator(device)

    def ours() -> object:
        return functional.batch_bald(log_probs, n, generator=generator.manual_seed(0), max_configurations=most)

    few = PLAIN_ROWS[size]
    candidates = {
        "ours": ours,
        "floor: the probabilities and entropies": lambda: (log_probs.exp() * log_probs).sum((1, 2)),
        f"plain loop, {few} rows": lambda: plain_loop(log_probs[:few], n, most),
    }
    plain = f"plain loop, {few} rows"
    note = f"of all rows: {n_rows / few:g} times as long"
    work = f"batch of {n}, N={n_rows}, K={n_draws}, C={n_classes}, {most} configurations"
    yield from compare(work, candidates, repeats=3, device=device, once=[plain], notes={plain: note})


def plain_loop(log_probs: Tensor, n: int, most: int) -> list[int]:
    """Pick by the joint entropy of each row and the batch; where there are too many configurations, of drawn ones."""
    probs = log_probs.exp()
    n_draws = probs.shape[1]
    given_draw = torch.special.entr(probs).sum(2).mean(1)
    joint = probs.new_ones(1, n_draws)  # probabilities of configurations (M, K)
    proposal = probs.new_ones(1)
    picks: list[int] = []
    for _ in range(n):
        gains = torch.empty(len(probs), device=probs.device)
        for row in range(len(probs)):
            both = joint @ probs[row] / n_draws  # (M, C)
            gains[row] = -(torch.xlogy(both, both).sum(1) / proposal).sum() - given_draw[row]
        gains[picks] = -math.inf
        pick = int(gains.argmax())
        picks.append(pick)
        joint = (joint.unsqueeze(2) * probs[pick]).transpose(1, 2).reshape(-1, n_draws)
        proposal = proposal.repeat_interleave(probs.shape[2])
        if len(joint) > most:
            weights = joint.mean(1)
            drawn = (weights / proposal).multinomial(most, replacement=True)
            share = (weights / proposal)[drawn] / (weights / proposal).sum()
            joint, proposal = joint[drawn], proposal[drawn] * share * most
    return picks
