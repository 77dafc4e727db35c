"""A batch that is wanted for several reasons at once: unsure, diverse, typical, and balanced over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from torchal._checks import (
    ArrayLike,
    as_log_probs,
    as_rows,
    as_tensor,
    check_budget,
    check_distributions,
    check_finite,
    check_float,
)
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.combined import Balance, CombinedPool, Diversity, pick_combined
from torchal.engine.distances import Metric, Rows, Space, check_metric, make_space, survey, unit_rows
from torchal.engine.features import FeatureReader, Features
from torchal.engine.sources import StreamedRows
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.k_center import check_masks
from torchal.functional.neighbors import nearest_among
from torchal.functional.selection import Selection


def combined_greedy(
    n: int,
    *,
    utilities: Sequence[ArrayLike] = (),
    strengths: Sequence[float] = (),
    features: Features | None = None,
    diversity: float = 1.0,
    log_probs: ArrayLike | None = None,
    balance: float = 1.0,
    target: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    metric: Metric = "euclidean",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row with the largest product of utilities, each to the power of its strength.

    With the picks so far P, the value of a row i is

        prod_s u_s(i)^strength_s  x  d(i | P)^diversity  x  b(i | P)^balance

    - u_s, any numbers of at least 0, as uncertainties, densities, similarities to a query;
    - d, where features are given, the distance to the nearest of the labeled rows and the picks; without any, for the
      first pick, from the mean, as in `k_center_greedy`;
    - b, where log_probs are given, the sum over classes c of p_c(i) target_c / (1 + m_c), with m_c the labels of class
      c so far and the sum of p_c over the picks: the slope at m of the sum of target_c log(1 + m_c), which is largest
      where the labels, with one more of each class, are in the proportions of the target.

    A product does not depend on the scale of its factors. Distances and balances only shrink, so the picks are made in
    blocks (`torchal.engine.combined`), and are those of one pass per pick. Equal values go to the lowest row: those of
    equal rows always, others where they are the same to the last bit. Once all values are 0, the picks are the lowest
    rows.

    Args:
        n: how many rows to pick.
        utilities: what each row is worth by itself.
        strengths: of the utilities, one for each.
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        diversity: strength of the distance; 0 is as no features.
        log_probs: of each row's class.
        balance: strength of the balance; 0 is as no log_probs.
        target: the shares of the classes that are wanted; equal ones unless given. They need not sum to 1.
        counts: labels of each class so far; none unless given.
        labeled: rows that are centres from the start.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        metric: euclidean; cosine, which is 1 - cos; or manhattan.
        device: where to compute; where the tensors are, unless given.
        chunk_rows: rows of the features read at once; as many as fit unless given.

    Shapes:
        utilities: each (N,) float.
        features: (N, D) float.
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        target: (C,) float.
        counts: (C,) int64 or float.
        labeled, candidates: (N,) bool. All tensors are on one device.

    Returns:
        indices (n,) in pick order; scores (n,) float64, the value of each pick when it was picked.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: nothing to choose by is given, or the tensors disagree in rows, classes or device.
        DataError: a candidate's utility is negative or not finite; a row of log_probs does not sum to 1 after exp;
            features that are not finite, or a row of zeros with cosine distances; counts or a target that are negative
            or not finite, or a target that is 0 for all classes.
        ConfigError: a strength that is not a finite number of at least 0, or not one for each utility; an unknown
            metric.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        LightlyStudio's selection engine, for which strategies there are and that they are multiplied; the balance is
        another one. With utilities alone this is `top_n`, with features alone `k_center_greedy`, and with one utility
        and all strengths 1 its `weights=`, but for a first pick without labels: use that where it is enough, for it
        computes in the features' dtype, covers with a guarantee, and knows outliers and a least distance.

    Complexity:
        At most N (D + C) n multiply-adds, in a handful of passes where values are spread; memory for a few numbers of
        each row beyond the input, and chunks.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
        >>> unsure, labeled = torch.tensor([0.0, 0.4, 0.4, 0.1]), torch.tensor([True, False, False, False])
        >>> combined_greedy(2, utilities=[unsure], strengths=[1.0], features=x, labeled=labeled).indices
        tensor([2, 1])
    """
    check_metric(metric)
    check_strengths(strengths, n_utilities=len(utilities))
    check_strengths((diversity, balance))
    reader = None if features is None else FeatureReader(features, device=device, chunk_rows=chunk_rows)
    factors = [as_tensor(f"utilities[{i}]", utility) for i, utility in enumerate(utilities)]
    log_probs = None if log_probs is None else as_log_probs(log_probs)
    n_rows, home = _size(factors, reader, log_probs)
    labeled, candidates = check_masks(labeled, candidates, n_rows=n_rows, device=home)
    check_budget(n, int(candidates.sum()))
    there = home if device is None else torch.empty(0, device=device).device
    with exact_arithmetic(there):
        fixed = torch.ones(n_rows, dtype=torch.float64, device=there)
        for i, (utility, strength) in enumerate(zip(factors, strengths, strict=True)):
            checked = _checked_utility(f"utilities[{i}]", utility, candidates)
            fixed *= checked.to(there, torch.float64).pow(strength)
        pool = CombinedPool(fixed, candidates.to(there, copy=True))
        if log_probs is not None and balance:
            pool.balance = _balance(log_probs, balance, target, counts, there)
        if reader is not None and diversity:
            pool.diversity = _diversity(reader, diversity, metric)
            pool.lower(labeled.to(there).nonzero().squeeze(1))
        first = pool.fixed.new_zeros(0, dtype=torch.int64), pool.fixed[:0]
        if pool.diversity is not None and reader is not None and not bool(labeled.any()):
            first = _pick_first(pool, reader, metric)
        else:
            pool.refresh()
        rest = n - len(first[0])
        picks = [first, pick_combined(pool, rest, finish=False)] if rest else [first]
    rows, scores = (torch.cat(parts) for parts in zip(*picks, strict=True))
    return Selection(rows.to(home), scores.to(home))


