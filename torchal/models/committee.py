"""Committees of any classifiers, whose members are the draws of a posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import resample
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from torchal._checks import check_whole
from torchal.errors import CapabilityError, ConfigError, DataError
from torchal.models.checks import Array
from torchal.models.seeding import draw_seed

if TYPE_CHECKING:
    from typing_extensions import Self


class Committee(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Several classifiers of scikit-learn or torchal, whose disagreement says how uncertain they are together.

    Probabilities are the members' mean, and each member is a draw for strategies that read draws from a posterior
    (BALD, query by committee). A member without `predict_proba` gives all its probability to the class it predicts.
    NumPy in gives NumPy out; networks are better off in a `TorchEnsemble`, which stays on their device.

    Args:
        estimators: the members, a list of classifiers; or one classifier, to make them of. A `LogisticRegression` with
            its defaults unless given.
        n_copies: how many members are made of one classifier. A list has as many as it has.
        bootstrap: whether each member is fitted on rows drawn with replacement, as many of each class as there are, so
            that no member misses a class; else on all rows. "auto": where they are made of one classifier.
        random_state: of the rows that are drawn, and of the `random_state` of members made of one classifier: a number,
            a RandomState to draw it from, or None for others at each fit.

    Attributes:
        estimators_: the fitted members; they know the classes as numbers, positions in `classes_`.
        classes_: (C,) labels in the order of the columns.
        n_features_in_: length of a row.

    Reference:
        Seung, Opper & Sompolinsky, "Query by committee", COLT 1992. Abe & Mamitsuka, "Query Learning Strategies Using
        Boosting and Bagging", ICML 1998, whose resamples are of all rows and not of each class.

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([3, 3, 7, 7])
        >>> model = Committee([DecisionTreeClassifier(), GaussianNB()]).fit(x, y)
        >>> model.predict(x), model.sample_log_probs(x, 2).shape
        (array([3, 3, 7, 7]), (4, 2, 2))
    """

    def __init__(
        self,
        estimators: Any = None,
        *,
        n_copies: int = 10,
        bootstrap: bool | Literal["auto"] = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimators = estimators
        self.n_copies = n_copies
        self.bootstrap = bootstrap
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = [one.__sklearn_tags__() for one in self._recipes() if hasattr(one, "__sklearn_tags__")]
        tags.input_tags.sparse = all(one.input_tags.sparse for one in inner)
        return tags

    @property
    def keeps_shape(self) -> bool:
        """Whether rows of several axes, as images, reach the members as they are: where all of them are torch's."""
        return all(getattr(one, "takes_tensors", False) for one in self._recipes())

    @property
    def max_draws(self) -> int:
        """How many draws there are: one of each member."""
        return len(self.estimators) if isinstance(self.estimators, list | tuple) else self.n_copies

    def fit(self, X: Any, y: Any) -> Self:
        """Fit copies of all members.

        Shapes:
            X: (n, ...).
            y: (n,) labels.

        Raises:
            ConfigError: a setting is not possible.
            DataError: rows or labels cannot be used, or are of one class.
        """
        members, resampled = self._new_members()
        try:
            X, y = validate_data(self, X, y, accept_sparse="csr", allow_nd=True, ensure_all_finite=False)
            check_classification_targets(y)
        except ValueError as error:
            raise DataError(str(error)) from error
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"Committee needs rows of at least 2 classes, got {len(self.classes_)} class")
        for member, seed in members:
            rows = np.arange(len(codes))
            if resampled:
                rows = resample(rows, stratify=codes, random_state=seed)
            member.fit(X[rows], codes[rows])
        self.estimators_ = [member for member, _ in members]
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return the mean of the members' probabilities (n, C), columns in the order of `classes_`."""
        check_is_fitted(self, "estimators_")
        mean: Array = self._member_probs(X, len(self.estimators_)).mean(1)
        return mean

    def predict(self, X: Any) -> Array:
        """Return the likeliest label of each row, (n,); of equally likely ones the first."""
        probs = self.predict_proba(X)
        labels: Array = self.classes_[probs.argmax(1)]
        return labels

    def sample_log_probs(self, X: Any, k: int) -> Array:
        """Return log-probabilities (n, K, C) of the first k members; -inf where one gives no probability.

        Raises:
            ConfigError: there are not so many.
        """
        check_whole("k", k, least=1)
        check_is_fitted(self, "estimators_")
        if k > len(self.estimators_):
            raise ConfigError(f"asked for {k} draws, the committee has {len(self.estimators_)} members")
        with np.errstate(divide="ignore"):
            log_probs: Array = np.log(self._member_probs(X, k))
        return log_probs

    def _recipes(self) -> list[Any]:
        """Return the members of a list, or the one classifier to make them of."""
        if self.estimators is None:
            from torchal.models.classical.linear import LogisticRegression

            return [LogisticRegression()]
        return list(self.estimators) if isinstance(self.estimators, list | tuple) else [self.estimators]

    def _new_members(self) -> tuple[list[tuple[Any, int]], bool]:
        """Return unfitted members, each with the seed of its rows, and whether it is to draw some."""
        if self.bootstrap not in (True, False, "auto"):
            raise ConfigError(f"bootstrap must be True, False or 'auto', got {self.bootstrap!r}")
        check_whole("n_copies", self.n_copies, least=1)
        recipes, is_list = self._recipes(), isinstance(self.estimators, list | tuple)
        if not recipes:
            raise ConfigError("a committee needs at least one member, got an empty list")
        for one in recipes:
            if isinstance(one, type) or not (hasattr(one, "fit") and hasattr(one, "predict")):
                raise CapabilityError(f"a member must be a classifier with fit and predict, got {one!r}")
        members = [clone(one) for one in (recipes if is_list else recipes * self.n_copies)]
        seeds = [
            int(seed) for seed in np.random.SeedSequence(draw_seed(self.random_state)).generate_state(len(members))
        ]
        if not is_list:
            for member, seed in zip(members, seeds, strict=True):
                names = [name for name in member.get_params() if name.split("__")[-1] == "random_state"]
                member.set_params(**dict.fromkeys(names, seed))
        resampled = not is_list if self.bootstrap == "auto" else self.bootstrap
        return list(zip(members, seeds, strict=True)), resampled

    def _member_probs(self, X: Any, k: int) -> Array:
        """Return probabilities (n, K, C) of the first k members."""
        try:
            X = validate_data(self, X, accept_sparse="csr", allow_nd=True, ensure_all_finite=False, reset=False)
        except ValueError as error:
            raise DataError(str(error)) from error
        probs = np.zeros((X.shape[0] if issparse(X) else len(X), k, len(self.classes_)))
        for i, member in enumerate(self.estimators_[:k]):
            if hasattr(member, "predict_proba"):
                probs[:, i, getattr(member, "classes_", slice(None))] = member.predict_proba(X)
            else:
                probs[np.arange(len(probs)), i, member.predict(X)] = 1
        return probs
