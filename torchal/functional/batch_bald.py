"""BatchBALD: batches whose labels, together, say the most of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_mask, check_budget, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.information import (
    LEAST_LIFT,
    Labels,
    Outcomes,
    as_draws,
    compute_dtype,
    labels_of,
    rows_per_chunk,
)
from torchal.functional.selection import Selection

_SLACK = 64  # roundings of 1 by which a computed gain may be off, labels that were left out included
_EQUAL = 1e-12  # nats: gains this near to each other in float64 are equal
_MOST_COMPARED = 256  # rows of nearly equal gain that are compared in float64; of more, the lowest
_FIRST_BLOCK = 16  # rows, at least, whose gains are brought up to date together
_IMPOSSIBLE = 1e-12  # the probability of all configurations together that are dropped for being improbable


def batch_bald(
    log_probs: ArrayLike,
    n: int,
    *,
    generator: torch.Generator,
    candidates: ArrayLike | None = None,
    max_configurations: int = 10_000,
) -> Selection:
    """Pick rows one after another, each for what its label adds to what those of the rows before it say of the model.

    BALD scores rows one by one, so that the best batch is often the best row and its copies. Here a copy of a picked
    row gains only what a second label of it would say.

    What the labels of the picked rows say is a sum over their configurations, C^m of m rows, which are all looked at as
    long as there are no more than `max_configurations` with any probability; the picks are then exactly those of the
    greedy algorithm. From there on as many of them stand for all: the most probable, and a sample of the rest. A gain
    then has a standard error, that which `joint_mutual_information` gives for the batch, and a row that is passed over
    may be better by about as much. As the largest of many gains from one sample, the score of a pick is then likely to
    be too high; what `joint_mutual_information` estimates from a sample of its own is not.

    Args:
        log_probs: under draws from the posterior, each of which is one function of all rows.
        n: how many rows to pick.
        generator: the randomness of the sample; not used while all configurations are looked at.
        candidates: rows that may be picked; all unless given.
        max_configurations: how many configurations of the picked rows' labels to look at. An error shrinks at least
            with its root.

    Shapes:
        log_probs: (N, K, C) float, natural logarithms of class probabilities; -inf is probability 0.
        candidates: (N,) bool.

    Returns:
        indices (n,) in pick order; scores (n,), the gain of each pick in nats: their sum is the joint mutual
        information between the labels of the batch and the model. Gains nearer than 1e-12 are equal, and go to the
        lowest row; of more than 256 that the input's dtype cannot tell apart, only the lowest 256 rows are compared so
        closely. With one draw, or once the picked rows' labels tell all draws apart, gains are 0 up to rounding.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: log_probs is no float tensor of three axes, or candidates disagree in rows or device.
        DataError: a candidate's row does not sum to 1 (within 1e-3; 0.01 in float16, 0.1 in bfloat16), as when
            probabilities are given in place of their logarithms.
        ConfigError: max_configurations is not a whole number of at least 2.

    Reference:
        Kirsch, van Amersfoort & Gal, "BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian Active
        Learning", NeurIPS 2019, Algorithm 1 and section 3.3. Deviations: gains only shrink (the joint mutual
        information is submodular), so one that was computed some picks ago is an upper bound, and only rows whose bound
        reaches the best gain are looked at again. A gain is not a difference of joint entropies, but the row's own
        information less what its label shares with the batch's. In the place of samples drawn anew for each pick
        (equation 12), the configurations of the pick before go on with one label more, thinned by the resampling of
        Fearnhead & Clifford, "On-line inference for hidden Markov models via particle filters", JRSS B 2003, by one
        random number: without bias, and without variance from those that are kept.

    Complexity:
        M C (K multiply-adds and a logarithm) for each gain that is computed, M being at most `max_configurations`: one
        of each row with M = 1, then of those whose bounds are in question. O(N + M (K + C)) memory beyond the input,
        and chunks.

    Example:
        >>> first = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])  # four draws
        >>> second = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
        >>> probs = torch.stack([first, first, second])  # the copy of the best row says nothing new
        >>> batch_bald(probs.log(), 2, generator=torch.Generator()).indices
        tensor([0, 2])
    """
    log_probs = as_draws("log_probs", log_probs)
    check_whole("max_configurations", max_configurations, least=2)
    n_rows, device = len(log_probs), log_probs.device
    if candidates is None:
        rows = torch.arange(n_rows, device=device)
    else:
        candidates = as_mask("candidates", candidates, n_rows=n_rows, device=device)
        rows = candidates.nonzero().squeeze(1)
    check_budget(n, len(rows))
    with exact_arithmetic(device):
        pool = _Pool(log_probs, rows)
        picked = _Configurations.of_no_row(log_probs)
        indices, scores = [], []
        for _ in range(n):
            row, gain = pool.take_best(picked.outcomes)
            indices.append(row)
            scores.append(gain)
            if len(indices) < n:
                labels = labels_of(log_probs[row].unsqueeze(0), dtype=torch.float64)
                picked.add(labels, max_configurations, generator)
    return Selection(torch.stack(indices), torch.stack(scores).to(pool.dtype))


class JointInformation(NamedTuple):
    """What `joint_mutual_information` returns.

    Shapes:
        values: (n,) float64, of the first row, the first two, ..., all n.
        standard_errors: (n,) float64; 0 as long as all configurations were looked at.
    """

    values: Tensor
    standard_errors: Tensor


def joint_mutual_information(
    log_probs: ArrayLike, *, generator: torch.Generator, max_configurations: int = 10_000
) -> JointInformation:
    """Return how much the labels of rows, together, say of the model, in nats: what BatchBALD makes large.

    A standard error is that of a mean over as many independent draws as there are sampled configurations, times their
    share of the probability; those of the gains are added up. The sample's strata make the true one smaller.

    Args:
        log_probs: of the rows of one batch, under draws from the posterior.
        generator: the randomness of the sample, as in `batch_bald`.
        max_configurations: as in `batch_bald`.

    Shapes:
        log_probs: (n, K, C) float, natural logarithms of class probabilities; -inf is probability 0.

    Raises:
        ShapeError, DataError, ConfigError: as in `batch_bald`.

    Reference:
        Kirsch, van Amersfoort & Gal, NeurIPS 2019; see `batch_bald`.

    Complexity:
        n M C K multiply-adds with M at most max_configurations; O(M (K + C)) memory.

    Example:
        >>> row = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()  # two draws that disagree: one label tells them apart
        >>> joint_mutual_information(torch.stack([row, row]), generator=torch.Generator()).values
        tensor([0.6931, 0.6931], dtype=torch.float64)
    """
    log_probs = as_draws("log_probs", log_probs)
    check_whole("max_configurations", max_configurations, least=2)
    gains, errors = [], []
    with exact_arithmetic(log_probs.device):
        seen = _Configurations.of_no_row(log_probs)
        for row in range(len(log_probs)):
            labels = labels_of(log_probs[row : row + 1], dtype=torch.float64, rows=range(row, row + 1))
            gain, error = seen.add(labels, max_configurations, generator)
            gains.append(gain)
            errors.append(error)
    none = log_probs.new_zeros(0, dtype=torch.float64)
    return JointInformation(*(torch.stack(parts).cumsum(0) if parts else none for parts in (gains, errors)))


class _Configurations:
    """What the labels of some rows may be: all configurations, or a weighted sample, with their lifts. In float64.

    Args:
        outcomes: the configurations.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self._inverse_size: Tensor | float = 0.0  # of the sample: its mean's variance is this times that of its values

    @classmethod
    def of_no_row(cls, log_probs: Tensor) -> _Configurations:
        """Return the one configuration of no labels, which every draw gives probability 1."""
        ones = torch.ones(1, log_probs.shape[1], dtype=torch.float64, device=log_probs.device)
        return cls(Outcomes(ones, ones[:, 0]))

    def add(self, labels: Labels, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Go on to the configurations with one more row, at most so many; return its gain () and standard error ()."""
        lifts, probs = labels.lifts[0], labels.probs[0]
        ratio = self.outcomes.lifts @ lifts.T / lifts.shape[1]  # (M, C), of p(y | configuration) to p(y)
        # how far each configuration moves the label's probabilities, Kullback-Leibler, (M,)
        shared = (ratio * ratio.log()) @ probs
        mean = self.outcomes.probs @ shared
        variance = self.outcomes.probs @ (shared - mean).square()
        gain = labels.information.sum() - mean
        error = (variance * self._inverse_size).sqrt()
        weights = (self.outcomes.probs.unsqueeze(1) * ratio * probs).flatten()
        places = (weights > _IMPOSSIBLE / len(weights)).nonzero().squeeze(1)
        weights = weights[places]
        if len(weights) > most:
            sampled, weights, inverse_size = _thinned(weights, most, generator)
            places = places[sampled]
            self._inverse_size = self._inverse_size + inverse_size
        before, label = places // len(probs), places % len(probs)
        # a product of lifts, scaled to the mean 1 again: no number of rows makes it vanish
        joint = self.outcomes.lifts[before] * lifts[label] / ratio.flatten()[places].unsqueeze(1)
        self.outcomes = Outcomes(joint.clamp_(min=LEAST_LIFT), weights)
        return gain, error


def _thinned(weights: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return n of more outcomes in the place of all, and their weights, whose expectations are those before.

    The largest stay. The others are drawn by chances in proportion to their weights and get one weight, the least that
    lets no chance be above 1: the choice of least variance (Fearnhead & Clifford, 2003). One random number draws all of
    them, in their order, so that outcomes of one stem have their share of the draws to within one.

    Shapes:
        weights: (Q,) float64 > 0 with Q > n.

    Returns:
        places (n,) int64, ascending; weights (n,); and the squared weight of those drawn over their number, ().
    """
    device = weights.device
    ordered, order = weights.sort(descending=True, stable=True)
    rest = ordered.flip(0).cumsum(0).flip(0)[:n]  # the weight of all but the largest 0, 1, ..., n - 1
    shared = rest / torch.arange(n, 0, -1, device=device)  # what each draw gets if so many are kept
    n_kept = int((ordered[:n] <= shared).nonzero()[0])  # the last is always: one draw takes all that is left
    weight = shared[n_kept]
    drawn_from = order[n_kept:].sort().values
    point = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64).to(device)
    steps = (weights[drawn_from] / weight).cumsum(0)
    points = torch.arange(n - n_kept, device=device) + point
    drawn = drawn_from[torch.searchsorted(steps, points, right=True).clamp(max=len(drawn_from) - 1)]
    places, back = torch.cat([order[:n_kept], drawn]).sort()
    weights = torch.cat([ordered[:n_kept], weight.expand(len(drawn))])[back]
    return places, weights, weight.square() * len(drawn)


