"""Whether a model is right as often as it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from torchal._checks import check_whole
from torchal.runs.metrics import Outcome


def reliability(outcome: Outcome, *, n_bins: int = 10) -> dict[str, list[float]]:
    """Return how often answers are right, by how sure the model is of them: a reliability diagram in numbers.

    Answers are put into bins of equal width by the probability of the predicted class. Of each bin that is not empty,
    in ascending order: `confidence`, the mean of that probability; `accuracy`, the share of right answers; `rows`, how
    many they are. Rows whose probability is not finite are left out. Empty where the model has no probabilities.

    Raises:
        ConfigError: n_bins is not at least 1.

    Reference:
        Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2. A probability
        on the border of two bins is counted in the upper one.

    Example:
        >>> probs = torch.tensor([[0.92, 0.08], [0.05, 0.95], [0.4, 0.6]], dtype=torch.float64)
        >>> found = reliability(Outcome(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), probs.log()))
        >>> found["rows"], found["accuracy"], [round(value, 3) for value in found["confidence"]]
        ([1.0, 2.0], [0.0, 1.0], [0.6, 0.935])
    """
    check_whole("n_bins", n_bins, least=1)
    if outcome.log_probs is None:
        return {}
    predicted = outcome.predictions.to(outcome.log_probs.device)
    # On the CPU, where sums are the same to the last bit whenever they are taken again
    confidence = outcome.log_probs.gather(1, predicted[:, None]).squeeze(1).cpu().double().exp()
    right = (outcome.predictions == outcome.targets).cpu().double()
    known = confidence.isfinite()
    confidence, right = confidence[known], right[known]
    bins = (confidence * n_bins).long().clamp(0, n_bins - 1)
    sums = confidence.new_zeros(3, n_bins).index_add(1, bins, torch.stack([confidence, right, torch.ones_like(right)]))
    sums = sums[:, sums[2] > 0]
    return {
        "confidence": (sums[0] / sums[2]).tolist(),
        "accuracy": (sums[1] / sums[2]).tolist(),
        "rows": sums[2].tolist(),
    }


def calibration_error(bins: Mapping[str, Sequence[float]]) -> float:
    """Return the mean gap between how sure a model is and how often it is right (the expected calibration error).

    Args:
        bins: what `reliability` returned; not empty.

    Reference:
        As `reliability`; equation 3.

    Example:
        >>> calibration_error({"confidence": [0.5, 0.875], "accuracy": [0.5, 1.0], "rows": [2.0, 2.0]})
        0.0625
    """
    parts = zip(bins["confidence"], bins["accuracy"], bins["rows"], strict=True)
    return sum(rows * abs(accuracy - confidence) for confidence, accuracy, rows in parts) / sum(bins["rows"])
