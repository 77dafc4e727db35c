"""Targeted selection: rows that are like given ones, or unlike, and cover what there is of such."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_finite, check_positive
from torchal._chunks import exact_arithmetic
from torchal.engine.affinity import Affinity, Similarity, check_similarity, highest_with, open_affinity
from torchal.engine.coverage import MAX_HELD, Coverage
from torchal.engine.distances import Rows
from torchal.engine.features import FeatureReader, Features, as_matrix
from torchal.engine.sources import HeldRows, Source
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.submodular import Covering, checked_pool

Measure: TypeAlias = Literal["flqmi", "flvmi", "flcg"]


def similar(
    features: Features,
    n: int,
    *,
    measure: Measure,
    query: Features | None = None,
    private: Features | None = None,
    strength: float = 1.0,
    similarity: Similarity = "cosine",
    gamma: float | None = None,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    max_held: int = MAX_HELD,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Covering:
    r"""Pick, again and again, the row that adds most to what picks share with a query, or do not with a private set.

    With s the similarity, clipped at 0, A the picks, Q the query, P the private set and V the pool:

    - flqmi: the sum over q in Q of max s(q, A), plus strength times the sum over a in A of max s(a, Q). Near the query;
      the cost is that of the pool with the query only.
    - flvmi: the sum over v in V of min(max s(v, A), strength max s(v, Q)). What represents the pool near the query.
    - flcg: the sum over v in V of max(0, max s(v, A) - strength max s(v, P)). What represents the pool far from P; with
      strength 1 it is `facility_location` with P as its labeled rows.

    Ties and costs are those of `facility_location`, and so is the cosine of a row of zeros: 0 with every row.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to pick.
        measure: flqmi, flvmi or flcg.
        query: rows that picks should be like, as those of a rare class; for flqmi and flvmi.
        private: rows that picks should be unlike; for flcg.
        strength: above 1, query and private set count more: eta (flqmi, flvmi) and nu (flcg) of the paper.
        similarity: cosine; rbf, exp(-gamma d^2) of the euclidean distance d; or euclidean, 1 / (1 + d).
        gamma: of rbf; 1 / the sum of the columns' variances unless given.
        labeled: rows that may not be picked, where `candidates` is not given; they cover nothing here.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        weights: how much each row of V counts, for flvmi and flcg; 1 unless given.
        max_held: as in `facility_location`.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; what fits unless given.

    Shapes:
        features: (N, D) float.
        query: (Q, D) float, on the features' device.
        private: (P, D) float, on the features' device.
        labeled, candidates: (N,) bool, on the features' device.
        weights: (N,) float, at least 0, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), what each pick added; value, the measure of all picks, and bound, a
        number that no n picks can exceed.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: an unknown measure or similarity; the set that the measure needs is missing, or one is given that
            it has no use for; strength or gamma is not above 0; max_held is no whole number of at least 0.
        ShapeError: a tensor disagrees in shape, dtype or device.
        DataError: no rows, or none in a set; numbers that are not finite; weights that are negative.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Kothawade, Beck, Killamsetty & Iyer, "SIMILAR: Submodular Information Measures Based Active Learning In
        Realistic Scenarios", NeurIPS 2021, Table 1. Similarities below 0 count as 0. The paper compares rows by their
        gradients at the last layer; here they are compared by whatever the features are.

    Complexity:
        flqmi: N Q D multiply-adds for each of a few passes; else as `facility_location`, and N Q D once.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0], [-1.0, 0.0]])
        >>> similar(x, 2, measure="flqmi", query=torch.tensor([[0.0, 3.0]])).indices
        tensor([2, 3])
        >>> similar(x, 1, measure="flcg", private=torch.tensor([[0.0, 3.0]])).indices
        tensor([0])
    """
    check_measure(measure, query=query is not None, private=private is not None)
    check_positive("strength", strength)
    check_similarity(similarity, gamma)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    labeled, candidates, weights = checked_pool(reader, labeled, candidates, weights, max_held=max_held)
    check_budget(n, int(candidates.sum()))
    name, some = ("private", private) if measure == "flcg" else ("query", query)
    assert some is not None
    some = _as_set(name, some, reader)
    allowed = candidates.to(reader.device)
    with exact_arithmetic(reader.device):
        affinity, source = open_affinity(reader, similarity, gamma=gamma)
        others = affinity.space.prepare(some.detach().to(reader.device))
        nearest = highest_with(source, others, affinity).clamp_(min=0) * strength
        if measure == "flqmi":
            if weights is not None:
                raise ConfigError("weights are of the pool's rows, and flqmi covers the query alone")
            coverage = _of_query(affinity, source, others, bonus=nearest, allowed=allowed, max_held=max_held)
        else:
            counts = torch.ones_like(nearest) if weights is None else weights.detach().to(nearest)
            coverage = Coverage(
                affinity,
                source,
                source,
                values=nearest if measure == "flcg" else torch.zeros_like(nearest),
                weights=counts,
                allowed=allowed,
                caps=nearest if measure == "flvmi" else None,
                max_held=max_held,
            )
        start = coverage.total()
        picked, gains, value, bound = coverage.pick_and_bound(n)
    scores = gains.to(reader.home, torch.promote_types(reader.dtype, torch.float32))
    return Covering(picked.to(reader.home), scores, value - start, bound - start)


def _of_query(
    affinity: Affinity, source: Source, query: Rows, *, bonus: Tensor, allowed: Tensor, max_held: int
) -> Coverage:
    """Return the coverage of the query's rows by those of the pool."""
    rows = HeldRows(query, source.longest_sq, source.in_chunks)
    ones = torch.ones_like(query.sq)
    return Coverage(
        affinity, rows, source, values=ones * 0, weights=ones, allowed=allowed, bonus=bonus, max_held=max_held
    )


def check_measure(measure: object, *, query: bool, private: bool) -> None:
    """Require a measure that is known, with the set that it is of and no other.

    Raises:
        ConfigError: it is not.
    """
    if measure not in get_args(Measure):
        raise ConfigError(f"measure must be one of {', '.join(get_args(Measure))}, got {measure!r}")
    wanted, other = ("private", "query") if measure == "flcg" else ("query", "private")
    given = {"query": query, "private": private}
    if not given[wanted]:
        raise ConfigError(f"{measure} needs a {wanted} set, got none")
    if given[other]:
        raise ConfigError(f"{measure} has no use for a {other} set")


def _as_set(name: str, rows: Features, reader: FeatureReader) -> Tensor:
    """Return the rows of a set, which must be finite and have the pool's columns, where the features are."""
    rows = as_matrix(name, rows, device=reader.home)
    if rows.shape[1] != reader.n_columns or rows.device != reader.home:
        raise ShapeError(
            f"{name} must have {reader.n_columns} columns on {reader.home}, got {tuple(rows.shape)} on {rows.device}"
        )
    if not len(rows):
        raise DataError(f"{name} has no rows")
    check_finite(name, rows)
    return rows
