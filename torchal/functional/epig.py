"""Expected predictive information gain: what a label would say of the predictions that matter."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._chunks import exact_arithmetic
from torchal.engine.information import Outcomes, check_draws, compute_dtype, labels_of, rows_per_chunk
from torchal.errors import ShapeError


def epig(pool_log_probs: Tensor, target_log_probs: Tensor) -> Tensor:
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
        rounding of the input; float32 for half-precision input. With one draw, or one class, all are 0.

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
    check_draws("pool_log_probs", pool_log_probs)
    check_draws("target_log_probs", target_log_probs)
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


def _target_outcomes(log_probs: Tensor, dtype: torch.dtype) -> Outcomes:
    """Return all labels of the target rows, each with its share of the mean over the targets."""
    size, parts = rows_per_chunk(log_probs), []
    for start in range(0, len(log_probs), size):
        some, rows = log_probs[start : start + size], range(start, start + size)
        parts.append(labels_of(some, dtype=dtype, name="target_log_probs", rows=rows).outcomes(len(log_probs)))
    return Outcomes(*(torch.cat(part) for part in zip(*parts, strict=True)))
