"""Greedy maximum determinant: rows that are long and unlike each other, as a determinantal point process wants them."""

from __future__ import annotations

import sys
from numbers import Real
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import check_budget, check_flag, check_positive
from torchal._chunks import exact_arithmetic
from torchal.engine.distances import Rows, make_space, survey
from torchal.engine.features import FeatureReader, Features
from torchal.engine.scaled_rows import ScaledRows
from torchal.engine.shrinking import pick_largest
from torchal.engine.sources import StreamedRows
from torchal.engine.variances import KernelPool, WhitenedPool, rounding
from torchal.errors import ConfigError
from torchal.functional.badge import gradient_readers, open_gradients
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection

DetKernel: TypeAlias = Literal["cosine", "linear", "rbf"]
Gamma: TypeAlias = float | Literal["scale"]


def log_det(
    features: Features,
    n: int,
    *,
    labeled: Tensor | None = None,
    candidates: Tensor | None = None,
    kernel: DetKernel = "cosine",
    ridge: float = 1.0,
    gamma: Gamma = "scale",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row that raises the log-determinant of the picks' kernel matrix the most.

    The gain of a row is the logarithm of its conditional variance: of what the picks before it, and the labeled rows,
    leave unexplained of it, and the ridge. With a ridge of at least 1 no gain is negative, and the sum of the gains is
    at least 1 - 1/e of the largest that any n rows have. The picks are those of the plain greedy algorithm, one by one,
    but made in blocks (`torchal.engine.shrinking`).

    Equal gains go to the lowest row: those of equal rows always. Where different rows' variances are closer than
    rounding, either may come first: closer than 4 (D + 4) e R (cosine and linear: R sqrt(V) with the largest variance V
    that is left, computed again now and then), with the largest k(x, x) = R, and e = 2^-23 for float32, 2^-52 for
    float64. Where none is left above that, as in less than n dimensions with a tiny ridge, the picks mean nothing.

    Args:
        features: a tensor on any device, or a memory-mapped file; both may be larger than the device's memory.
        n: how many rows to pick.
        labeled: rows that are known already, as if they had been picked before.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        kernel: cosine; linear, x^T y, divided by its mean k(x, x) over all rows, so that only the ratios of lengths
            count; or rbf, exp(-gamma |x - y|^2).
        ridge: what is added to k(x, x), which is 1 on average: the variance of noise. No row becomes worthless by it
            that has an equal among the picks. It counts as at least e times the largest k(x, x) (rbf: 4 (D + 4) e).
        gamma: of rbf; "scale" is 2 divided by the mean squared distance of two rows.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64; so is rbf with a ridge that
            float32 would drown.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), the gain of each. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features is no float matrix, or a mask disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite; a row of zeros with the cosine.
        ConfigError: an unknown kernel, a ridge that is not above 0, or a gamma that is neither "scale" nor above 0.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Chen, Zhang & Zhou, "Fast Greedy MAP Inference for Determinantal Point Process to Improve Recommendation
        Diversity", NeurIPS 2018, Algorithm 1. There every pick is one pass over all rows, and N n numbers are kept; it
        ends when a gain is not positive. With the linear kernel: Holzmueller, Zaverkin, Kaestner & Steinwart, "A
        Framework and Benchmark for Deep Batch Active Learning for Regression", JMLR 2023, MaxDet, section 4.2.4; there
        kernels are scaled by the mean k(x, x) of the training rows. The share of the largest sum is that of Nemhauser,
        Wolsey & Fisher, 1978.

    Complexity:
        Cosine and linear: at most N D (n + 2 min(L, D)) multiply-adds in a handful of passes, and about a quarter of
        that for the rows F x of the blocks; O(N + D^2) memory beyond the features, and chunks. With rbf, pass i after
        P_i picks takes N (D + p) P_i, of which p are new: as many numbers as rows and picks have would be needed not to
        compute their kernel again. O(N + (L + n)^2) memory.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> log_det(x, 2)
        Selection(indices=tensor([0, 2]), scores=tensor([0.6931, 0.6931]))
    """
    check_det(kernel, ridge, gamma)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(reader.device):
        candidates = candidates.to(reader.device)
        pool: WhitenedPool | KernelPool
        if kernel == "rbf":
            unit, pool = 1.0, _rbf_pool(reader, ridge, gamma, n, candidates)
        else:
            rows = ScaledRows(reader, unit=kernel == "cosine")
            unit = _mean(rows.sq)
            pool = WhitenedPool(rows, ridge * unit, candidates)
        pool.condition(labeled.to(reader.device))
        picked = _pick(pool, n, unit)
    return _home(picked, reader)


def max_det(
    log_probs: Features,
    features: Features,
    n: int,
    *,
    labeled: Tensor | None = None,
    candidates: Tensor | None = None,
    ridge: float = 0.01,
    bias: bool = False,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row whose last layer's gradient is least explained by those of the picks.

    It is `log_det` with the linear kernel on the gradients of `torchal.functional.badge`, (p - onehot(argmax p)) x h,
    which are never formed: <g, g'> = <u, u'> <h, h'> for the two factors of each. Where BADGE draws, this takes the
    largest. For the linear kernel on features themselves, call `log_det`.

    Args:
        log_probs: of the classes that the model has seen.
        features: what the last layer reads. Both may be tensors on any device, or memory-mapped files.
        n: how many rows to pick.
        labeled: rows that are known already. Their gradients too are those of the predicted class.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        ridge: what is added to |g|^2, which is 1 on average after scaling.
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
        A pass after P picks, of which p are new, takes N (P (C + D) + P p) multiply-adds; O(N + (L + n)^2) memory
        beyond the inputs, and chunks.

    Example:
        >>> log_probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.6, 0.4]]).log()
        >>> x = torch.tensor([[9.0, 9.0], [1.0, 2.0], [1.0, 2.0], [2.0, -1.0]])
        >>> max_det(log_probs, x, 2).indices
        tensor([1, 3])
    """
    check_det("linear", ridge, "scale")
    check_flag("bias", bias)
    left, right = gradient_readers(log_probs, features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(right), device=right.home)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(right.device):
        labeled, candidates = labeled.to(right.device), candidates.to(right.device)
        space, source = open_gradients(left, right, bias=bias, among=labeled | candidates)

        def products(a: Rows, b: Rows) -> Tensor:
            (h, u), (k, v) = space.factors(a.x), space.factors(b.x)
            return (h @ k.T).mul_(u @ v.T)

        sq = source.sq
        unit = _mean(sq)
        pool = KernelPool(source, products, sq, ridge * unit, n, candidates)
        pool.condition(labeled)
        picked = _pick(pool, n, unit)
    return _home(picked, right)


