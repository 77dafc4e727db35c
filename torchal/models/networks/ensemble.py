"""Deep ensembles: the same network trained from several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchal._batch import Rows
from torchal._checks import check_whole
from torchal.errors import ConfigError, DataError
from torchal.models.base import as_answer, log_probs
from torchal.models.networks.embedder import EmbeddingClassifier
from torchal.models.networks.saving import SavedState, check_state
from torchal.models.networks.torch_classifier import TorchClassifier
from torchal.models.seeding import draw_seed

if TYPE_CHECKING:
    from typing_extensions import Self


class TorchEnsemble(SavedState, EmbeddingClassifier):
    """Train the same network from several seeds; probabilities are the members' mean.

    The members see the same rows, and differ by their initial weights, the order of rows and the dropout masks (so a
    recipe that always makes the same weights makes members that differ by the other two only). They are trained
    together where that gives the same and is faster; see `TorchClassifier.fit_many`.

    `transform` gives the members' embeddings side by side: squared euclidean distances between such rows are the sums
    of those in each member.

    Args:
        estimator: a TorchClassifier to copy; its `random_state`, `warm_start` and `posterior` do not count. One with
            its defaults unless given.
        n_members: how many.
        random_state: of the members' seeds: a number, a RandomState to draw it from, or None for others at each fit.

    Attributes:
        estimators_: the fitted members.
        classes_: (C,) labels in the order of the columns.
        n_features_in_, input_shape_: as of `TorchClassifier`.

    Reference:
        Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS
        2017, algorithm 1, without its adversarial training.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = TorchEnsemble(n_members=3).fit(x, torch.tensor([3, 3, 7, 7]))
        >>> model.sample_log_probs(x, 3).shape
        torch.Size([4, 3, 2])
    """

    def __init__(
        self,
        estimator: TorchClassifier | None = None,
        *,
        n_members: int = 5,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.n_members = n_members
        self.random_state = random_state

    @property
    def device(self) -> str | torch.device:  # type: ignore[override]
        """Where the members are trained: the estimator's setting."""
        return "auto" if self.estimator is None else self.estimator.device

    @property
    def max_draws(self) -> int:
        """How many draws there are: one of each member."""
        return self.n_members

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train all members from the start.

        Shapes:
            X: (n, ...).
            y: (n,).
            sample_weight: (n,).

        Raises:
            ConfigError: n_members is not a whole number of at least 1, or estimator is no TorchClassifier.
            As `TorchClassifier.fit` otherwise.
        """
        seeds = self._member_seeds()
        members = self._new_members(seeds)
        data = self._training_data(X, y, sample_weight)
        for member in members:
            member.take_data_from(self)
        members[0].fit_copies(members, [data] * len(members))
        self._adopt(members)
        return self

    def sample_log_probs(self, X: Any, k: int) -> Any:
        """Return log-probabilities (n, K, C) of the first k members.

        Raises:
            ConfigError: there are not so many.
        """
        check_whole("k", k, least=1)
        check_is_fitted(self, "module_")
        if k > len(self.estimators_):
            raise ConfigError(f"asked for {k} draws, the ensemble has {len(self.estimators_)} members")
        return as_answer(X, self._by_chunk(X, lambda rows: (self._members_log_probs(rows)[:, :k],))[0])

    def state_dict(self) -> dict[str, Any]:
        """Return the fitted state in tensors, numbers and text."""
        check_is_fitted(self, "module_")
        return {"members": [member.state_dict() for member in self.estimators_]}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Become as fitted as the ensemble whose `state_dict` this is; it had the same settings as this one.

        Raises:
            DataError: the state is damaged, or of an estimator with other settings.
        """
        check_state(state, "members")
        if len(state["members"]) != self.n_members:
            raise DataError(f"{len(state['members'])} members were saved, this ensemble has n_members={self.n_members}")
        members = self._new_members([0] * self.n_members)
        for member, saved in zip(members, state["members"], strict=True):
            member.load_state_dict(saved)
        self.take_data_from(members[0])
        self._adopt(members)
        return self

    def _member_seeds(self) -> list[int]:
        check_whole("n_members", self.n_members, least=1)
        drawn = np.random.SeedSequence(draw_seed(self.random_state)).generate_state(self.n_members)
        return [int(seed) for seed in drawn]

    def _new_members(self, seeds: list[int]) -> list[TorchClassifier]:
        recipe = TorchClassifier() if self.estimator is None else self.estimator
        if not isinstance(recipe, TorchClassifier):
            raise ConfigError(f"an ensemble is made of a TorchClassifier, got {recipe!r}")
        return [clone(recipe).set_params(random_state=seed, warm_start=False, posterior="dropout") for seed in seeds]

    def _adopt(self, members: list[TorchClassifier]) -> None:
        self.estimators_ = members
        self.module_ = nn.ModuleList(member.module_ for member in members).eval()

    def _networks(self) -> list[tuple[nn.Module, str | None]]:
        return [(member.module_, member.embedding) for member in self.estimators_]

    def _chunks(self, inputs: Any, device: torch.device) -> Iterator[Rows]:
        return self.estimators_[0]._chunks(inputs, device)

    def _members_log_probs(self, rows: Rows) -> Tensor:
        """Return log-probabilities (n, members, C)."""
        return torch.stack([log_probs(member._logits(rows)) for member in self.estimators_], 1)

    def _logits(self, rows: Rows) -> Tensor:
        return self._members_log_probs(rows).logsumexp(1) - math.log(len(self.estimators_))
