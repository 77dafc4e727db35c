"""What labels say of each other through the draws of a posterior: mutual information by matrix products.

Given K draws, p_k(y) is the probability of an outcome y (a label of a row, or labels of several rows) under draw k, and
p(y) its mean over k. Its *lift* under k is p_k(y) / p(y): K times the belief that k is the true draw once y was seen.
The joint probability of two outcomes is

    p(y, z) = 1/K sum_k p_k(y) p_k(z) = p(y) p(z) R(y, z),   R = 1/K sum_k lift_k(y) lift_k(z),

so that their mutual information is the sum of p(y) p(z) R log R: one matrix product, and a logarithm and two
multiply-adds per entry of it. Unlike a difference of entropies this loses no digits where the information is small;
lifts lie between 0 and K however many rows an outcome speaks of; and what is left out of a sum can be bounded.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import SUM_TOLERANCE, ArrayLike, as_float
from torchal._chunks import values_per_chunk
from torchal.errors import DataError, ShapeError

# A product and its logarithms that stay in a core's own cache.
_CACHED_VALUES = 1 << 18
# The least lift that is computed with. So R is at least 1e-30, no logarithm is infinite, and R log R is off by 1e-13 at
# most. The alternative, xlogy, takes 13 times as long as log on a CPU.
LEAST_LIFT = 1e-15
_NEGLIGIBLE = 8  # roundings of 1: what a row's information may lose, in all, by classes that are left out


class Outcomes(NamedTuple):
    """Outcomes, each with its lift under every draw.

    Shapes:
        lifts: (Q, K) float, of mean 1 over K.
        probs: (Q,) float, the probability of the outcome; or its share of a weighted sum.
    """

    lifts: Tensor
    probs: Tensor


class Labels(NamedTuple):
    """The labels that rows may have, as outcomes.

    Shapes:
        lifts: (n, C, K) float.
        probs: (n, C) float.
        information: (n, C) float, what each label says of the draw: the mean over k of p_k log(p_k / p). Their sum
            over C is the mutual information between a row's label and the draw (BALD).
    """

    lifts: Tensor
    probs: Tensor
    information: Tensor

    def outcomes(self, n_rows: int) -> Outcomes:
        """Return the labels of all rows as outcomes of one sum, the mean over n_rows, of which these are some."""
        kept = self._matter()
        return Outcomes(self.lifts[kept], self.probs[kept] / n_rows)

    def shared_information(self, others: Outcomes) -> Tensor:
        """Return the mutual information between each row's label and other outcomes, (n,)."""
        kept = self._matter()
        parts = torch.zeros_like(self.probs)
        parts[kept] = self.probs[kept] * _divergences(self.lifts[kept], others)
        return parts.sum(1)

    def _matter(self) -> Tensor:
        # What a label says of other outcomes, it says through the draw: by the data processing inequality it is never
        # more than what it says of the draw itself. So labels that hardly tell draws apart, as those that a model rules
        # out, need not be looked at. On sure rows these are most.
        least = _NEGLIGIBLE * torch.finfo(self.probs.dtype).eps / self.probs.shape[1]
        return self.information > least


def as_draws(name: str, log_probs: ArrayLike) -> Tensor:
    """Return (N, K, C) floats with at least one draw and one class; what they are is checked when they are read."""
    log_probs = as_float(name, log_probs, ndim=3)
    if 0 in log_probs.shape[1:]:
        raise ShapeError(f"{name} must have at least one draw and one class, got shape {tuple(log_probs.shape)}")
    return log_probs


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the widest dtype of the tensors, and at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def rows_per_chunk(log_probs: Tensor) -> int:
    """Return how many rows (K, C) fit into a temporary."""
    return max(1, values_per_chunk(log_probs.device) // (log_probs.shape[1] * log_probs.shape[2]))


def labels_of(
    log_probs: Tensor, *, dtype: torch.dtype, name: str = "log_probs", rows: Tensor | range | None = None
) -> Labels:
    """Return the labels of some rows; the temporaries are of the size of log_probs.

    Args:
        log_probs: logarithms of probabilities; -inf is probability 0.
        dtype: what is computed in.
        name: what an error calls log_probs.
        rows: the numbers that an error gives to the rows, 0, 1, ... unless given.

    Shapes:
        log_probs: (n, K, C) float.

    Raises:
        DataError: a row's probabilities do not sum to 1 under some draw, or are NaN.
    """
    tolerance = SUM_TOLERANCE.get(log_probs.dtype, 1e-3)
    logs = log_probs.to(dtype)
    probs = logs.exp()
    sums = probs.sum(2, keepdim=True)
    off = ~((sums - 1).abs() <= tolerance)  # also true of NaN
    if bool(off.any()):
        row, draw, _ = off.nonzero()[0].tolist()
        raise DataError(
            f"{name} must hold logarithms of probabilities: row {row if rows is None else int(rows[row])} sums to "
            f"{float(sums[row, draw]):.4g} after exp under draw {draw}, not to 1"
        )
    # what a rounded input is off would grow with every row of a configuration
    logs, probs = logs - sums.log(), probs.div_(sums)
    means = probs.mean(1)
    # 0 log 0 = 0: -1000 is a probability of 0 in every dtype
    entropies = (probs * logs.clamp(min=-1000.0)).mean(1)
    information = (entropies - torch.xlogy(means, means)).clamp_(min=0)
    lifts = probs.div_(means.clamp(min=torch.finfo(dtype).tiny).unsqueeze(1)).clamp_(min=LEAST_LIFT)
    return Labels(lifts.transpose(1, 2).contiguous(), means, information)


def _divergences(lifts: Tensor, others: Outcomes) -> Tensor:
    """Return the sum over other outcomes of probs times R log R, for each outcome with lifts (Q, K), (Q,).

    Where the probabilities of the others sum to 1, it is how far, in nats, the outcome moves theirs (Kullback-Leibler).
    """
    n_outcomes, n_draws = lifts.shape
    total = lifts.new_zeros(n_outcomes)
    if not n_outcomes or not len(others.probs):
        return total
    values = _CACHED_VALUES if lifts.device.type == "cpu" else values_per_chunk(lifts.device)
    n_columns = min(len(others.probs), math.isqrt(values) * 2)  # a product is fastest where both sides are long
    n_rows = max(1, min(n_outcomes, values // n_columns))
    ratios, logs = lifts.new_empty(n_rows * n_columns), lifts.new_empty(n_rows * n_columns)
    for some_lifts, probs in zip(others.lifts.split(n_columns), others.probs.split(n_columns), strict=True):
        columns = (some_lifts / n_draws).T
        for start in range(0, n_outcomes, n_rows):
            some = lifts[start : start + n_rows]
            shape, size = (len(some), len(probs)), len(some) * len(probs)
            ratio, log = ratios[:size].view(shape), logs[:size].view(shape)
            torch.mm(some, columns, out=ratio)
            torch.log(ratio, out=log)
            total[start : start + n_rows] += log.mul_(ratio) @ probs
    return total
