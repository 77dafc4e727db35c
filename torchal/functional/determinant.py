"""Greedy maximum determinant: rows that are long and unlike each other, as a determinantal point process wants them."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_flag, check_positive
from torchal._chunks import exact_arithmetic
from torchal.engine.distances import CosineSpace, Space, survey
from torchal.engine.features import FeatureReader, Features
from torchal.engine.gradients import open_gradients, read_factors
from torchal.engine.sources import StreamedRows
from torchal.engine.variances import KernelPosterior, LinearPosterior, VariancePool, pick_variances
from torchal.errors import ConfigError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection

DetKernel: TypeAlias = Literal["cosine", "linear"]

_SHORTEST_SQ = 1e-30  # below which squares of float32 lose digits


def log_det(
    features: Features,
    n: int,
    *,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    kernel: DetKernel = "cosine",
    ridge: float = 1.0,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row that raises the log-determinant of the picks' kernel matrix the most.

    The gain of a row is the logarithm of its conditional variance: of what the picks before it, and the labeled rows,
    leave unexplained of it, and the ridge. With a ridge of at least 1 no gain is negative, and the sum of the gains is
    at least 1 - 1/e of the largest that any n rows have. The picks are those of the plain greedy algorithm, one by one,
    but made in blocks (`torchal.engine.variances`).

    A row of zeros, as a blank image or a document without a known word is, has no variance, by the cosine neither,
    which is 0 with every row, also with itself: its gain is that of the ridge alone, the lowest there is.

    Ties of equal rows go to the lowest. Where the variances of different rows are closer than rounding, either may come
    first: closer than 4 (D + 4) e k(x, x), with e = 2^-23 for float32, 2^-52 for float64.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to pick.
        labeled: rows that are known already, as if they had been picked before.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        kernel: cosine; or linear, x^T y, divided by its mean k(x, x) over all rows, so that only the ratios of lengths
            count.
        ridge: what is added to k(x, x), which is 1 on average (by the cosine, 1 but for rows of zeros): the variance of
            noise. The smaller, the less is a row worth that is a combination of picks. It counts as at least
            4 (D + 4) e times the largest k(x, x).
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the gain of each. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features is no float matrix, or a mask disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite.
        ConfigError: an unknown kernel, or a ridge that is not above 0.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Chen, Zhang & Zhou, "Fast Greedy MAP Inference for Determinantal Point Process to Improve Recommendation
        Diversity", NeurIPS 2018, Algorithm 1. There every pick is one pass over all rows, and N n numbers are kept; it
        ends when a gain is not positive. With the linear kernel: Holzmueller, Zaverkin, Kaestner & Steinwart, "A
        Framework and Benchmark for Deep Batch Active Learning for Regression", JMLR 2023, MaxDet, section 4.2.4; there
        kernels are scaled by the mean k(x, x) of the training rows. The share of the largest sum is that of Nemhauser,
        Wolsey & Fisher, 1978.

    Complexity:
        At most N D (n + min(L, D)) multiply-adds in passes over the rows, and less than that again in blocks;
        O(N + D min(n + L, D) + n D) memory beyond the features, and chunks.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> log_det(x, 2)
        Selection(indices=tensor([0, 2]), scores=tensor([0.6931, 0.6931]))
    """
    check_det(kernel, ridge)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(reader.device):
        source, unit = _rows(reader, kernel)
        usual = torch.ones_like(source.sq) if kernel == "cosine" else source.sq
        mean, noise, bound = _scales(usual, ridge, reader.n_columns)
        prior = torch.where(source.sq > 0, usual, 0)
        known = labeled.nonzero().squeeze(1).to(reader.device)
        posterior = LinearPosterior(reader.n_columns, noise, n + len(known), reader.device)
        values = torch.where(candidates.to(reader.device), prior, -torch.inf)
        pool = VariancePool(source, prior, values, posterior, bound, unit=unit)
        return _pick(pool, known, n, mean, reader)


