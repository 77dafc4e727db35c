"""Gradients of a linear last layer at the labels that it predicts, as factors: residuals and features.

For logits W h + b and the predicted label y, the gradient of the cross-entropy is (p - onehot(y)) x h for the weights,
and p - onehot(y) for the bias.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from torchal._checks import check_distributions
from torchal.distributed import Shards
from torchal.engine.features import FeatureReader, Features
from torchal.engine.kronecker import KroneckerSpace, open_factors
from torchal.engine.sources import StreamedRows
from torchal.errors import ShapeError


def read_factors(
    log_probs: Features,
    features: Features,
    *,
    device: torch.device | str | None,
    chunk_rows: int | None,
    shards: Shards | None = None,
) -> tuple[FeatureReader, FeatureReader]:
    """Return readers of features and log_probs.

    Raises:
        ShapeError: one is no float matrix, or they disagree in rows or device.
    """
    right = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
    left = FeatureReader(log_probs, device=device, name="log_probs", takes_integers=False, shards=shards)
    if len(left) != len(right) or left.home != right.home:
        raise ShapeError(
            f"log_probs must be ({len(right)}, C) on {right.home}, as the features are, "
            f"got {(len(left), left.n_columns)} on {left.home}"
        )
    return right, left


def open_gradients(
    right: FeatureReader, left: FeatureReader, *, bias: bool, among: Tensor
) -> tuple[KroneckerSpace, StreamedRows]:
    """Return the space and the rows of the gradients; the arguments are those of `open_factors`.

    Raises:
        DataError: a number of the features is NaN or infinite; a row of log_probs does not sum to 1.
    """
    return open_factors(right, left, partial(residuals, dtype=left.dtype), constant=bias, among=among)


def residuals(log_probs: Tensor, start: int, *, dtype: torch.dtype) -> Tensor:
    """Return p - onehot(argmax p), (R, C), of rows that begin with row `start` and had this dtype."""
    probs = log_probs.exp()
    check_distributions(probs, dtype, first_row=start)
    on_cpu = log_probs.device.type == "cpu"  # where numpy's is several times faster
    best = torch.from_numpy(log_probs.numpy().argmax(1)) if on_cpu else log_probs.argmax(1)
    best = best.unsqueeze(1)
    others = probs.scatter_(1, best, 0).sum(1, keepdim=True)
    return probs.scatter_(1, best, -others)
