"""Contrastive examples: rows that the model predicts otherwise than the labeled rows beside them."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_log_probs, as_mask, check_distributions, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.distances import Metric
from torchal.engine.features import FeatureReader, Features
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.neighbors import nearest_among


def contrastive(
    log_probs: ArrayLike,
    features: Features,
    *,
    labeled: ArrayLike,
    k: int = 10,
    metric: Metric = "euclidean",
    eps: float = 1e-7,
) -> Tensor:
    r"""Return how far a row's prediction diverges from those of the labeled rows nearest to it.

    The score is the mean of KL(p_l || p_x) over the k nearest labeled rows l of a row x: the sum of p_l log p_l, less
    that of p_l log p_x. The mean goes into both sums, so k divergences cost one.

    Args:
        log_probs: of the model's predictions.
        features: where neighbours are near.
        labeled: the rows that can be neighbours. Their own scores mean little: each is among its neighbours.
        k: neighbours; all labeled rows, where there are fewer.
        metric: euclidean, cosine or manhattan.
        eps: smaller probabilities count as eps, before a row is scaled to the sum 1 again; or one label that is
            impossible by x and not by l would make every score infinite, and all those rows equal.

    Shapes:
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        features: (N, D) float, on the same device; a tensor or a mapped file.
        labeled: (N,) bool, on the same device.

    Returns:
        (N,), at least 0, in the dtype of log_probs and at least float32; computed in float64.

    Raises:
        ConfigError: k is not at least 1, eps is not above 0 and at most 0.1, or an unknown metric.
        ShapeError: log_probs or features is no float matrix, or the tensors disagree in rows, dtype or device.
        DataError: no row is labeled; a row of log_probs does not sum to 1 after exp; features that are not finite, or
            a row of zeros with cosine distances.

    Reference:
        Margatina, Vernikos, Barrault & Aletras, "Active Learning by Acquiring Contrastive Examples", EMNLP 2021,
        Algorithm 1. There, nothing is said of probabilities near 0.

    Complexity:
        N L D multiply-adds for L labeled rows, and N (k + 1) C for the divergences; O(N k + L (C + D)) memory
        beyond the input, and chunks.

    Example:
        >>> log_probs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]).log()
        >>> features = torch.tensor([[0.0], [1.0], [2.0]])
        >>> contrastive(log_probs, features, labeled=torch.tensor([True, False, False]))
        tensor([0.0000, 0.0000, 0.5108])
    """
    check_contrast(k, eps)
    log_probs = as_log_probs(log_probs)
    n_rows, n_classes = log_probs.shape
    reader = FeatureReader(features)
    if n_rows != len(reader) or log_probs.device != reader.device:
        raise ShapeError(
            f"log_probs must be ({len(reader)}, C) on {reader.device}, "
            f"got {tuple(log_probs.shape)} on {log_probs.device}"
        )
    labeled = as_mask("labeled", labeled, n_rows=n_rows, device=log_probs.device)
    rows = labeled.nonzero().squeeze(1)
    if not len(rows):
        raise DataError(f"neighbours are labeled rows, and none of {n_rows} rows is labeled")
    near = nearest_among(features, min(k, len(rows)), among=labeled, metric=metric).indices
    place = torch.empty(n_rows, dtype=torch.int64, device=log_probs.device)
    place[rows] = torch.arange(len(rows), device=log_probs.device)
    out = torch.empty(n_rows, dtype=torch.promote_types(log_probs.dtype, torch.float32), device=log_probs.device)
    with exact_arithmetic(log_probs.device):
        probs = torch.empty(len(rows), n_classes, dtype=torch.float64, device=log_probs.device)
        negentropy = torch.empty(len(rows), dtype=torch.float64, device=log_probs.device)
        size = max(1, values_per_chunk(log_probs.device) // n_classes)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            logs = _floored(log_probs[rows[part]], eps)
            probs[part] = logs.exp()
            negentropy[part] = (probs[part] * logs).sum(1)
        size = max(1, values_per_chunk(log_probs.device) // max(n_classes, near.shape[1]))
        for start in range(0, n_rows, size):
            part = slice(start, start + size)
            some = log_probs[part]
            check_distributions(some.double().exp(), some.dtype, first_row=start)
            beside = place[near[part]]
            mean = torch.nn.functional.embedding_bag(beside, probs, mode="mean")
            cross = (mean * _floored(some, eps)).sum(1)
            out[part] = (negentropy[beside].mean(1) - cross).clamp_(min=0)
    return out


def _floored(log_probs: Tensor, eps: float) -> Tensor:
    """Return the logarithms (R, C) of probabilities of at least eps, scaled to the sum 1, in float64."""
    floored = log_probs.detach().double().clamp(min=math.log(eps))
    return floored.sub_(floored.logsumexp(1, keepdim=True))


def check_contrast(k: object, eps: object) -> None:
    """Require settings of `contrastive` that make sense.

    Raises:
        ConfigError: k is no whole number of at least 1, or eps is not above 0 and at most 0.1.
    """
    check_whole("k", k, least=1)
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 < float(eps) <= 0.1:
        raise ConfigError(f"eps must be a number above 0 and at most 0.1, got {eps!r}")
