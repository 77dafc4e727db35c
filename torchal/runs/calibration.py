"""Whether a model is right as often as it says: what of it a run's record keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchal.runs.metrics import Outcome
from torchal.statistics import diagnostics

N_BINS = 15
"""Of equal width, as `torchal.runs.metrics.expected_calibration_error` has them."""


def reliability(outcome: Outcome, *, n_bins: int = N_BINS) -> dict[str, list[float]]:
    """Return how often answers are right, by how sure the model is of them, for the bins that have any.

    As `statistics.diagnostics.reliability`, of the probability of the class that was predicted: `confidence` and
    `accuracy`, the means of a bin, and `rows`, how many it has. Rows whose probability is not finite are left out.
    Empty where the model has no probabilities.

    Raises:
        ConfigError: n_bins is not at least 1.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.92, 0.08], [0.06, 0.94], [0.4, 0.6]], dtype=torch.float64)
        >>> found = reliability(Outcome(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), probs.log()), n_bins=10)
        >>> found["rows"], found["accuracy"], [round(value, 3) for value in found["confidence"]]
        ([1.0, 2.0], [0.0, 1.0], [0.6, 0.93])
    """
    if outcome.log_probs is None:
        return {}
    predicted = outcome.predictions.to(outcome.log_probs.device)
    confidence = outcome.log_probs.gather(1, predicted[:, None]).squeeze(1).cpu().double().exp().clamp(max=1)
    right = (outcome.predictions == outcome.targets).cpu()
    known = confidence.isfinite()
    if not bool(known.any()):
        return {}
    found = diagnostics.reliability(confidence[known].numpy(), right[known].numpy(), n_bins)
    filled = [place for place, count in enumerate(found["count"]) if count]
    columns = {"confidence": found["confidence"], "accuracy": found["accuracy"], "rows": found["count"]}
    return {name: [float(values[place]) for place in filled] for name, values in columns.items()}


def calibration_error(bins: Mapping[str, Sequence[float]]) -> float:
    """Return the expected calibration error: the mean gap between how sure a model is and how often it is right.

    Args:
        bins: what `reliability` returned; not empty.

    Example:
        >>> calibration_error({"confidence": [0.5, 0.875], "accuracy": [0.5, 1.0], "rows": [2.0, 2.0]})
        0.0625
    """
    parts = zip(bins["confidence"], bins["accuracy"], bins["rows"], strict=True)
    return sum(rows * abs(accuracy - confidence) for confidence, accuracy, rows in parts) / sum(bins["rows"])
