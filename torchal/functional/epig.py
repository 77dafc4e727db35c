"""Expected predictive information gain: what a label would say of the predictions that matter."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import ArrayLike
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.information import Outcomes, as_draws, compute_dtype, labels_of, rows_per_chunk
from torchal.errors import ShapeError


def epig(pool_log_probs: ArrayLike, target_log_probs: ArrayLike) -> Tensor:
    """Return how much each row's label is expected to say of the labels of target rows, in nats.

    BALD asks what a label says of the model. A model of many parameters has much to learn that no prediction of
    interest depends on; here only that counts which bears on the targets, a sample of the inputs that predictions will
    be asked for. The k-th draw must be the same function for pool and targets.

    Shapes:
        pool_log_probs: (N, K, C) float, natural logarithms of class probabilities under K draws from the posterior;
            -inf is probability 0.
        target_log_probs: (M, K, C) float, of the target rows, under the same draws.

    Returns:
        (N,), the mean over the targets of the mutual information between the two labels: between 0 and log(C) up to the
        rounding of the input; float32 for half-precision input. With one draw, or one class, all are 0. Equal rows may
        differ in the last digits, as rows of a matrix product do.

    Raises:
        ShapeError: an input is no float tensor of three axes, they disagree in draws or device, or there are no
            targets.
        DataError: a row does not sum to 1 (within 1e-3; 0.01 in float16, 0.1 in bfloat16), as when probabilities are
            given in place of their logarithms.

    Reference:
        Bickford Smith, Kirsch, Farquhar, Gal, Foster & Rainforth, "Prediction-Oriented Bayesian Active Learning",
        AISTATS 2023, its estimator for classification, of the same draws for both labels. Deviation: labels that say
        next to nothing of the draw are left out. A score is lower by at most 8 roundings of 1 for those of the row and
        as much for those of the targets, 2e-6 in all in float32.

    Complexity:
        N M C^2 (K multiply-adds and one logarithm), less what is left out; M K C numbers of memory for the targets, and
        chunks.

    Example:
        >>> pool = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]])  # two draws; row 1 is noise
        >>> target = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> epig(pool.log(), target.log())
        tensor([0.3681, 0.0000])
    """
    pool_log_probs = as_draws("pool_log_probs", pool_log_probs)
    target_log_probs = as_draws("target_log_probs", target_log_probs)
    if pool_log_probs.shape[1] != target_log_probs.shape[1] or pool_log_probs.device != target_log_probs.device:
        raise ShapeError(
            "pool and targets must have the same draws on the same device, got "
            f"{pool_log_probs.shape[1]} on {pool_log_probs.device} and "
            f"{target_log_probs.shape[1]} on {target_log_probs.device}"
        )
    if not len(target_log_probs):
        raise ShapeError("target_log_probs must have at least one row, got none")
    dtype = compute_dtype(pool_log_probs, target_log_probs)
    scores = torch.empty(len(pool_log_probs), dtype=dtype, device=pool_log_probs.device)
    with exact_arithmetic(pool_log_probs.device):
        targets = _target_outcomes(target_log_probs, dtype)
        size = rows_per_chunk(pool_log_probs)
        for start in range(0, len(scores), size):
            some, rows = pool_log_probs[start : start + size], range(start, start + size)
            labels = labels_of(some, dtype=dtype, name="pool_log_probs", rows=rows)
            scores[start : start + size] = labels.shared_information(targets)
    return scores


def epig_of_targets(log_probs: Tensor) -> Tensor:
    """Return how much each target row's own label is expected to say of the labels of the other targets, in nats.

    Targets that are drawn from the rows to pick from are rows to pick from themselves. A second label of the same row
    is told by the first far better than those of other rows are: were it among a row's targets, it would be picked for
    that alone.

    Shapes:
        log_probs: (M, K, C) float, as of `epig`.

    Returns:
        (M,), as of `epig`; 0 for a single target.

    Raises:
        ShapeError, DataError: as of `epig`.

    Reference:
        See `epig`. Leaving a row out of its own targets is what estimates the same mean, over rows drawn at random, for
        targets as for all others.

    Complexity:
        That of `epig` for M rows and M targets, and M K C^2 multiply-adds.

    Example:
        >>> probs = [[[0.9, 0.1], [0.1, 0.9]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]
        >>> epig_of_targets(torch.tensor(probs).log())  # half of what the first two say of each other
        tensor([0.1840, 0.1840, 0.0000])
    """
    n_targets = len(log_probs)
    scores = epig(log_probs, log_probs)
    if n_targets == 1:
        return scores.zero_()
    with exact_arithmetic(log_probs.device):
        n_classes = log_probs.shape[2]
        size = max(1, values_per_chunk(log_probs.device) // (n_classes * max(n_classes, log_probs.shape[1])))
        for start in range(0, n_targets, size):
            labels = labels_of(log_probs[start : start + size], dtype=scores.dtype)
            ratio = labels.lifts @ labels.lifts.transpose(1, 2) / labels.lifts.shape[2]  # (m, C, C)
            own = torch.einsum("mc,md,mcd->m", labels.probs, labels.probs, ratio.mul_(ratio.log()))
            some = scores[start : start + size]
            some.mul_(n_targets).sub_(own).div_(n_targets - 1).clamp_(min=0)
    return scores


def _target_outcomes(log_probs: Tensor, dtype: torch.dtype) -> Outcomes:
    """Return all labels of the target rows, each with its share of the mean over the targets."""
    size, parts = rows_per_chunk(log_probs), []
    for start in range(0, len(log_probs), size):
        some, rows = log_probs[start : start + size], range(start, start + size)
        parts.append(labels_of(some, dtype=dtype, name="target_log_probs", rows=rows).outcomes(len(log_probs)))
    return Outcomes(*(torch.cat(part) for part in zip(*parts, strict=True)))
