"""Fits of several learners' models by one call."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from torchal.pool import interop
from torchal.pool.pool import Pool
from torchal.protocols import Classifier, HasBatchedFit, provides
from torchal.runs.learner import ActiveLearner, checked_fit
from torchal.runs.memory import start_counting

_STACKED_VALUES = 2**26  # most numbers of rows that are stacked to be fitted together


def fit_together(learners: Sequence[ActiveLearner]) -> None:
    """Fit the models of several learners on all their labels, as each would by itself.

    Models of the same settings whose `fit_many` can give the bits of `fit` (`fits_as_alone`) are fitted by one call of
    it, where the learners have as many labels each; the time is shared out evenly. Whatever else has to be fitted is
    left for its learner to fit.
    """
    for kind in ("model", "select_model"):
        alike: dict[tuple[Any, ...], list[ActiveLearner]] = {}
        for learner in learners:
            recipe = learner._select_recipe if kind == "select_model" else learner._recipe
            if getattr(learner, f"_{kind}") is None and recipe is not None and _can_share_a_fit(recipe):
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


def _fit_alike(group: Sequence[ActiveLearner], kind: str) -> None:
    started = time.perf_counter()
    start_counting(group[0].pool.device)
    recipe = group[0]._select_recipe if kind == "select_model" else group[0]._recipe
    assert recipe is not None
    fitted = interop.fit_many(recipe, (learner.pool.training_data() for learner in group), same_bits=True)
    if group[0].pool.device.type == "cuda":
        torch.cuda.synchronize(group[0].pool.device)
    each = (time.perf_counter() - started) / len(group)
    phase = "fit" if kind == "model" else "fit_select"
    for learner, model in zip(group, fitted, strict=True):
        setattr(learner, f"_{kind}", checked_fit(model))
        learner._seconds[phase] = learner._seconds.get(phase, 0.0) + each
        learner._note_peaks(phase)  # of all of them together, which cannot be told apart