def query_similarity(
    features: Features,
    queries: ArrayLike,
    *,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Return how near each row is to the nearest of some rows by its direction: (1 + cos) / 2, of which 1 is the same.

    Args:
        features: a tensor on any device, an array, or a memory-mapped file.
        queries: rows that more are wanted like, as cases that a model got wrong.
        device: where to compute; where the features are, unless given.
        chunk_rows: as in `nearest_among`.

    Shapes:
        features: (N, D) float.
        queries: (Q,) int64, distinct.

    Returns:
        (N,) between 0 and 1, at least float32, on the features' device.

    Raises:
        ShapeError: features is no float matrix; no queries, or rows that repeat or lie outside of [0, N).
        See `nearest_among` for the others.

    Complexity:
        N Q D multiply-adds.

    Example:
        >>> query_similarity(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]), torch.tensor([0]))
        tensor([1.0000, 0.5000, 0.0000])
    """
    reader = FeatureReader(features)
    n_rows, home = len(reader), reader.home
    queries = as_rows("queries", queries, n_rows=n_rows, device=home)
    if not len(queries):
        raise ShapeError("queries must name at least one row, got none")
    among = torch.zeros(n_rows, dtype=torch.bool, device=home).index_fill_(0, queries, True)
    near = nearest_among(features, 1, among=among, metric="cosine", device=device, chunk_rows=chunk_rows)
    return (1 - near.distances.squeeze(1) / 2).clamp_(0, 1)


def check_strengths(strengths: object, *, n_utilities: int | None = None) -> None:
    """Require finite numbers of at least 0, as many as there are utilities.

    Raises:
        ConfigError: they are something else.
    """
    if isinstance(strengths, str) or not isinstance(strengths, Sequence):
        raise ConfigError(f"strengths must be a list of numbers, got {strengths!r}")
    if n_utilities is not None and len(strengths) != n_utilities:
        raise ConfigError(f"there must be one strength for each of {n_utilities} utilities, got {len(strengths)}")
    for strength in strengths:
        if isinstance(strength, bool) or not isinstance(strength, Real) or not 0 <= float(strength) < math.inf:
            raise ConfigError(f"strengths must be finite numbers of at least 0, got {strength!r}")


def _size(
    utilities: Sequence[Tensor], reader: FeatureReader | None, log_probs: Tensor | None
) -> tuple[int, torch.device]:
    """Return how many rows there are, and where, after checking that all agree."""
    given = {f"utilities[{i}]": utility for i, utility in enumerate(utilities)}
    for name, utility in given.items():
        check_float(name, utility, ndim=1)
    if log_probs is not None:
        given["log_probs"] = log_probs
    sizes = {name: (len(tensor), tensor.device) for name, tensor in given.items()}
    if reader is not None:
        sizes["features"] = len(reader), reader.home
    if not sizes:
        raise ShapeError("there is nothing to choose by: give utilities, features or log_probs")
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {rows} rows on {device}" for name, (rows, device) in sizes.items())
        raise ShapeError(f"all tensors must have the same rows on the same device, got {told}")
    return next(iter(sizes.values()))


def _checked_utility(name: str, utility: Tensor, candidates: Tensor) -> Tensor:
    """Return a utility with 0 for rows that are no candidates."""
    n_wrong = int((candidates & ~((utility >= 0) & utility.isfinite())).sum())
    if n_wrong:
        raise DataError(
            f"{name} must be finite and at least 0: {n_wrong} of {int(candidates.sum())} candidates' are not"
        )
    return torch.where(candidates, utility.detach(), 0)


def _balance(
    log_probs: Tensor, strength: float, target: ArrayLike | None, counts: ArrayLike | None, device: torch.device
) -> Balance:
    n_rows, n_classes = log_probs.shape
    numbers = {
        "target": torch.ones(n_classes, dtype=torch.float64) if target is None else as_tensor("target", target),
        "counts": torch.zeros(n_classes, dtype=torch.float64) if counts is None else as_tensor("counts", counts),
    }
    for name, values in numbers.items():
        if values.shape != (n_classes,):
            raise ShapeError(f"{name} must have a number for each of {n_classes} classes, got {tuple(values.shape)}")
        check_finite(name, values)
        if bool((values < 0).any()):
            raise DataError(f"{name} must not be negative: {int((values < 0).sum())} of {n_classes} classes are")
    wanted = numbers["target"].detach().to(device, torch.float64)
    if not bool((wanted > 0).any()):
        raise DataError(f"target must be above 0 for at least one of {n_classes} classes")
    size = max(1, values_per_chunk(log_probs.device) // n_classes)
    for start in range(0, n_rows, size):
        part = log_probs[start : start + size]
        check_distributions(part.double().exp(), part.dtype, first_row=start)
    so_far = numbers["counts"].detach().to(device, torch.float64)
    return Balance(log_probs.detach().to(device), wanted / wanted.sum(), so_far, strength)


def _diversity(reader: FeatureReader, strength: float, metric: Metric) -> Diversity:
    space: Space = make_space(reader, survey(reader, metric), metric)
    near = torch.full((len(reader),), torch.inf, dtype=space.dtype, device=reader.device)
    return Diversity(StreamedRows(reader, space), space, near, strength)


def _pick_first(pool: CombinedPool, reader: FeatureReader, metric: Metric) -> tuple[Tensor, Tensor]:
    """Pick the row with the largest value, distances being those from the mean of all; then it is the one centre.

    In float64, and N times as large, so that there is no rounding where the features are whole numbers.
    """
    assert pool.diversity is not None
    source, space = pool.diversity.source, pool.diversity.space
    total = torch.zeros(reader.n_columns, dtype=torch.float64, device=reader.device)
    far = torch.empty(len(reader), dtype=torch.float64, device=reader.device)

    def ready(rows: Rows) -> Tensor:
        return unit_rows(rows.x.double()) if metric == "cosine" else rows.x.double()

    def add(_: slice, rows: Rows) -> None:
        total.add_(ready(rows).sum(0))

    def measure(where: slice, rows: Rows) -> None:
        difference = ready(rows) * len(reader) - total
        far[where] = difference.abs().sum(1) if metric == "manhattan" else difference.square().sum(1)

    source.each(add, width=2)
    source.each(measure, width=2)
    value = far / (len(reader) if metric == "manhattan" else len(reader) ** 2)
    distance = value / 2 if metric == "cosine" else space.distance(value)
    pool.refresh()  # the merit
    values = torch.where(pool.free, pool.merit * distance.pow(pool.diversity.strength), -torch.inf)
    row = values.argmax(0, keepdim=True)
    best = values[row]
    pool.lower(row)
    pool.take(row)
    return row, best
