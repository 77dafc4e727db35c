"""Whether to stop: what the last rounds say, and what the next batch is expected to bring."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchal.pool import interop
from torchal.protocols import Classifier
from torchal.runs.learner import ActiveLearner

_STABLE = 0.99  # kappa between rounds from which predictions do not change, Bloodgood & Vijay-Shanker 2009
_ROUNDS = 3  # over which it is averaged
_REPEATS = 20
_HELD_OUT = 0.25
_SHARES = (0.25, 0.5, 1.0)  # of the others, that a model is fitted on
_LEAST, _LEAST_OF_A_CLASS = 20, 4  # labels below which no curve is looked at
_DRAWS = 1000
_NO_ERROR = 1e-4  # what an error of 0 counts as: its logarithm is taken
_LITTLE = 0.005  # a gain that is not worth a batch


class Gain(NamedTuple):
    """By how much more labels are expected to raise the accuracy.

    Attributes:
        mean: over divisions of the labels.
        low, high: of its 95 % interval.
        error: on labels held out, of the model that was fitted on all others.
    """

    mean: float
    low: float
    high: float
    error: float


def advice(learner: ActiveLearner, model: Classifier, budget: int, *, seed: int) -> list[str]:
    """Return what speaks for stopping or going on, a sentence each.

    Kappa is the agreement of the model's predictions with those of the round before, on up to 2 000 rows of the pool.
    The gain is that of the accuracy on labels that are held out: the model is fitted on a quarter, on half and on all
    of the others, its error is taken to fall by a power of their number, and the curve is followed to as many labels
    more as are asked for. The interval is that of the mean over twenty divisions, by the bootstrap. Labels that a
    strategy chose are harder than others: the accuracy is lower than that on the pool, and the gain rather larger.

    Args:
        learner: with the labels and the rounds so far.
        model: unfitted, of the kind that the learner has.
        budget: how many more labels.
        seed: of the divisions.

    Reference:
        Bloodgood & Vijay-Shanker, "A Method for Stopping Active Learning Based on Stabilizing Predictions and the Need
        for User-Adjustable Stopping", CoNLL 2009.
    """
    said = []
    kappas = [result.pool["kappa"] for result in learner.history if "kappa" in result.pool][-_ROUNDS:]
    if kappas:
        mean = sum(kappas) / len(kappas)
        settled = len(kappas) == _ROUNDS and mean >= _STABLE
        said.append(
            f"Predictions agree with those of the round before by a kappa of {mean:.3f} (mean of {len(kappas)} "
            f"round{'s' * (len(kappas) != 1)}): {'they have settled' if settled else 'they still change'}; "
            f"{_STABLE:g} over {_ROUNDS} rounds says stop."
        )
    else:
        said.append("There are not two rounds yet whose predictions could be compared.")
    uncertain = [result.pool["uncertainty"] for result in learner.history if "uncertainty" in result.pool]
    if uncertain:
        was = f", {uncertain[-2]:.3f} the round before" if len(uncertain) > 1 else ""
        said.append(f"The model's mean uncertainty is {uncertain[-1]:.3f}{was}.")
    gain = expected_gain(model, *learner.pool.training_data(), budget, seed=seed)
    most = 1 - 0.05 ** (1 / max(1, learner.pool.n_labeled))  # below which the error is, by 95 %, where none was seen
    if gain is None:
        said.append("There are too few labels to say what more of them would bring.")
    elif not gain.error and most > _LITTLE:
        said.append(
            f"No label that was held out was predicted wrong. With {learner.pool.n_labeled} labels that says no more "
            f"than that the error on such rows is below {most:.3f}."
        )
    else:
        said.append(
            f"{budget} more labels are expected to raise the accuracy on such rows by {gain.mean:+.3f} "
            f"[{gain.low:+.3f}, {gain.high:+.3f}]{': little speaks for going on' if gain.high < _LITTLE else ''}."
        )
    return said


def expected_gain(model: Classifier, inputs: Any, targets: Tensor, budget: int, *, seed: int) -> Gain | None:
    """Return by how much more labels are expected to raise the accuracy; see `advice`.

    None where there are fewer than 20 labels, or fewer than 4 of a class.
    """
    from sklearn.model_selection import train_test_split

    codes = targets.numpy()
    if len(codes) < _LEAST or np.bincount(codes)[np.unique(codes)].min() < _LEAST_OF_A_CLASS:
        return None
    errors = []
    for repeat in range(_REPEATS):
        train, held = train_test_split(
            np.arange(len(codes)), test_size=_HELD_OUT, stratify=codes, random_state=seed + repeat
        )
        sizes = [max(2, math.ceil(len(train) * share)) for share in _SHARES]
        found = [_error(model, inputs, targets, train[:size], held) for size in sizes]
        if None not in found:
            errors.append(found)
    if len(errors) < _REPEATS // 2:
        return None
    measured = np.array(errors, dtype=float)
    draws = np.random.default_rng(seed).integers(len(measured), size=(_DRAWS, len(measured)))
    gains = [_gain(measured[drawn].mean(0), sizes, len(codes), budget) for drawn in draws]
    low, high = np.quantile(gains, [0.025, 0.975])
    mean = _gain(measured.mean(0), sizes, len(codes), budget)
    return Gain(mean, float(low), float(high), error=float(measured[:, -1].mean()))


def _gain(errors: Any, sizes: list[int], n_labels: int, budget: int) -> float:
    """Return the fall of the error from all labels to more, along error = a n^-b through what was measured."""
    slope, level = np.polyfit(np.log(sizes), np.log(np.maximum(errors, _NO_ERROR)), 1)
    slope = min(0.0, float(slope))
    at, then = (min(1.0, math.exp(level + slope * math.log(n))) for n in (n_labels, n_labels + budget))
    return at - then


def _error(model: Classifier, inputs: Any, targets: Tensor, train: Any, held: Any) -> float | None:
    """Return the share of wrong predictions on labels held out; None where those fitted on are of one class."""
    rows, others = torch.from_numpy(train).sort().values, torch.from_numpy(held)
    if len(targets[rows].unique()) < 2:
        return None
    try:
        fitted = interop.fit(interop.silent_copy(model), inputs[rows], targets[rows])
    except ValueError:  # it refuses so few
        return None
    return float((interop.predictions(fitted, inputs[others]) != targets[others]).double().mean())
