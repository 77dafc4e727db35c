"""Batches drawn at random by the scores of single rows: the n largest of perturbed scores, on any scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchal._checks import as_float, check_positive
from torchal.errors import DataError

_LEAST_LOG = -745.0  # the logarithm of the smallest number above 0 in float64
_NOISE_SPAN = 41.0  # no two numbers of `_gumbel` are farther apart


def power_scores(scores: Tensor, *, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Return perturbed scores whose n largest are a batch drawn without replacement, with weights score^beta.

    For scores at which 0 says that a label tells nothing, as those of `bald` and `entropy`. Rows at 0 come after all
    others, in random order: the limit of equal scores that vanish.

    Args:
        scores: what a label of each row is worth.
        generator: its next N numbers are the noise, one for each row of the pool, whatever its score.
        beta: the larger, the more the batch is that of the highest scores; towards 0, a uniform draw.

    Shapes:
        scores: (N,) float, at least 0; -inf for rows that are not to be picked, which keep it.

    Returns:
        (N,) float64: beta log(score) plus Gumbel noise, to be given to `top_n`. The first pick is a row with
        probability score^beta / sum of score^beta, and so is each further one among the rows that are left.

    Raises:
        ConfigError: beta is not a number above 0.
        ShapeError: scores is not a float tensor of one axis.
        DataError: a score is negative, NaN or inf.

    Reference:
        Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron & Gal, "Stochastic Batch Acquisition: A Simple
        Baseline for Deep Active Learning", TMLR 2023, power acquisition. Their scores are log(score) plus noise of
        scale 1 / beta: the same order. What they leave open are rows at 0.

    Complexity:
        O(N).

    Example:
        >>> from torchal.functional import top_n
        >>> scores = torch.tensor([0.0, 2.0, 0.0, 1.0])
        >>> perturbed = power_scores(scores, generator=torch.Generator().manual_seed(0))
        >>> top_n(perturbed, 2).indices.sort().values
        tensor([1, 3])
    """
    values = _check(scores, beta, least=0.0)
    zero = beta * _LEAST_LOG - _NOISE_SPAN
    weights = torch.where(values == 0, zero, beta * values.clamp(min=0).log())
    return _perturbed(weights, values, generator)


def softmax_scores(scores: Tensor, *, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Return perturbed scores whose n largest are a batch drawn without replacement, with weights exp(beta score).

    The zero of the scores does not matter, but their scale does: a beta of 1 on scores between 0 and 1 is not far from
    a uniform draw.

    Args:
        scores: what a label of each row is worth.
        generator: its next N numbers are the noise, one for each row of the pool, whatever its score.
        beta: the larger, the more the batch is that of the highest scores; towards 0, a uniform draw.

    Shapes:
        scores: (N,) float; -inf for rows that are not to be picked, which keep it.

    Returns:
        (N,) float64: beta score plus Gumbel noise, to be given to `top_n`. The first pick is a row with probability
        exp(beta score) / sum of exp(beta score), and so is each further one among the rows that are left.

    Raises:
        ConfigError: beta is not a number above 0.
        ShapeError: scores is not a float tensor of one axis.
        DataError: a score is NaN or inf.

    Reference:
        Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron & Gal, "Stochastic Batch Acquisition: A Simple
        Baseline for Deep Active Learning", TMLR 2023, softmax acquisition. Their scores are these divided by beta.

    Complexity:
        O(N).

    Example:
        >>> from torchal.functional import top_n
        >>> scores = torch.tensor([-3.0, 2.0, -3.0, 1.0])
        >>> perturbed = softmax_scores(scores, beta=100, generator=torch.Generator().manual_seed(0))
        >>> top_n(perturbed, 2).indices
        tensor([1, 3])
    """
    values = _check(scores, beta)
    return _perturbed(beta * values, values, generator)


def softrank_scores(scores: Tensor, *, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Return perturbed scores whose n largest are a batch drawn without replacement, with weights rank^-beta.

    The highest score has rank 1. Only the order of the scores matters.

    Args:
        scores: what a label of each row is worth.
        generator: its next N numbers are the noise, one for each row of the pool, whatever its score.
        beta: the larger, the more the batch is that of the highest scores; towards 0, a uniform draw.

    Shapes:
        scores: (N,) float; -inf for rows that are not to be picked, which keep it and do not count in the ranks.

    Returns:
        (N,) float64: -beta log(rank) plus Gumbel noise, to be given to `top_n`. The first pick is a row with
        probability rank^-beta / sum of rank^-beta, and so is each further one among the rows that are left.

    Raises:
        ConfigError: beta is not a number above 0.
        ShapeError: scores is not a float tensor of one axis.
        DataError: a score is NaN or inf.

    Reference:
        Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron & Gal, "Stochastic Batch Acquisition: A Simple
        Baseline for Deep Active Learning", TMLR 2023, softrank acquisition. Their scores are these divided by beta.
        Equal scores, which they leave open, have the mean of their ranks, and so the same chance.

    Complexity:
        O(N log N): one sort.

    Example:
        >>> from torchal.functional import top_n
        >>> scores = torch.tensor([0.0, 2.0, 0.0, 1.0])
        >>> perturbed = softrank_scores(scores, beta=100, generator=torch.Generator().manual_seed(0))
        >>> top_n(perturbed, 2).indices
        tensor([1, 3])
    """
    values = _check(scores, beta)
    ascending = values.sort().values
    n_lower, n_up_to = (torch.searchsorted(ascending, values, right=right) for right in (False, True))
    ranks = len(values) - 0.5 * (n_lower + n_up_to - 1).double()
    return _perturbed(-beta * ranks.log(), values, generator)


def _check(scores: Tensor, beta: float, *, least: float = -math.inf) -> Tensor:
    """Return the scores in float64, in which a pool's many perturbed scores are rarely equal."""
    scores = as_float("scores", scores, ndim=1)
    check_positive("beta", beta)
    values = scores.detach().double()
    bad = ~((values >= least) & (values < math.inf) | (values == -math.inf))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        rule = "finite" if least == -math.inf else f"finite and at least {least:g}"
        raise DataError(
            f"scores must be {rule}, or -inf for rows that are not to be picked: "
            f"{int(bad.sum())} of {len(values)} rows are not, the first is row {row} with {float(values[row]):g}"
        )
    return values


def _perturbed(weights: Tensor, scores: Tensor, generator: torch.Generator) -> Tensor:
    """Return log-weights plus standard Gumbel noise; -inf where the score is."""
    uniform = torch.rand(len(weights), generator=generator, device=generator.device, dtype=torch.float64)
    uniform.clamp_(min=2.0**-54)  # 0 is drawn once in 2^53 times; 1 never
    noise = -(-uniform.log()).log()  # between -3.7 and 36.8
    return torch.where(scores == -math.inf, -math.inf, weights + noise.to(weights.device))
