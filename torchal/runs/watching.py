"""What the rounds of a run can record of the pool and of the batches, beside the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.errors import CapabilityError, ConfigError
from torchal.functional.k_center import assign_to_centers
from torchal.pool import interop
from torchal.pool.inputs import gather, have_distances
from torchal.pool.pool import Pool
from torchal.pool.view import PoolView
from torchal.protocols import Classifier, HasEmbedding, HasProbabilities, Inputs, check_provides, provides
from torchal.runs.metrics import cohens_kappa

WATCHED = ("kappa", "uncertainty", "redundancy", "cover_radius", "batch_uncertainty")
"""What `ActiveLearner.watch` takes."""

_STOP_SET = 2000  # rows of the pool, Bloodgood & Vijay-Shanker's number
_IN_DISTANCES = {"redundancy", "cover_radius"}
_IN_PROBABILITIES = {"uncertainty": "the uncertainty of the pool", "batch_uncertainty": "the uncertainty of a batch"}
_MOST_ROWS = 500  # of which all pairs are measured: some 125 000 distances tell a mean to within a percent


def check_watched(names: Sequence[str], *, model: Classifier, looked_at: Classifier, inputs: Inputs) -> None:
    """Require names of what can be watched of these models and inputs.

    Raises:
        ConfigError: a name is none of them.
        CapabilityError: a model has no probabilities, or rows no distances, where they are wanted.
    """
    unknown = [name for name in names if name not in WATCHED]
    if unknown:
        raise ConfigError(f"what can be watched is {', '.join(WATCHED)}; got {', '.join(map(repr, unknown))}")
    for name, what in _IN_PROBABILITIES.items():
        if name in names:
            check_provides(model, HasProbabilities, needed_by=what)
    measured = [name for name in names if name in _IN_DISTANCES]
    has_features = provides(looked_at, HasEmbedding) or interop.preprocesses(looked_at, inputs)
    if measured and not has_features and not have_distances(inputs):
        raise CapabilityError(
            f"{' and '.join(measured)} are of distances: {type(looked_at).__name__} has no embedding, and these inputs "
            "are sparse, ids, or no numbers"
        )


class Watched:
    """What the rounds of a learner record of its pool, and what they remember for that.

    Attributes:
        names: of what is watched.
        last_predictions: (n,) int64, of the stop set, in the last finished round.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.last_predictions: Tensor | None = None

    def of_stop_set(self, pool: Pool, model: Classifier, generator: torch.Generator) -> dict[str, float]:
        """Return what is to be watched of up to 2 000 rows of a pool, drawn by the generator, by the fitted model."""
        rows = torch.randperm(len(pool), generator=generator)[:_STOP_SET].sort().values
        some, found = gather(pool.inputs, rows), {}
        if "kappa" in self.names:
            predicted = interop.predictions(model, some).cpu()
            if self.last_predictions is not None:
                found["kappa"] = cohens_kappa(self.last_predictions, predicted)
            self.last_predictions = predicted
        left = pool.candidates[rows.to(pool.device)]
        if "uncertainty" in self.names and bool(left.any()):
            least_sure = 1 - interop.log_probs(model, some).double().amax(1).exp()
            found["uncertainty"] = float(least_sure[left.to(least_sure.device)].mean())
        return found


def of_batch(
    names: Sequence[str], view: PoolView, rows: Tensor, *, model: Classifier | None, generator: torch.Generator
) -> dict[str, float]:
    """Return what is to be watched of a batch when it is picked, by the models that are there before its labels are.

    Args:
        names: of all that is watched.
        view: what the sampler saw.
        rows: what it picked.
        model: the one that is scored, None where there is none yet.
        generator: of the rows that the batch is compared with; not the sampler's.

    Shapes:
        rows: (n,) int64.
    """
    found = {}
    if "redundancy" in names:
        found["redundancy"] = redundancy(view, rows, generator)
    if "batch_uncertainty" in names and model is not None:
        found["batch_uncertainty"] = batch_uncertainty(model, view.inputs, rows)
    return {name: value for name, value in found.items() if value is not None}


def redundancy(view: PoolView, rows: Tensor, generator: torch.Generator) -> float | None:
    """Return the mean distance of two rows of a batch, divided by that of two random candidates.

    Below 1 the batch is closer together than chance would have it: some of its labels say the same. None for a batch
    of one, and where the random rows are all the same. Of more than 500 rows, 500 drawn at random are measured.

    Distances are euclidean, of the view's features: the embedding of the model where it has one, else the flat inputs.
    Only those rows are embedded.

    Shapes:
        rows: (n,) int64.
    """
    if len(rows) < 2:
        return None
    own, others = (_features(view, _some(of, generator)) for of in (rows, view.candidates.nonzero().squeeze(1)))
    usual = mean_distance(others)
    return mean_distance(own) / usual if usual else None


def batch_uncertainty(model: Classifier, inputs: Inputs, rows: Tensor) -> float:
    """Return the mean over rows (n,) of 1 minus the largest probability."""
    return float((1 - interop.log_probs(model, gather(inputs, rows)).double().amax(1).exp()).mean())


def cover_radius(view: PoolView) -> float:
    """Return the largest distance of a row of the pool to the labeled row that is nearest to it.

    What k-center greedy makes small. Distances are those of `redundancy`; an embedding that is learned anew in each
    round has a scale of its own, and a radius in it compares samplers in the same round rather than rounds.

    A product of all features with those of the labeled rows, in chunks.
    """
    features, labeled = view.features, view.rows_where(view.labeled)
    distances = assign_to_centers(features, labeled.to(features.device), group=view.group).distances
    if view.group is None:
        return float(distances.max())
    return float(view.group.all_reduce(distances.max() if len(distances) else distances.new_zeros(()), "max"))


def mean_distance(features: Tensor) -> float:
    """Return the mean euclidean distance of two different rows, over all pairs.

    Shapes:
        features: (n, D) float with n >= 2.

    Example:
        >>> mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]))
        3.3333333333333335
    """
    n = len(features)
    products = features.new_zeros((n, n), dtype=torch.float64)
    for columns in features.split(max(1, values_per_chunk(features.device) // n), dim=1):
        # in float64 and around the mean, the distance of near copies is none of rounding
        centered = columns.double()
        centered = centered - centered.mean(0)
        products.addmm_(centered, centered.T)
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp(min=0).sqrt()
    distances.fill_diagonal_(0)
    return float(distances.sum()) / (n * (n - 1))


def mean_of_asks(asks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of what was watched of several batches, each as much as it has rows."""
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for ask in asks:
        for name, value in ask.get("watched", {}).items():
            sums[name] = sums.get(name, 0.0) + value * len(ask["rows"])
            sizes[name] = sizes.get(name, 0) + len(ask["rows"])
    return {name: total / sizes[name] for name, total in sums.items()}


def _some(rows: Tensor, generator: torch.Generator) -> Tensor:
    if len(rows) <= _MOST_ROWS:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:_MOST_ROWS].sort().values.to(rows.device)]


def _features(view: PoolView, rows: Tensor) -> Tensor:
    if view.features_from == "given":
        return view.features[rows.to(view.features.device)]
    inputs = gather(view.inputs, rows)
    return interop.raw_features(inputs) if view.features_from == "inputs" else view.features_at(inputs)
