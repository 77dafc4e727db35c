"""Uncertainty herding: from what represents the pool to what the model is unsure of, as labels grow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal import functional
from torchal._checks import check_budget, check_flag, check_positive, check_whole, rows_in
from torchal.engine.coverage import MAX_HELD
from torchal.functional.herding import Uncertainty, check_uncertainty
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import Sampler

_HELD_OUT = 0.3


@dataclass
class UncertaintyHerding(Sampler):
    """Picks rows such that every row that the model is unsure of is near a labeled one, in the model's embedding.

    For any number of labels: a temperature that calibrates the model makes few labels' uncertainties alike, and a
    bandwidth that follows the labels makes the kernel narrow as they grow. Before there is a model every row counts
    alike. Its cost is quadratic in the number of rows.

    Args:
        uncertainty: margin, entropy or least_confidence, of probabilities at the temperature.
        temperature: what log-probabilities are divided by. Unless given, the one that calibrates a second fit of the
            model on seven tenths of the labels, on the other three; 1 where there is no model, or too few labels. A
            label of each class stays among those that are fitted.
        bandwidth: of the kernel; the least distance above 0 of two labeled rows unless given, 1 without two.
        normalize: whether rows are scaled to length 1.
        max_held: of no more similarities than these, of all rows with each other, all are held: more memory, less time.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.uncertainty_herding`. The authors calibrate on the last three tenths of the labels that
        were bought, whatever their classes; here they are drawn at random.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]]).log()
        >>> view = PoolView.from_tensors(features=x, log_probs=log_probs, labeled=torch.arange(4) == 1)
        >>> UncertaintyHerding().select(view, 1).indices
        tensor([3])
    """

    uncertainty: Uncertainty = "margin"
    temperature: float | None = None
    bandwidth: float | None = None
    normalize: bool = True
    max_held: int = MAX_HELD
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    requires = (HasProbabilities,)

    def __post_init__(self) -> None:
        check_uncertainty(self.uncertainty)
        for name in ("temperature", "bandwidth"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        check_flag("normalize", self.normalize)
        check_whole("max_held", self.max_held, least=0)

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - whatever is labeled
        """Tell that it does not: before there is a model, every row counts alike."""
        return False

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates that `uncertainty_herding` picks from the view's features and log_probs."""
        check_budget(n, int(view.candidates.sum()))
        bandwidth = self.bandwidth
        if bandwidth is None:
            bandwidth = functional.labeled_distance(view.features, view.labeled, normalize=self.normalize)
        temperature = 1.0
        uncertainty = torch.ones(len(view), device=view.candidates.device)
        if bool(view.labeled.any()) and not view.is_cold:
            temperature = _calibrated(view) if self.temperature is None else self.temperature
            uncertainty = functional.tempered_uncertainty(view.log_probs, self.uncertainty, temperature=temperature)
        picks = functional.uncertainty_herding(
            view.features,
            n,
            uncertainty=uncertainty,
            bandwidth=bandwidth,
            normalize=self.normalize,
            labeled=view.labeled,
            candidates=view.candidates,
            max_held=self.max_held,
        )
        self._report = {
            "features": view.features_from,
            "temperature": temperature,
            "bandwidth": bandwidth,
            "value": picks.value,
            "bound": picks.bound,
        }
        return Selection(picks.indices, picks.scores)

    def report(self) -> dict[str, Any]:
        """Return the features' source, temperature and bandwidth, what labels and batch cover, and at most could."""
        return dict(self._report)


def _calibrated(view: PoolView) -> float:
    """Return the temperature at which the model, fitted without some of the labels, is calibrated on these."""
    held = _held_out(view)
    if view.model is None or not len(held):
        return 1.0
    fitted = view.without_labels(held)
    columns = torch.searchsorted(fitted.classes, view.targets[held])
    return functional.calibrated_temperature(fitted.log_probs_of(held), columns)


def _held_out(view: PoolView) -> Tensor:
    """Return three tenths of the labeled rows, drawn at random, or fewer: one of each class stays."""
    generator = view.generator
    rows = view.labeled.nonzero().squeeze(1)
    order = torch.randperm(len(rows), generator=generator, device=generator.device).to(rows.device)
    rows = rows[order]
    kinds = view.targets[rows].unique(return_inverse=True)[1]
    place = torch.arange(len(rows), device=rows.device)
    first = place.new_full((len(rows),), len(rows)).scatter_reduce_(0, kinds, place, "amin")[kinds]
    return rows[place != first][: rows_in(_HELD_OUT, len(rows))].sort().values
