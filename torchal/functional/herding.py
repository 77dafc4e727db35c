"""Herding: rows such that every row, or every row that the model is unsure of, is near one of them."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import (
    ArrayLike,
    as_log_probs,
    as_row_labels,
    as_row_weights,
    check_budget,
    check_distributions,
    check_finite,
    check_positive,
    check_whole,
)
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.affinity import open_affinity
from torchal.engine.coverage import MAX_HELD
from torchal.engine.distances import unit_rows
from torchal.engine.features import FeatureReader, Features
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.k_center import check_masks
from torchal.functional.submodular import Covering, checked_pool, greedy_covering
from torchal.functional.uncertainty import entropy

Uncertainty: TypeAlias = Literal["margin", "entropy", "least_confidence"]

TEMPERATURES = tuple(round(1 + i / 10, 1) for i in range(190))
"""1.0, 1.1, ... 19.9: the temperatures that the authors of uncertainty herding try."""


_AS_SUMS = "donot_use_mm_for_euclid_dist"  # equal rows have the distance 0


def max_herding(
    features: Features,
    n: int,
    *,
    bandwidth: float = 1.0,
    normalize: bool = True,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    max_held: int = MAX_HELD,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Covering:
    r"""Pick, again and again, the row that adds most to how well all rows are covered, by a kernel instead of balls.

    How well a row is covered is its highest kernel value exp(-d^2 / bandwidth^2) with a labeled row or a pick. This is
    `facility_location` with that kernel on rows scaled to length 1; what is said there of guarantees, ties and costs
    holds here too.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to pick.
        bandwidth: the distance at which the kernel is 1/e.
        normalize: whether rows are scaled to length 1. A row of zeros, as a blank image is, has no direction and stays
            as it is, at a distance of 1 from all others.
        labeled: rows that cover others from the start.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        max_held: as in `facility_location`.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; what fits unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32; a kernel too sharp for float32, in float64.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), what each pick adds to the sum of all rows' coverage; value, what is
        reached, and bound, what no n picks can exceed.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: the bandwidth is not above 0, or max_held is no whole number of at least 0.
        ShapeError: features is no float matrix, or a mask disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Bae, Noh & Sutherland, "Generalized Coverage for More Robust Low-Budget Active Learning", ECCV 2024, Algorithm 1
        with the Gaussian kernel. Means over rows are sums here, and the authors' code draws 35 000 rows of a larger
        pool where this takes all.

    Complexity:
        See `facility_location`.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
        >>> max_herding(x, 2, bandwidth=0.5).indices
        tensor([0, 3])
    """
    check_positive("bandwidth", bandwidth)
    return _herding(
        FeatureReader(features, device=device, chunk_rows=chunk_rows),
        n,
        bandwidth=bandwidth,
        normalize=normalize,
        labeled=labeled,
        candidates=candidates,
        max_held=max_held,
        uncertainty=None,
    )


def uncertainty_herding(
    features: Features,
    n: int,
    *,
    uncertainty: ArrayLike,
    bandwidth: float | None = None,
    normalize: bool = True,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    max_held: int = MAX_HELD,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Covering:
    r"""Pick, again and again, the row that adds most to how well the rows that the model is unsure of are covered.

    `max_herding` with rows that count as much as the model is unsure of them. With few labels, a wide kernel and
    uncertainties that are all alike (a calibrated model has them), it picks what represents the pool; as labels grow
    dense, the kernel narrows until a row covers itself alone, and it picks the rows that the model is least sure of.

    Args:
        features: as in `max_herding`.
        n: how many rows to pick.
        uncertainty: how much each row counts; of probabilities that `calibrated_temperature` made true.
        bandwidth: of the kernel; the least distance above 0 of two labeled rows unless given, and 1 where there are no
            such two.
        normalize: as in `max_herding`.
        labeled: rows that cover others from the start; of these, the bandwidth.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        max_held: as in `facility_location`.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; what fits unless given.

    Shapes:
        features: (N, D) float, as in `max_herding`.
        uncertainty: (N,) float, at least 0, on the features' device.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        As `max_herding`, each row's coverage times its uncertainty.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: the bandwidth is not above 0, or max_held is no whole number of at least 0.
        ShapeError: features is no float matrix; a mask or the uncertainty disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite; uncertainties that are negative or not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Bae, Oliveira & Sutherland, "Uncertainty Herding: One Active Learning Method for All Label Budgets", ICLR 2025:
        uncertainty coverage, greedily, and the radius that follows the labeled rows, as in the authors' code. They draw
        35 000 rows of a larger pool where this takes all.

    Complexity:
        See `facility_location`; L^2 D multiply-adds for the bandwidth.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
        >>> uncertainty_herding(x, 1, uncertainty=torch.tensor([0.1, 0.1, 0.1, 0.9]), bandwidth=0.5).indices
        tensor([3])
    """
    if bandwidth is not None:
        check_positive("bandwidth", bandwidth)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    if uncertainty is None:
        raise ShapeError("uncertainty must be a torch.Tensor, got NoneType; without one, this is max_herding")
    uncertainty = as_row_weights("uncertainty", uncertainty, n_rows=len(reader), device=reader.home)
    if bandwidth is None:
        bandwidth = 1.0 if labeled is None else labeled_distance(features, labeled, normalize=normalize, device=device)
    return _herding(
        reader,
        n,
        bandwidth=bandwidth,
        normalize=normalize,
        labeled=labeled,
        candidates=candidates,
        max_held=max_held,
        uncertainty=uncertainty,
    )


def _herding(
    reader: FeatureReader,
    n: int,
    *,
    bandwidth: float,
    normalize: bool,
    labeled: ArrayLike | None,
    candidates: ArrayLike | None,
    max_held: int,
    uncertainty: Tensor | None,
) -> Covering:
    labeled, candidates, _ = checked_pool(reader, labeled, candidates, None, max_held=max_held)
    check_budget(n, int(candidates.sum()))
    gamma = min(1 / max(bandwidth, 1e-150) ** 2, 1e300)
    with exact_arithmetic(reader.device):
        affinity, source = open_affinity(reader, "rbf", gamma=gamma, unit=normalize)
        return greedy_covering(
            reader,
            affinity,
            source,
            n,
            labeled=labeled,
            candidates=candidates,
            weights=uncertainty,
            max_held=max_held,
        )


def labeled_distance(
    features: Features,
    labeled: ArrayLike,
    *,
    normalize: bool = True,
    default: float = 1.0,
    device: torch.device | str | None = None,
) -> float:
    """Return the least distance of two labeled rows that differ: the bandwidth of `uncertainty_herding`.

    Rows differ where their distance is above the rounding of float32 (of float64, where the features are that).

    Args:
        features: as in `max_herding`.
        labeled: the rows that are compared.
        normalize: as in `max_herding`.
        default: what is returned where no two labeled rows differ.
        device: where to compute; where the features are, unless given.

    Shapes:
        features: (N, D) float. Distances are measured in float64.
        labeled: (N,) bool, on the features' device.

    Raises:
        ShapeError: features is no float matrix, or `labeled` disagrees in shape, dtype or device.
        DataError: no rows; a labeled row that is not finite.

    Complexity:
        L^2 D / 2 multiply-adds; a copy of the labeled rows in memory, and blocks.

    Example:
        >>> x = torch.tensor([[0.0], [3.0], [3.0], [4.0]])
        >>> labeled_distance(x, torch.tensor([True, True, True, False]), normalize=False)
        3.0
    """
    reader = FeatureReader(features, device=device)
    labeled, _ = check_masks(labeled, None, n_rows=len(reader), device=reader.home)
    with exact_arithmetic(reader.device):
        x = reader.rows(labeled.nonzero().squeeze(1)).double()
        check_finite("features of labeled rows", x)
        x = unit_rows(x) if normalize else x
        if not len(x):
            return default
        # of parallel rows, scaling to length 1 leaves rows that differ by rounding
        limit = 4 * torch.finfo(torch.promote_types(reader.dtype, torch.float32)).eps * float(x.abs().max())
        least = math.inf
        size = math.isqrt(values_per_chunk(x.device))
        for i in range(0, len(x), size):
            for j in range(i, len(x), size):
                distances = torch.cdist(x[i : i + size], x[j : j + size], compute_mode=_AS_SUMS)
                least = min(least, float(torch.where(distances > limit, distances, math.inf).min()))
    return least if math.isfinite(least) else default


def tempered_uncertainty(
    log_probs: ArrayLike, uncertainty: Uncertainty = "margin", *, temperature: float = 1.0
) -> Tensor:
    """Return how unsure a model is of each row at a temperature, as a weight of at least 0.

    Args:
        log_probs: they are divided by the temperature, and normalised again.
        uncertainty: margin, 1 minus the gap between the two largest probabilities; entropy, in nats; least_confidence,
            1 minus the largest probability.
        temperature: above 1 makes probabilities more alike.

    Shapes:
        log_probs: (N, C) float; of one class, nothing is unsure.

    Returns:
        (N,) at least float32.

    Raises:
        ShapeError: log_probs is no float matrix.
        ConfigError: an unknown uncertainty; the temperature is not above 0.
        DataError: rows that do not sum to 1 after exp.

    Example:
        >>> tempered_uncertainty(torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log())
        tensor([0.4000, 1.0000])
    """
    check_uncertainty(uncertainty)
    check_positive("temperature", temperature)
    log_probs = as_log_probs(log_probs)
    dtype = torch.promote_types(log_probs.dtype, torch.float32)
    out = torch.empty(len(log_probs), dtype=dtype, device=log_probs.device)
    size = max(1, values_per_chunk(log_probs.device) // log_probs.shape[1])
    with exact_arithmetic(log_probs.device):
        for start in range(0, len(log_probs), size):
            some = log_probs[start : start + size].to(dtype)
            check_distributions(some.exp(), log_probs.dtype, first_row=start)
            out[start : start + size] = _uncertainty((some / temperature).log_softmax(1), uncertainty)
    return out


def _uncertainty(log_probs: Tensor, uncertainty: Uncertainty) -> Tensor:
    if log_probs.shape[1] == 1:
        return torch.zeros_like(log_probs[:, 0])
    if uncertainty == "entropy":
        return entropy(log_probs)
    largest = log_probs.topk(2, 1).values.exp()
    if uncertainty == "margin":
        return 1 - (largest[:, 0] - largest[:, 1])
    return 1 - largest[:, 0]


def check_uncertainty(uncertainty: object) -> None:
    """Require an uncertainty that is known.

    Raises:
        ConfigError: it is not.
    """
    if uncertainty not in get_args(Uncertainty):
        raise ConfigError(f"uncertainty must be one of {', '.join(get_args(Uncertainty))}, got {uncertainty!r}")


def calibrated_temperature(
    log_probs: ArrayLike,
    targets: ArrayLike,
    *,
    temperatures: tuple[float, ...] = TEMPERATURES,
    n_bins: int = 15,
) -> float:
    """Return the temperature at which a model's confidence is nearest to its accuracy, on rows that it did not learn.

    Nearest by the expected calibration error: over bins of confidence of equal width, the mean gap between confidence
    and accuracy, weighted by how many rows fall into the bin. Of several temperatures, the first.

    Args:
        log_probs: of the held-out rows; a temperature divides them, and they are normalised again.
        targets: the columns of the labels; -1 for a class that the model does not know, where it is always wrong.
        temperatures: those that are tried.
        n_bins: of confidence.

    Shapes:
        log_probs: (M, C) float.
        targets: (M,) int64.

    Raises:
        ShapeError: log_probs is no float matrix, or the targets are not (M,) on its device.
        DataError: no rows; log_probs that are NaN or positive infinity; a target that is no column.
        ConfigError: no temperature, or one that is not above 0; n_bins is no whole number of at least 1.

    Reference:
        Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, for temperatures and the
        error; Bae, Oliveira & Sutherland, ICLR 2025, choose the temperature by that error (with as many bins as
        classes in their code).

    Complexity:
        O(M C) for each temperature.

    Example:
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]).log()
        >>> calibrated_temperature(log_probs, torch.tensor([0, 0, 1]), temperatures=(1.0, 3.0, 9.0))
        3.0
    """
    log_probs = as_log_probs(log_probs)
    check_whole("n_bins", n_bins, least=1)
    if not temperatures:
        raise ConfigError("at least one temperature is needed, got none")
    for temperature in temperatures:
        check_positive("a temperature", temperature)
    targets = as_row_labels("targets", targets, n_rows=len(log_probs), device=log_probs.device)
    if not len(log_probs):
        raise DataError("no held-out rows to calibrate on")
    if bool((targets >= log_probs.shape[1]).any()) or bool((targets < -1).any()):
        raise DataError(f"targets must be columns below {log_probs.shape[1]}, or -1")
    logs = log_probs.double()
    if not bool((logs < torch.inf).all()):
        raise DataError("log_probs must not be NaN or positive infinity")
    best, predicted = logs.max(1)
    right = (predicted == targets).double()
    errors = []
    for temperature in temperatures:
        confidence = (best / temperature - (logs / temperature).logsumexp(1)).exp()
        # bins are open below, as in the definition: a confidence at an edge belongs to the bin below
        bins = (confidence * n_bins).ceil().long().clamp_(1, n_bins) - 1
        gaps = torch.zeros(n_bins, dtype=torch.float64, device=logs.device).index_add_(0, bins, right - confidence)
        errors.append(gaps.abs().sum() / len(logs))
    return float(temperatures[int(torch.stack(errors).argmin())])