def check_det(kernel: object, ridge: object, gamma: object) -> None:
    """Require settings of `log_det` that make sense.

    Raises:
        ConfigError: an unknown kernel, a ridge that is not above 0, or a gamma that is neither "scale" nor above 0.
    """
    if kernel not in get_args(DetKernel):
        raise ConfigError(f"kernel must be one of {', '.join(get_args(DetKernel))}, got {kernel!r}")
    check_positive("ridge", ridge)
    number = isinstance(gamma, Real) and not isinstance(gamma, bool) and 0 < gamma <= sys.float_info.max
    if not number and gamma != "scale":
        raise ConfigError(f"gamma must be 'scale' or a finite number above 0, got {gamma!r}")


def _rbf_pool(reader: FeatureReader, ridge: float, gamma: Gamma, n: int, candidates: Tensor) -> KernelPool:
    """Return the rows of an rbf kernel."""
    seen = survey(reader, "euclidean")
    small = ridge < 4 * rounding(reader.n_columns, torch.float32)
    space = make_space(reader, seen, "euclidean", dtype=torch.float64 if small else torch.float32)
    source = StreamedRows(reader, space)
    if gamma == "scale":
        mean = seen.total / len(reader) * space.scale - (0 if space.shift is None else space.shift.double())
        spread = float(source.sq.mean(dtype=torch.float64) - mean.square().sum())
        factor = 1 / spread if spread > 0 else 0.0
    else:
        factor = gamma / space.scale / space.scale

    def kernel(a: Rows, b: Rows) -> Tensor:
        return space.pairwise(a, b).clamp_(min=0).mul_(-factor).exp_()

    prior = torch.ones(len(reader), dtype=space.dtype, device=reader.device)
    return KernelPool(source, kernel, prior, ridge, n, candidates)


def _pick(pool: WhitenedPool | KernelPool, n: int, unit: float) -> Selection:
    rows, variances = pick_largest(pool, n)
    return Selection(rows, (variances.double().clamp_(min=0).add_(pool.noise) / unit).log_())


def _home(picked: Selection, reader: FeatureReader) -> Selection:
    """Return a selection where the features are."""
    dtype = torch.promote_types(reader.dtype, torch.float32)
    return Selection(picked.indices.to(reader.home), picked.scores.to(reader.home, dtype))


def _mean(sq: Tensor) -> float:
    """Return the mean of k(x, x), and 1 where all are 0."""
    return float(sq.mean(dtype=torch.float64)) or 1.0
