"""Scores of posterior draws, which are too many numbers to hold for all rows at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchal.errors import CapabilityError
from torchal.pool.view import PoolView

_VALUES_HELD = 1 << 25  # log-probabilities held at once: 128 MiB, so that a network's batches are not small


def score_draws(view: PoolView, k: int, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Return scores (N,) of the view's candidates under k posterior draws, computed chunk by chunk; -inf for the rest.

    Args:
        view: its model has a posterior.
        k: draws; the same for all chunks.
        score: makes scores (n,) of log-probabilities (n, K, C), each row by itself.
    """
    rows = view.candidates.nonzero().squeeze(1)
    size = max(1, _VALUES_HELD // (k * len(view.classes)))
    scores = [score(view.posterior_log_probs_of(some, k)) for some in rows.split(size)]
    out = scores[0].new_full((len(view),), -torch.inf)
    out[rows] = torch.cat(scores)
    return out


def draws_to_compare(view: PoolView, k: int) -> int:
    """Return how many posterior draws a sampler that wants k gets: k, or all members of an ensemble that has fewer.

    Raises:
        CapabilityError: there are fewer than two, which leaves nothing to compare.
    """
    n_draws = k if view.max_draws is None else min(k, view.max_draws)
    if n_draws < 2:
        raise CapabilityError(f"posterior draws are compared with each other, and there is only {n_draws}")
    return n_draws
