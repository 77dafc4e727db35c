"""How much the members of a committee, or draws of a posterior, disagree on each row.

The entropy of the members' mean prediction, sometimes listed here too, is no disagreement: it is high as well where all
members are equally unsure. It is `entropy` of that mean, the log-probabilities of an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchal._checks import SUM_TOLERANCE, ArrayLike
from torchal._chunks import exact_arithmetic
from torchal.engine.information import as_draws, rows_per_chunk
from torchal.errors import DataError
from torchal.functional.bald import bald

_UNIT = 2.0**-40  # parts of an entropy are whole multiples of it, so that their sum is exact in any order


def vote_entropy(log_probs: ArrayLike) -> Tensor:
    """Return the entropy of the members' votes, in nats; each votes for its most probable class.

    There are few values that it can take, so rows are often equal.

    Shapes:
        log_probs: (N, M, C) float, natural logarithms of the probabilities that M members give; -inf is probability 0.
            A member's vote goes to the lowest of equally probable classes.

    Returns:
        (N,), between 0 and log(min(M, C)). Rows whose votes are shared out alike, to whichever classes, have the same
        value to the last bit. float32 for half-precision input.

    Raises:
        ShapeError: log_probs is not a float tensor of three axes, or has no member or no class.
        DataError: a member's most probable class has no probability, one above 1, or NaN.

    Reference:
        Dagan & Engelson, "Committee-Based Sampling for Training Probabilistic Classifiers", ICML 1995; in the form of
        Settles, "Active Learning Literature Survey", 2009, section 3.2: not divided by its largest value, which
        changes no order.

    Complexity:
        One pass over log_probs; O(N) memory.

    Example:
        >>> members = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]).log()
        >>> vote_entropy(torch.stack([members[[0, 1]], members[[0, 2]]]))
        tensor([0.0000, 0.6931])
    """
    log_probs = as_draws("log_probs", log_probs)
    n_members = log_probs.shape[1]
    shares = torch.arange(n_members + 1, dtype=torch.float64, device=log_probs.device) / n_members
    parts = (torch.special.entr(shares) / _UNIT).round() * _UNIT
    return _per_counts(log_probs, lambda counts: parts[counts].sum(1))


def variation_ratio(log_probs: ArrayLike) -> Tensor:
    """Return the share of the members' votes that are not for the class with most of them.

    There are few values that it can take, so rows are often equal.

    Shapes:
        log_probs: (N, M, C) float, natural logarithms of the probabilities that M members give; -inf is probability 0.
            A member's vote goes to the lowest of equally probable classes.

    Returns:
        (N,), between 0 and 1 - 1 / min(M, C); float32 for half-precision input.

    Raises:
        ShapeError: log_probs is not a float tensor of three axes, or has no member or no class.
        DataError: a member's most probable class has no probability, one above 1, or NaN.

    Reference:
        Freeman, "Elementary Applied Statistics", 1965; of the votes of a network's posterior draws in Gal, Islam &
        Ghahramani, "Deep Bayesian Active Learning with Image Data", ICML 2017, section 4.

    Complexity:
        One pass over log_probs; O(N) memory.

    Example:
        >>> members = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]).log()
        >>> variation_ratio(torch.stack([members[[0, 1]], members[[0, 2]]]))
        tensor([0.0000, 0.5000])
    """
    log_probs = as_draws("log_probs", log_probs)
    n_members = log_probs.shape[1]
    return _per_counts(log_probs, lambda counts: (n_members - counts.amax(1)).double() / n_members)


def consensus_kl(log_probs: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the members' predictions from their mean, in nats.

    This is the mutual information of `bald`, with the members as draws: the same numbers under the name that they have
    for committees.

    Shapes:
        log_probs: (N, M, C) float, natural logarithms of the probabilities that M members give; -inf is probability 0.

    Returns:
        (N,), between 0 and log(min(M, C)); exactly 0 where all members say the same. float32 for half-precision input.

    Raises:
        ShapeError, DataError: as `bald`.

    Reference:
        McCallum & Nigam, "Employing EM and Pool-Based Active Learning for Text Classification", ICML 1998:
        their KL divergence to the mean, without the density of a row that they multiply it by.

    Complexity:
        That of `bald`.

    Example:
        >>> members = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).log()
        >>> consensus_kl(torch.stack([members[[0, 1]], members[[0, 2]]]))
        tensor([0.0000, 0.6931])
    """
    return bald(log_probs)


def _per_counts(log_probs: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Return score(counts) of how many members vote for each class, (n, C) int64, chunk by chunk."""
    n_rows, _, n_classes = log_probs.shape
    scores = log_probs.new_empty(n_rows, dtype=torch.promote_types(log_probs.dtype, torch.float32))
    bad = torch.empty(n_rows, dtype=torch.bool, device=log_probs.device)
    limit = SUM_TOLERANCE.get(log_probs.dtype, 1e-3)
    size = rows_per_chunk(log_probs)
    with exact_arithmetic(log_probs.device):
        for start in range(0, n_rows, size):
            rows = slice(start, start + size)
            best = log_probs[rows].max(2)  # of equal ones the first
            counts = best.indices.new_zeros(len(best.indices), n_classes)
            counts.scatter_add_(1, best.indices, torch.ones_like(best.indices))
            scores[rows] = score(counts)
            bad[rows] = ~((best.values <= limit) & (best.values > -torch.inf)).all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        largest = log_probs[row].amax(1)
        member = int((~((largest <= limit) & (largest > -torch.inf))).nonzero()[0])
        raise DataError(
            "log_probs must hold logarithms of probabilities: "
            f"the largest that member {member} gives row {row} is {float(largest[member]):.4g}"
        )
    return scores