class _Pool:
    """The rows that may be picked, each with an upper bound of its gain: the gain of some picks ago.

    Args:
        log_probs: (N, K, C) float.
        rows: (R,) int64, ascending, those that may be picked.
    """

    def __init__(self, log_probs: Tensor, rows: Tensor) -> None:
        self.dtype = compute_dtype(log_probs)
        self._log_probs = log_probs
        self._rows = rows
        self._slack = max(_EQUAL, _SLACK * torch.finfo(self.dtype).eps)
        of_rows = [labels.information.sum(1) for labels in _labels_by_chunk(log_probs, rows, self.dtype)]
        self._bounds = torch.cat(of_rows)  # BALD, the gain of a first pick

    def take_best(self, picked: Outcomes) -> tuple[Tensor, Tensor]:
        """Return the row of the largest gain, (), and the gain in float64, (); it cannot be taken again.

        Args:
            picked: configurations of the rows that were taken before.
        """
        self._update(picked)
        close = (self._bounds >= self._bounds.max() - self._slack).nonzero().squeeze(1)[:_MOST_COMPARED]
        gains = self._gains(close, picked, torch.float64)
        place = (gains >= gains.max() - _EQUAL).to(torch.uint8).argmax()  # the first of them, which is the lowest row
        self._bounds[close[place]] = -torch.inf
        return self._rows[close[place]], gains[place]

    def _update(self, picked: Outcomes) -> None:
        """Bring gains up to date, those of the largest bounds first, until no other row can have the largest.

        Then the bounds of all others are below it by more than the slack, or at most the slack, which is next to 0.
        """
        picked = _rounded(picked, self.dtype)
        waiting, best = self._bounds.clone(), self._bounds.new_full((), -torch.inf)
        size = max(_FIRST_BLOCK, values_per_chunk(waiting.device) // (len(picked.probs) * self._log_probs.shape[2]))
        while bool((waiting.max() + self._slack >= best) & (waiting.max() > self._slack)):
            places = waiting.topk(min(size, len(waiting))).indices
            gains = torch.where(
                waiting[places] > -torch.inf, self._gains(places, picked, self.dtype), self._bounds[places]
            )
            self._bounds[places] = gains
            waiting[places] = -torch.inf
            best = torch.maximum(best, gains.max())
            size += size // 2

    def _gains(self, places: Tensor, picked: Outcomes, dtype: torch.dtype) -> Tensor:
        gains = [
            labels.information.sum(1) - labels.shared_information(picked)
            for labels in _labels_by_chunk(self._log_probs, self._rows[places], dtype)
        ]
        return torch.cat(gains)


def _rounded(outcomes: Outcomes, dtype: torch.dtype) -> Outcomes:
    """Return outcomes in another dtype, without those that together are less probable than a rounding of 1."""
    kept = outcomes.probs > torch.finfo(dtype).eps / len(outcomes.probs)
    return Outcomes(outcomes.lifts[kept].to(dtype), outcomes.probs[kept].to(dtype))


def _labels_by_chunk(log_probs: Tensor, rows: Tensor, dtype: torch.dtype) -> Iterator[Labels]:
    for some in rows.split(rows_per_chunk(log_probs)):
        yield labels_of(log_probs[some], dtype=dtype, rows=some)
