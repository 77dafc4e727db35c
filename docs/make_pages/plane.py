"""The pool that the pictures of the strategies are drawn of: points in a plane, and a model with every capability."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor
from torch.nn.functional import normalize

from torchal.models import LogisticRegression
from torchal.pool import LabeledData, Pool
from torchal.protocols import LastLayer
from torchal.runs import ActiveLearner, Schedule, rounds
from torchal.samplers import Sampler

HALF_WIDTH, HALF_HEIGHT = 3.2, 2.2
"""The plane reaches from minus these to these."""

N_CLASSES = 3
BATCH = 6
_START_PER_CLASS = 2
SQUARE = 0.8  # the side of the squares that are the groups of `by_group`


class Plane(NamedTuple):
    """Points, their classes, and what strategies may ask for beside them.

    Shapes:
        inputs: (N, 2) float64.
        truth: (N,) int64, the class of each, which no strategy sees.
        start: (6,) int64, the rows that are labeled before the first round.
        validation: (M, 2) and (M,), of the same kind.
        groups: (N,) int64, in which square of the plane each row lies.
    """

    inputs: Tensor
    truth: Tensor
    start: Tensor
    validation: LabeledData
    groups: Tensor


class PlaneModel(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A logistic regression on the likeness of a row to a grid of places: its borders are curved.

    What its last layer reads are features of length 1, whose cosine falls with the distance in the plane as a
    Gaussian does. So strategies that compare directions, as those of a network's embedding, compare places here.

    Args:
        width: the distance at which the cosine is exp(-1/2).
        C: as of `torchal.LogisticRegression`.
    """

    takes_tensors = True

    def __init__(self, *, width: float = 1.0, C: float = 30.0) -> None:
        self.width = width
        self.C = C

    def fit(self, X: Tensor, y: Tensor) -> PlaneModel:
        """Fit the last layer, and the Gaussian around its weights that posterior draws come from."""
        linear = LogisticRegression(C=self.C, posterior="laplace", random_state=0, device="cpu")
        self.linear_ = linear.fit(self.transform(X), y)
        self.classes_ = self.linear_.classes_
        return self

    def predict(self, X: Tensor) -> Any:
        """Return labels (n,)."""
        return self.linear_.predict(self.transform(X))

    def predict_proba(self, X: Tensor) -> Any:
        """Return probabilities (n, C)."""
        return self.linear_.predict_proba(self.transform(X))

    def decision_function(self, X: Tensor) -> Any:
        """Return decision values (n, C), or (n,) for two classes."""
        return self.linear_.decision_function(self.transform(X))

    def sample_log_probs(self, X: Tensor, k: int) -> Any:
        """Return log-probabilities (n, k, C) of k draws from the Gaussian around the weights."""
        return self.linear_.sample_log_probs(self.transform(X), k)

    def last_layer(self, X: Tensor) -> LastLayer:
        """Return the linear layer that reads the features."""
        return self.linear_.last_layer(self.transform(X))

    def transform(self, X: Tensor) -> Tensor:
        """Return features (n, D) of length 1."""
        places, root = _grid(self.width)
        return normalize(_likeness(X.double(), places, self.width) @ root, dim=1)


@lru_cache(maxsize=1)
def _grid(width: float) -> tuple[Tensor, Tensor]:
    """Return places over the plane (D, 2), and the inverse root (D, D) of their likeness to each other."""
    steps = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (9, 7))
    places = torch.cartesian_prod(*steps) * torch.tensor([HALF_WIDTH, HALF_HEIGHT], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(_likeness(places, places, width))
    values = values.clamp(min=1e-6)  # directions in which no place differs from the others stay small
    return places, vectors @ (values.rsqrt().unsqueeze(1) * vectors.T)


def _likeness(a: Tensor, b: Tensor, width: float) -> Tensor:
    return torch.exp(-0.5 * (torch.cdist(a, b) / width).square())


@lru_cache(maxsize=1)
def make_plane() -> Plane:
    """Return the pool: a dense blob, two classes that overlap, a small island far from its class, and outliers.

    Example:
        >>> plane = make_plane()
        >>> len(plane.inputs), plane.truth.bincount().tolist()
        (257, [101, 72, 84])
    """
    generator = torch.Generator().manual_seed(4)
    inputs, truth = _draw((90, 70, 60, 18), generator)
    edge = torch.tensor([[-3.0, -2.0], [-2.9, 0.6], [0.1, 2.0], [3.0, 1.9], [3.0, -1.9], [-0.3, -2.0]])
    inputs = torch.cat([inputs, edge.double(), _draw((9, 0, 4, 0), generator)[0]])
    truth = torch.cat([truth, torch.tensor([0, 0, 1, 1, 2, 2] + [0] * 9 + [2] * 4)])
    validation = LabeledData(*_draw((30, 24, 20, 6), generator))
    order = torch.randperm(len(truth), generator=generator)  # equal scores go to the lowest row: to no class first
    inputs, truth = inputs[order], truth[order]
    start = torch.cat([_nearest_of_class(inputs, truth, label) for label in range(N_CLASSES)])
    column, row = ((inputs + torch.tensor([HALF_WIDTH, HALF_HEIGHT])) / SQUARE).floor().long().T
    return Plane(inputs, truth, start, validation, 10 * row + column)


def _draw(sizes: tuple[int, int, int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points (M, 2) of the four regions and their classes (M,)."""
    regions = (((-1.7, -0.8), 0.36, 0), ((0.5, 0.6), 0.6, 1), ((1.5, -0.6), 0.55, 2), ((-1.9, 1.5), 0.22, 2))
    parts = [
        torch.tensor(middle, dtype=torch.float64) + spread * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        for n, (middle, spread, _) in zip(sizes, regions, strict=True)
    ]
    labels = [torch.full((n,), label) for n, (_, _, label) in zip(sizes, regions, strict=True)]
    limit = torch.tensor([HALF_WIDTH, HALF_HEIGHT], dtype=torch.float64) - 0.15
    return torch.cat(parts).clamp(-limit, limit), torch.cat(labels)


def _nearest_of_class(inputs: Tensor, truth: Tensor, label: int) -> Tensor:
    """Return the rows of a class nearest to its middle, as a person who starts by hand takes clear cases."""
    rows = (truth == label).nonzero().squeeze(1)
    middle = inputs[rows].median(dim=0).values
    return rows[(inputs[rows] - middle).norm(dim=1).argsort()[:_START_PER_CLASS]]


class Snapshot(NamedTuple):
    """One round: what was labeled before it, what was picked, and the model that the strategy looked at.

    Shapes:
        before: (L,) int64.
        picks: (BATCH,) int64, in pick order.
    """

    round: int
    before: Tensor
    picks: Tensor
    model: Any


def play(sampler: Sampler, n_rounds: int) -> list[Snapshot]:
    """Let a sampler pick `n_rounds` batches of the plane, each by a model fitted on all labels before it."""
    plane = make_plane()
    pool = Pool.unlabeled(plane.inputs, n_classes=N_CLASSES)
    learner = ActiveLearner(PlaneModel(), sampler, pool, validation=plane.validation, seed=0)
    schedule = Schedule(batch_size=BATCH, max_rounds=n_rounds)
    snapshots: list[Snapshot] = []
    before, model = plane.start, None
    for result in rounds(learner, lambda rows: plane.truth[rows], schedule, start=plane.start):
        if model is not None:
            snapshots.append(Snapshot(result.round, before, result.rows, model))
            before = torch.cat([before, result.rows])
        model = learner.model  # that of the next batch
    return snapshots
