"""How good a model's answers are. A metric is a callable on an `Outcome`; higher need not be better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.errors import CapabilityError
from torchal.pool import interop
from torchal.pool.labels import LabeledData
from torchal.protocols import Classifier
from torchal.statistics import diagnostics

_LOWEST_LOG = math.log(1e-15)  # so that one sure mistake does not make a log-loss infinite


STANDARD = ("accuracy", "log_loss")
"""Metrics that every round records; the second where the model has probabilities."""


class Outcome(NamedTuple):
    """A model's answers beside the truth.

    Shapes:
        targets: (M,) int64.
        predictions: (M,) int64.
        log_probs: (M, n_classes) float over all classes, -inf for a class that the model has not seen; None where the
            model has no probabilities.
    """

    targets: Tensor
    predictions: Tensor
    log_probs: Tensor | None


Metric = Callable[[Outcome], float]


def accuracy(outcome: Outcome) -> float:
    """Return the share of right answers.

    Example:
        >>> accuracy(Outcome(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), None))
        0.6666666666666666
    """
    right = int((outcome.predictions == outcome.targets).sum())
    return right / len(outcome.targets)  # not a mean on the device, whose last bit depends on it


def log_loss(outcome: Outcome) -> float:
    """Return the mean of minus the log-probability of the true class, in nats; probabilities are at least 1e-15."""
    log_probs = _log_probs(outcome, "log_loss").double()
    true = log_probs.gather(1, outcome.targets[:, None])
    return float(-true.clamp(min=_LOWEST_LOG).mean())


def balanced_accuracy(outcome: Outcome) -> float:
    """Return the mean over the classes of the targets of the share of their rows answered right."""
    right = (outcome.predictions == outcome.targets).double()
    classes, index = outcome.targets.unique(return_inverse=True)
    per_class = torch.zeros(len(classes), dtype=torch.float64, device=right.device).index_add(0, index, right)
    return float((per_class / index.bincount()).mean())


def macro_f1(outcome: Outcome) -> float:
    """Return the unweighted mean over classes of the F1 score."""
    from sklearn.metrics import f1_score

    return float(f1_score(outcome.targets.cpu(), outcome.predictions.cpu(), average="macro", zero_division=0.0))


def cohens_kappa(first: Tensor, second: Tensor) -> float:
    """Return by how much two labelings agree beyond chance: 1 where they are the same, 0 where it is chance.

    Shapes:
        first, second: (M,) int64.

    Reference:
        Cohen, "A Coefficient of Agreement for Nominal Scales", Educational and Psychological Measurement, 1960. Where
        both give all rows the same label, for which it is not defined, they agree: 1.

    Example:
        >>> round(cohens_kappa(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0])), 4)
        0.5
    """
    from sklearn.metrics import cohen_kappa_score

    if torch.equal(first, second):
        return 1.0
    return float(cohen_kappa_score(first.cpu(), second.cpu()))


def auc(outcome: Outcome) -> float:
    """Return the area under the ROC curve; for more than two classes the mean over classes, each against the rest.

    NaN where a class has no target, or all targets.
    """
    from sklearn.metrics import roc_auc_score

    probs = _log_probs(outcome, "auc").exp().double().cpu()
    targets = outcome.targets.cpu()
    if len(targets.unique()) < probs.shape[1]:
        return math.nan
    if probs.shape[1] == 2:
        return float(roc_auc_score(targets, probs[:, 1]))
    return float(roc_auc_score(torch.nn.functional.one_hot(targets, probs.shape[1]), probs, average="macro"))


def brier_score(outcome: Outcome) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over classes: from 0 to 2.

    As `statistics.diagnostics.brier_score`, in chunks and where the probabilities are.
    """
    log_probs = _log_probs(outcome, "brier_score")
    total = torch.zeros((), dtype=torch.float64, device=log_probs.device)
    size = max(1, values_per_chunk(log_probs.device) // max(1, log_probs.shape[1]))
    for some, targets in zip(log_probs.split(size), outcome.targets.split(size), strict=True):
        probs = some.double().exp()
        total += (probs**2).sum() - 2 * probs.gather(1, targets[:, None]).sum()
    return float(total) / len(log_probs) + 1


def expected_calibration_error(outcome: Outcome) -> float:
    """Return the mean gap between how sure the model is of what it predicts and how often it is right, over 15 bins.

    As `statistics.diagnostics.expected_calibration_error`; of a model whose prediction is not its most probable class,
    as scikit-learn's SVC, the confidence is that of the prediction. NaN where a probability is.
    """
    log_probs = _log_probs(outcome, "expected_calibration_error")
    confidence = log_probs.gather(1, outcome.predictions[:, None]).squeeze(1).double().exp().clamp(max=1)
    if bool(confidence.isnan().any()):
        return math.nan
    right = outcome.predictions == outcome.targets
    return diagnostics.expected_calibration_error(confidence.cpu().numpy(), right.cpu().numpy())


BY_NAME: dict[str, Metric] = {
    "auc": auc,
    "balanced_accuracy": balanced_accuracy,
    "brier_score": brier_score,
    "expected_calibration_error": expected_calibration_error,
    "macro_f1": macro_f1,
}
"""Metrics that a config can ask for by name, beside the standard ones."""

LOWER_IS_BETTER = frozenset({"log_loss", "brier_score", "expected_calibration_error"})
"""Metrics of which less is more wanted; of all others, also those of somebody's own, more is."""


def evaluate(
    model: Classifier, data: LabeledData, *, n_classes: int, seen: Tensor, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Return the metrics of a fitted model, and always its accuracy, and its log-loss where it has probabilities.

    Args:
        model: fitted.
        data: what it is scored on.
        n_classes: how many classes there are, those that the model has not seen among them.
        metrics: functions of an `Outcome`, by name.

    Shapes:
        seen: (C,) int64, the classes of the model's columns.
    """
    return scores(outcome_of(model, data, n_classes=n_classes, seen=seen), metrics)


def outcome_of(model: Classifier, data: LabeledData, *, n_classes: int, seen: Tensor) -> Outcome:
    """Return a fitted model's answers to labeled data, in one pass over them where the model can.

    Shapes:
        seen: (C,) int64, the classes of the model's columns.
    """
    log_probs = None
    predictions, narrow = interop.predictions_and_log_probs(model, data.inputs, seen)
    if narrow is not None:
        log_probs = narrow.new_full((len(narrow), n_classes), -math.inf)
        log_probs[:, seen.to(narrow.device)] = narrow
    return Outcome(data.targets.to(predictions.device), predictions, log_probs)


def scores(outcome: Outcome, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return the metrics of a model's answers, the standard ones first."""
    standard: dict[str, Metric] = {"accuracy": accuracy}  # the names of STANDARD
    if outcome.log_probs is not None:
        standard["log_loss"] = log_loss
    return {name: float(metric(outcome)) for name, metric in {**standard, **metrics}.items()}


def _log_probs(outcome: Outcome, name: str) -> Tensor:
    if outcome.log_probs is None:
        raise CapabilityError(f"{name} needs a model with predict_proba")
    return outcome.log_probs
