"""Another sampler, with as many picks of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from torchal._checks import check_budget
from torchal.errors import ConfigError
from torchal.functional.quotas import class_quotas, fill_quotas
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasDecisionFunction, HasProbabilities, check_provides
from torchal.samplers.base import Sampler, ScoreSampler
from torchal.samplers.composite import WrapperSampler
from torchal.samplers.margin import Margin


@dataclass
class ClassBalanced(WrapperSampler):
    """Shares the batch out among the classes that the model predicts, and lets another sampler choose in each.

    A sampler that scores each row by itself gives the rows with the highest scores of each class; any other is asked
    once for each class, with the candidates of that class alone, so its picks in one class do not know of those in
    another. Where a class has too few candidates, the others give more.

    Args:
        sampler: chooses among the candidates of a class.
        target: None shares each batch equally among the predicted classes, whatever is labeled. "equal" asks for what
            brings all labels, those of now included, as near to equal shares as can be; a list of numbers, one for each
            class of the pool, does so for these shares.

    Raises:
        ConfigError: target is something else, or sampler is none.

    Reference:
        Bengar, van de Weijer, Lopez Fuentes & Raducanu, "Class-Balanced Active Learning for Image Classification", WACV
        2022, which balances labels and expected labels by a minimisation; here by quotas of the predicted classes
        (`torchal.functional.class_quotas`).

    Example:
        >>> from torchal import PoolView
        >>> from torchal.samplers import ClassBalanced, Entropy
        >>> log_probs = torch.tensor([[0.51, 0.49], [0.52, 0.48], [0.8, 0.2], [0.1, 0.9]]).log()
        >>> ClassBalanced(Entropy()).select(PoolView.from_tensors(log_probs=log_probs), 2).indices
        tensor([0, 3])
    """

    sampler: Sampler = field(default_factory=Margin)
    target: Sequence[float] | Literal["equal"] | None = None
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        if self.target is None or self.target == "equal":
            return
        if not _is_distribution(self.target):
            raise ConfigError(
                "target must be null, 'equal', or numbers of at least 0, one for each class and not all of them 0; "
                f"got {self.target!r}"
            )
        self.target = tuple(float(share) for share in self.target)

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - always, for the classes
        """Tell that it reads a model: classes are predicted."""
        return True

    def check_model(self, model: object) -> None:
        """Require what predicts classes, and what the sampler reads."""
        super().check_model(model)
        check_provides(model, HasProbabilities, HasDecisionFunction, needed_by=type(self).__name__)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates, of each predicted class its part.

        Raises:
            ConfigError: target has not a number for each class.
        """
        check_budget(n, int(view.candidates.sum()))
        predicted = _predicted(view)
        available = predicted[view.candidates].bincount(minlength=view.n_classes)
        quotas = self._quotas(view, available, n)
        asked = quotas.nonzero().squeeze(1).tolist()
        of_one_selection = not isinstance(self.sampler, ScoreSampler) and len(asked) == 1
        if isinstance(self.sampler, ScoreSampler):
            scores = self.sampler.score(view)
            batch = fill_quotas(scores, predicted, n, candidates=view.candidates, quotas=quotas)
        else:
            views = (view.fork(c).narrowed(view.candidates & (predicted == c)) for c in asked)
            parts = [self.ask(own, int(quotas[c])) for own, c in zip(views, asked, strict=True)]
            batch = Selection(*(torch.cat(values) for values in zip(*parts, strict=True)))
        members = self.sampler_report(batch.indices, with_report=of_one_selection)
        self._report = {"picks_per_class": quotas.tolist(), "members": members}
        return batch

    def _quotas(self, view: PoolView, available: Tensor, n: int) -> Tensor:
        """Return how many rows of each predicted class are picked, (C,) int64 on the CPU."""
        if self.target is None:
            return class_quotas(n, available)
        counts = view.targets[view.labeled].bincount(minlength=view.n_classes)
        if self.target == "equal":
            return class_quotas(n, available, counts=counts)
        if len(self.target) != view.n_classes:
            raise ConfigError(f"target has {len(self.target)} numbers, the pool has {view.n_classes} classes")
        return class_quotas(n, available, counts=counts, target=torch.tensor(self.target, dtype=torch.float64))

    def report(self) -> dict[str, Any]:
        """Return how many rows of each predicted class were picked, and the sampler's own report."""
        return self._report


def _predicted(view: PoolView) -> Tensor:
    """Return the class with the largest decision value, or probability where there are none, (N,) int64."""
    if not view.has(HasDecisionFunction):
        return view.classes[view.log_probs.argmax(1)]
    columns = view.scores[:, 0] > 0 if view.scores.shape[1] == 1 else view.scores.argmax(1)
    return view.classes[columns.to(torch.int64)]


def _is_distribution(target: object) -> bool:
    """Tell whether these are finite numbers of at least 0, not all of them 0."""
    if isinstance(target, str) or not isinstance(target, Sequence):
        return False
    numbers = all(isinstance(share, Real) and not isinstance(share, bool) for share in target)
    return numbers and all(0 <= share < math.inf for share in target) and any(share > 0 for share in target)