def max_det(
    log_probs: Features,
    features: Features,
    n: int,
    *,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    ridge: float = 0.01,
    bias: bool = False,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row whose last layer's gradient is least explained by those of the picks.

    It is `log_det` with the linear kernel on the gradients of `torchal.functional.badge`, (p - onehot(argmax p)) x h,
    which are never formed: <g, g'> = <u, u'> <h, h'> for the two factors of each. Where BADGE draws, this takes the
    largest. For the linear kernel on features themselves, call `log_det`.

    Ties of equal rows go to the lowest. Where the variances of different gradients are closer than rounding, which the
    inverse of a small ridge makes larger, either may come first; float64 is for ridges far below 0.01.

    Args:
        log_probs: of the classes that the model has seen.
        features: what the last layer reads. Both may be tensors on any device, or memory-mapped files.
        n: how many rows to pick.
        labeled: rows that are known already. Their gradients too are those of the predicted class.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        ridge: what is added to |g|^2, which is 1 on average after scaling. It counts as at least 4 (C + D + 4) e times
            the largest |g|^2, with e = 2^-23 for float32, 2^-52 for float64.
        bias: whether the gradient by the layer's bias counts too, as if each h ended with a 1.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once, unless chosen by the device.

    Shapes:
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        features: (N, D) float, on the same device.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the logarithm of the conditional variance of each gradient, ridge
        included. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: log_probs or features are no float matrix, or the tensors disagree in rows or device.
        DataError: no rows; features that are not finite; a row of log_probs that does not sum to 1.
        ConfigError: a ridge that is not above 0, or a bias that is not true or false.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Holzmueller, Zaverkin, Kaestner & Steinwart, JMLR 2023: MaxDet with the last layer's gradient kernel, for
        regression; here with BADGE's hypothetical labels, as classification has none (Ash et al., ICLR 2020). The mean
        |g|^2 of all rows is the unit, there that of the training rows.

    Complexity:
        A pass after P picks (labeled rows included), of which p are new, takes N P (C + D + p) multiply-adds;
        O(N + (L + n)^2) memory beyond the inputs, and chunks.

    Example:
        >>> log_probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.6, 0.4]]).log()
        >>> x = torch.tensor([[9.0, 9.0], [1.0, 2.0], [1.0, 2.0], [2.0, -1.0]])
        >>> max_det(log_probs, x, 2).indices
        tensor([1, 3])
    """
    check_det("linear", ridge)
    check_flag("bias", bias)
    right, left = read_factors(log_probs, features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(right), device=right.home)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(right.device):
        known, candidates = labeled.nonzero().squeeze(1).to(right.device), candidates.to(right.device)
        space, source = open_gradients(right, left, bias=bias, among=labeled.to(right.device) | candidates)
        prior = source.sq
        mean, noise, bound = _scales(prior, ridge, source.n_columns)
        posterior = KernelPosterior(space, noise, n + len(known), right.device)
        pool = VariancePool(source, prior, torch.where(candidates, prior, -torch.inf), posterior, bound)
        return _pick(pool, known, n, mean, right)


def check_det(kernel: object, ridge: object) -> None:
    """Require settings of `log_det` that make sense.

    Raises:
        ConfigError: an unknown kernel, or a ridge that is not above 0.
    """
    if kernel not in get_args(DetKernel):
        raise ConfigError(f"kernel must be one of {', '.join(get_args(DetKernel))}, got {kernel!r}")
    check_positive("ridge", ridge)


def _rows(reader: FeatureReader, kernel: DetKernel) -> tuple[StreamedRows, bool]:
    """Return the rows of a kernel, and whether they are still to be scaled to length 1.

    That is cheaper done with the products of a pass than with the rows, unless their squares do not fit into float32.
    """
    peak = survey(reader, "euclidean").peak
    dtype = torch.promote_types(reader.dtype, torch.float32)
    largest = 100 if dtype == torch.float32 else 1000  # powers of two, or it is infinite itself
    scale = 1.0 if 1e-6 < peak < 1e6 or not peak else 2.0 ** min(-math.frexp(peak)[1], largest)
    source = StreamedRows(reader, Space(n_columns=reader.n_columns, dtype=dtype, scale=scale))
    if kernel == "cosine" and float(source.sq.min()) < _SHORTEST_SQ:
        return StreamedRows(reader, CosineSpace(n_columns=reader.n_columns, dtype=dtype)), False
    return source, kernel == "cosine"


def _scales(prior: Tensor, ridge: float, n_columns: int) -> tuple[float, float, float]:
    """Return the mean k(x, x) (1 where all are 0), the noise, and a share of k(x, x) below which all is rounding."""
    bound = 4 * (n_columns + 4) * torch.finfo(prior.dtype).eps
    mean = float(prior.mean(dtype=torch.float64)) or 1.0
    return mean, max(ridge * mean, bound * float(prior.max()), torch.finfo(prior.dtype).tiny), bound


def _pick(pool: VariancePool, known: Tensor, n: int, mean: float, reader: FeatureReader) -> Selection:
    """Return the picks where the features are."""
    if len(known):
        pool.condition(known)
    rows, variances = pick_variances(pool, n)
    gains = (variances.double().clamp_(min=0).add_(pool.posterior.noise) / mean).log_()
    return Selection(rows.to(reader.home), gains.to(reader.home, torch.promote_types(reader.dtype, torch.float32)))
