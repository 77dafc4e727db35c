"""Fits of several learners' models by one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torchal.pool import interop
from torchal.pool.pool import Pool
from torchal.protocols import Classifier, HasBatchedFit, provides
from torchal.runs.fits import PHASES, Kind, checked_fit
from torchal.runs.learner import ActiveLearner
from torchal.runs.phases import Phases

_STACKED_VALUES = 2**26  # most numbers of rows that are stacked to be fitted together


def fit_together(learners: Sequence[ActiveLearner]) -> None:
    """Fit the models of several learners on all their labels, as each would by itself.

    Models of the same settings whose `fit_many` can give the bits of `fit` (`fits_as_alone`) are fitted by one call of
    it, where the learners have as many labels each; the time is shared out evenly. Whatever else has to be fitted is
    left for its learner to fit.
    """
    for kind in PHASES:
        alike: dict[tuple[Any, ...], list[ActiveLearner]] = {}
        for learner in learners:
            recipe = learner.fits.recipes.get(kind)
            if kind not in learner.fits.fitted and recipe is not None and _can_share_a_fit(recipe):
                settings = sorted((name, repr(value)) for name, value in recipe.get_params().items())  # type: ignore[attr-defined]
                key = (type(recipe), str(settings), learner.pool.n_labeled)
                alike.setdefault(key, []).append(learner)
        for group in alike.values():
            most = max(1, _STACKED_VALUES // _values_of(group[0].pool))
            for start in range(0, len(group), most):
                if len(group[start : start + most]) > 1:
                    _fit_alike(group[start : start + most], kind)


def _values_of(pool: Pool) -> int:
    """Return how many numbers the labeled rows of a pool have."""
    inputs: Any = pool.inputs
    shape = getattr(inputs, "shape", None)
    return pool.n_labeled * (math.prod(shape[1:]) if shape is not None else 1)


def _can_share_a_fit(recipe: Classifier) -> bool:
    watches = getattr(recipe, "warm_start", False) or getattr(recipe, "callbacks", None)
    can_batch = provides(recipe, HasBatchedFit) and interop.fits_as_alone(recipe)
    return interop.is_clonable(recipe) and can_batch and not watches


def _fit_alike(group: Sequence[ActiveLearner], kind: Kind) -> None:
    recipe = group[0].fits.recipes[kind]
    with Phases.shared(PHASES[kind], [learner.phases for learner in group]):  # what each took cannot be told apart
        fitted = interop.fit_many(recipe, (learner.pool.training_data() for learner in group), same_bits=True)
        for learner, model in zip(group, fitted, strict=True):
            learner.fits.fitted[kind] = checked_fit(model)
