"""One decision for many scored parts: boxes of an image, frames of a video, sentences of a document."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_integers, as_mask, check_budget, check_whole
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.quotas import rank_within
from torchal.functional.selection import Selection

How: TypeAlias = Literal["max", "mean", "sum", "top_k"]
Ids: TypeAlias = "Tensor | Sequence[int] | Sequence[str]"


class Segments(NamedTuple):
    """To which group each row belongs. Groups are numbered as they first come, so the first row is of group 0.

    Shapes:
        groups: (N,) int64, the number of each row's group, 0 to G - 1.
        ids: G ids, what the groups are called: all int, or all text.
    """

    groups: Tensor
    ids: list[Any]

    @property
    def digest(self) -> str:
        """A few letters that tell different segments apart."""
        parts = (self.groups.cpu().numpy().tobytes(), repr(self.ids).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


class Aggregated(NamedTuple):
    """The scores of groups, which are numbered as they first come.

    Shapes:
        scores: (G,) float; -inf for a group without a candidate.
        counts: (G,) int64, the candidates of each group.
        groups: (N,) int64, the group of each row.
        ids: G ids, what the groups are called.
    """

    scores: Tensor
    counts: Tensor
    groups: Tensor
    ids: list[Any]


def as_segments(segments: Ids | Segments, *, n_rows: int, device: torch.device | str = "cpu") -> Segments:
    """Return the group of each row, from ids that are whole numbers or text.

    Rows of a group need not follow each other.

    Args:
        segments: an id for each row: a tensor, an array or a list; or what this function returned before.
        n_rows: how many there must be.
        device: where the numbers are wanted.

    Raises:
        ShapeError: not one id for each row, or ids that are neither whole numbers nor text, or some of either; a
            `Segments` whose groups are not numbered as they first come, or not as many as its ids.

    Example:
        >>> as_segments(["cat.jpg", "dog.jpg", "cat.jpg"], n_rows=3)
        Segments(groups=tensor([0, 1, 0]), ids=['cat.jpg', 'dog.jpg'])
    """
    if isinstance(segments, Segments):
        found = _checked(segments)
    elif isinstance(segments, str):
        raise ShapeError(f"segments must be a list of ids, got the text {segments!r}")
    else:
        found = _numbered(segments)
    if len(found.groups) != n_rows:
        raise ShapeError(f"segments must have one id for each of {n_rows} rows, got {len(found.groups)}")
    return Segments(found.groups.to(device), found.ids)


def _checked(segments: Segments) -> Segments:
    """Return segments that somebody made, after looking at their numbers.

    Raises:
        ShapeError: the groups are not numbered from 0 on as they first come, or not as many as there are ids.
    """
    groups, ids = as_integers("the groups of segments", segments.groups), list(segments.ids)
    so_far = groups.cummax(0).values
    n_groups = int(so_far[-1]) + 1 if len(groups) else 0
    new = so_far.diff(prepend=so_far.new_full((1,), -1))  # the first row is of group 0, a new group is the next one
    if n_groups != len(ids) or bool(((groups < 0) | (new > 1)).any()):
        raise ShapeError(
            f"the groups of segments must be numbered 0 to {len(ids) - 1} for {len(ids)} ids, in the order in which "
            f"they first come; got {groups[:10].tolist()}{'...' if len(groups) > 10 else ''}"
        )
    return Segments(groups, ids)


def _numbered(ids: Any) -> Segments:
    """Return ids, whole numbers or text, as segments of any length."""
    if not isinstance(ids, Tensor):
        if not isinstance(ids, np.ndarray):
            ids = list(ids)
        elif ids.dtype.kind not in "iu":
            ids = ids.tolist()
    if isinstance(ids, list):
        n_texts = sum(isinstance(value, str) for value in ids)
        if n_texts and n_texts < len(ids):
            raise ShapeError(f"segments must be all text or all whole numbers: {n_texts} of {len(ids)} are text")
        if n_texts:
            # not by numpy: its arrays of text give every id the room of the longest, and end each at a NUL
            names: dict[str, int] = {}
            index = np.fromiter((names.setdefault(name, len(names)) for name in ids), np.int64, len(ids))
            return Segments(torch.from_numpy(index), [str(name) for name in names])
    numbers, inverse = as_integers("segments", ids).unique(return_inverse=True)
    order = torch.arange(len(inverse), device=inverse.device)
    first = order.new_full((len(numbers),), len(order)).scatter_reduce_(0, inverse, order, "amin")
    as_they_come = first.argsort()
    place = torch.empty_like(as_they_come)
    place[as_they_come] = torch.arange(len(numbers), device=place.device)
    return Segments(place[inverse], numbers[as_they_come].tolist())


def aggregate(
    scores: ArrayLike,
    segments: Ids | Segments,
    how: How = "max",
    *,
    k: int | None = None,
    candidates: ArrayLike | None = None,
) -> Aggregated:
    """Return one score for each group of rows: one decision for many scored parts.

    Which groups to label is then `top_n(aggregated.scores, n, candidates=aggregated.counts > 0)`; which rows,
    `top_of_groups`. "sum" prefers groups with many rows, "mean" does not care how many there are, "max" looks at the
    best one alone, and "top_k" is the mean of the k best, of all where there are fewer.

    Args:
        scores: of the rows; higher = more wanted.
        segments: the id of each row's group, whole numbers or text.
        how: "max", "mean", "sum" or "top_k".
        k: how many rows count with "top_k".
        candidates: the rows that count; all unless given.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        segments: (N,).
        candidates: (N,) bool, on the scores' device.

    Returns:
        scores (G,) in the dtype of the scores, float32 for half precision; counts (G,), groups (N,) and ids. Groups are
        numbered as they first come, so that ties among groups go to the one with the lowest row.

    Raises:
        ConfigError: an unknown `how`; k is not a whole number of at least 1 with "top_k", or given with another.
        ShapeError: scores is no float vector, or segments or candidates disagree with it.
        DataError: a candidate's score is NaN, or a group has both inf and -inf, which have no mean or sum.

    Complexity:
        O(N) reads and one sort of N group numbers, with "top_k" one of N scores too; O(N) memory. Sums are taken in
        float64 and in row order, so they do not depend on the device's threads.

    Example:
        >>> scores = torch.tensor([0.1, 0.9, 0.5, 0.4])
        >>> found = aggregate(scores, ["a", "b", "a", "b"], "mean")
        >>> found.ids, found.scores
        (['a', 'b'], tensor([0.3000, 0.6500]))
    """
    check_how(how, k)
    scores = as_float("scores", scores, ndim=1)
    index, ids = as_segments(segments, n_rows=len(scores), device=scores.device)
    _, values, group = _candidates_of(scores, index, candidates)
    counts = group.bincount(minlength=len(ids))
    order = group.argsort(stable=True)
    if how == "top_k":
        assert k is not None
        order = _best_first(values, group)
        order = order[rank_within(group[order]) < k]
    kept = group[order].bincount(minlength=len(ids))
    reduce = "mean" if how == "top_k" else how
    lowest = -torch.inf if how == "max" else 0
    reduced = torch.segment_reduce(values[order].double(), reduce, lengths=kept, initial=lowest)
    out = torch.where(counts > 0, reduced, -torch.inf)
    if bool(out.isnan().any()):
        group_id = ids[int(out.isnan().nonzero()[0])]
        raise DataError(f"group {group_id!r} has scores inf and -inf, which have no {reduce}")
    return Aggregated(out.to(torch.promote_types(scores.dtype, torch.float32)), counts, index, ids)


def top_of_groups(
    scores: Tensor,
    segments: Ids | Segments,
    n: int,
    *,
    how: How = "max",
    k: int | None = None,
    per_group: int | None = None,
    candidates: ArrayLike | None = None,
) -> Selection:
    """Pick n rows, group by group: all rows of the best group, then all of the next, until there are n.

    Groups come by their aggregated score, and the rows of a group by their own, best first; the last group is cut short
    where it has more rows than are missing. With `per_group`, each group gives so many of its best rows; only when all
    have, and n is not reached, each gives as many again.

    Args:
        scores: as in `aggregate`.
        segments: as in `aggregate`.
        n: how many rows to pick.
        how: as in `aggregate`.
        k: as in `aggregate`.
        per_group: the most rows of a group, as long as there are other groups; all of them unless given.
        candidates: the rows that may be picked, and that count for their group.

    Shapes:
        scores: (N,) float; -inf and inf are allowed, NaN is not.
        segments: (N,).
        candidates: (N,) bool, on the scores' device.

    Returns:
        indices (n,) in pick order; scores (n,), the aggregated score of the row's group.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        See `aggregate` for the others.

    Complexity:
        As `aggregate`, and sorts of N rows.

    Example:
        >>> scores = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.6])
        >>> top_of_groups(scores, [0, 1, 0, 1, 2], 3).indices
        tensor([1, 3, 4])
        >>> top_of_groups(scores, [0, 1, 0, 1, 2], 4, per_group=1).indices
        tensor([1, 4, 2, 3])
    """
    if per_group is not None:
        check_whole("per_group", per_group, least=1)
    found = aggregate(scores, segments, how, k=k, candidates=candidates)
    rows, values, group = _candidates_of(scores, found.groups, candidates)
    check_budget(n, len(rows))
    by_score = found.scores.sort(descending=True, stable=True).indices
    place = torch.empty_like(by_score)
    place[by_score] = torch.arange(len(by_score), device=by_score.device)
    order = _best_first(values, place[group])
    if per_group is not None:
        order = order[(rank_within(group[order]) // per_group).argsort(stable=True)]
    order = order[:n]
    return Selection(rows[order], found.scores[group[order]])


def check_how(how: object, k: object) -> None:
    """Require a way to aggregate, and k where it has one.

    Raises:
        ConfigError: see `aggregate`.
    """
    if how not in get_args(How):
        raise ConfigError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    if how == "top_k":
        check_whole("k", k, least=1)
    elif k is not None:
        raise ConfigError(f"k is for how='top_k', got k={k!r} with how={how!r}")


def _candidates_of(scores: Tensor, index: Tensor, candidates: ArrayLike | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidates (M,), their scores and their groups.

    Raises:
        DataError: a score among them is NaN.
    """
    if candidates is None:
        candidates = torch.ones_like(scores, dtype=torch.bool)
    candidates = as_mask("candidates", candidates, n_rows=len(scores), device=scores.device)
    rows = candidates.nonzero().squeeze(1)
    values = scores[rows]
    if bool(values.isnan().any()):
        raise DataError(f"scores must not be NaN: {int(values.isnan().sum())} of {len(values)} candidates are")
    return rows, values, index[rows]


def _best_first(values: Tensor, group: Tensor) -> Tensor:
    """Return the order (M,) of rows by group, in a group the highest value first, equal ones as they come."""
    order = values.sort(descending=True, stable=True).indices
    return order[group[order].argsort(stable=True)]
