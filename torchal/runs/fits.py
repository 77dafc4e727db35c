"""The models of a learner: what they are made of, and as they are fitted on the labels of now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from torchal.errors import CapabilityError, ConfigError, DataError, FitError, RunError, TorchalError
from torchal.pool import interop
from torchal.pool.classes import Classes
from torchal.pool.pool import Pool
from torchal.protocols import Classifier, HasState, provides

Kind: TypeAlias = Literal["model", "select_model"]
"""The model that is scored, or the one that the sampler looks at where that is another."""

PHASES: dict[Kind, str] = {"model": "fit", "select_model": "fit_select"}
"""What a round calls the seconds of each."""


class Fits:
    """The model that is scored, and perhaps another that the sampler looks at, both fitted on the same labels.

    Args:
        model: that is scored.
        select_model: that the sampler looks at, where it is another.
        pretrained: whether the model is fitted already, and is used as it is at first.

    Attributes:
        recipes: what is fitted, by kind.
        fitted: those that are fitted on all labels so far, by kind.
        last: the model of before, from which one with `warm_start` goes on.
        trained: a model that came fitted, whose labels are the pool's classes; see `take_trained`.

    Raises:
        CapabilityError: one is no classifier, or goes on from round to round and has no state to save.
        ConfigError: the select model goes on from round to round.
    """

    def __init__(self, model: Classifier, select_model: Classifier | None, *, pretrained: bool) -> None:
        interop.check_classifier(model)
        self.recipes: dict[Kind, Classifier] = {"model": model}
        if select_model is not None:
            interop.check_classifier(select_model)
            if getattr(select_model, "warm_start", False):
                raise ConfigError(
                    f"a select model starts cold at every fit; set warm_start=False in {type(select_model).__name__}"
                )
            self.recipes["select_model"] = select_model
        if self.is_warm and not provides(model, HasState):
            raise CapabilityError(
                f"{type(model).__name__} with warm_start would go on from round to round, but has no state_dict to "
                "save in between; set warm_start=False"
            )
        self.fitted: dict[Kind, Classifier] = {}
        self.last: Classifier | None = None
        self.trained: Classifier | None = None
        self._pretrained = pretrained or interop.is_frozen(model)

    @property
    def looked_at(self) -> Classifier:
        """What is fitted for the sampler to look at."""
        return self.recipes.get("select_model", self.recipes["model"])

    @property
    def is_warm(self) -> bool:
        """Whether the model goes on from its weights of the round before."""
        return bool(getattr(self.recipes["model"], "warm_start", False))

    @property
    def are_of_now(self) -> bool:
        """Whether all are fitted on all labels so far."""
        return self.fitted.keys() == self.recipes.keys()

    def take_trained(self, classes: Classes) -> Classes:
        """Let a model that came fitted say the classes of the pool by their numbers; return them, learned of it or not.

        Raises:
            DataError: its classes are not those of the pool.
        """
        if self._pretrained:
            self.trained, classes = interop.as_trained(self.recipes["model"], classes)
        return classes

    def unchanged(self, pool: Pool) -> Classifier | None:
        """Return the model that came fitted, while it is used as it is: for good, or until there are labels."""
        return self.trained if interop.is_frozen(self.recipes["model"]) or not has_two_classes(pool) else None

    def fit(self, kind: Kind, pool: Pool, n_rounds: int) -> Classifier:
        """Fit a model on all labels of a pool, keep it, and return it.

        Raises:
            FitError: it refuses them.
        """
        model = self._unfitted(kind)
        interop.announce_round(model, n_rounds)
        try:
            self.fitted[kind] = checked_fit(interop.fit(model, *pool.training_data()))
        except TorchalError:
            raise
        except ValueError as error:
            counts = pool.targets[pool.labeled].bincount()
            names = pool.labels.decode(counts.nonzero().squeeze(1))
            of = ", ".join(f"{int(n)} of {name}" for n, name in zip(counts[counts > 0], list(names), strict=True))
            why = str(error).rstrip(".")
            raise FitError(
                f"{type(model).__name__} refused to be fitted on {pool.n_labeled} labels ({of}): {why}. What was told "
                "is kept: label more rows; on_unfit='random' asks for random ones until it can be fitted"
            ) from error
        return self.fitted[kind]

    def _unfitted(self, kind: Kind) -> Classifier:
        """Return a model to fit: a fresh copy, or with warm_start a copy of the last one."""
        recipe = self.recipes[kind]
        if kind == "model" and self.is_warm and self.last is not None:
            model: Any = interop.unfitted(recipe)  # and not a copy, so that it is as after loading a saved state
            model.load_state_dict(self.last.state_dict())  # type: ignore[attr-defined]
            return model  # type: ignore[no-any-return]
        return interop.unfitted(recipe) if interop.is_clonable(recipe) else recipe

    def outdate(self) -> None:
        """Have all fitted anew when they are wanted next."""
        self.last = self.fitted.get("model", self.last)
        self.fitted = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights that a model with warm_start goes on from, and whether they are of all labels so far."""
        model = self.fitted.get("model", self.last)
        if not self.is_warm or model is None:
            return {}
        return {"model": model.state_dict(), "is_fitted": "model" in self.fitted}  # type: ignore[attr-defined]

    def loaded(self, state: Mapping[str, Any]) -> Classifier | None:
        """Return the model of a saved state; none where there is none, or it does not go on from it.

        Raises:
            RunError: the weights are not its.
        """
        if "model" not in state or not self.is_warm:
            return None
        model: Any = interop.unfitted(self.recipes["model"])
        try:
            model.load_state_dict(state["model"])
        except DataError as error:
            raise RunError(f"the saved model cannot be loaded: {error}") from error
        return model  # type: ignore[no-any-return]

    def go_on(self, model: Classifier | None, pool: Pool, *, is_fitted: bool) -> None:
        """Take up a model of a saved state.

        Args:
            model: what `loaded` returned.
            pool: with the labels of that state.
            is_fitted: whether it had seen all of them.
        """
        # one that came trained answers in the pool's classes, which a copy of its weights does not
        is_trained = self.trained is not None and not has_two_classes(pool)
        self.last = model
        self.fitted = {"model": model} if model is not None and is_fitted and not is_trained else {}


def has_two_classes(pool: Pool) -> bool:
    """Tell whether labels of two classes are there, so that a classifier can be fitted."""
    return len(pool.targets[pool.labeled].unique()) > 1


def checked_fit(model: Classifier) -> Classifier:
    """Require that a model can predict."""
    if not hasattr(model, "predict"):
        raise CapabilityError(f"{type(model).__name__} has no predict once it is fitted")
    return model
