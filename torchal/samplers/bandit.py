"""A bandit that learns which mixture of samplers to ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_fraction
from torchal.errors import ConfigError, DataError
from torchal.functional.exp3 import exp3_probabilities, exp3_update
from torchal.functional.selection import Selection
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler, check_state
from torchal.samplers.composite import CompositeSampler, arm_names, checked_arms
from torchal.samplers.margin import Margin
from torchal.samplers.told import Told
from torchal.samplers.uniform import Uniform


def latest(scores: Sequence[float]) -> float:
    """Return the last score."""
    return scores[-1]


@dataclass
class Bandit(CompositeSampler):
    """Draws an arm for each batch by EXP3, and pays it the validation accuracy that the model has after the batch.

    An arm is a mixture of the same members, so all arms share the members' states and the model's outputs. The first
    draw is uniform. The score after the start set is no reward. In a loop of your own, `tell` it the labels and the
    accuracy that followed.

    Args:
        samplers: the members.
        arms: for each arm the members' weights; each member alone is an arm unless given.
        gamma: the share of the probabilities that stays uniform, in (0, 1]: the lower, the more the rewards count.
        reward: a function of the validation accuracies so far, that of the start set first; the last one unless given.
            It must be in [0, 1]: for a gain, which may be negative, 0.5 + (scores[-1] - scores[-2]) / 2.

    Raises:
        ConfigError: no samplers or arms; weights that are no mixture; gamma or reward out of range.

    Reference:
        Auer, Cesa-Bianchi, Freund & Schapire, "The Nonstochastic Multiarmed Bandit Problem", SIAM Journal on Computing
        2002; for active learning Hsu & Lin, "Active Learning by Learning", AAAI 2015, who use EXP4.P and an estimate of
        the test accuracy by importance weighting, where this uses EXP3 and a validation part.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> from torchal.samplers import Bandit, Margin, Uniform
        >>> bandit = Bandit([Margin(), Uniform()])
        >>> len(bandit.select(PoolView.from_tensors(scores=torch.tensor([3.0, -0.5, 1.0])), 2).indices)
        2
        >>> bandit.report()["probabilities"]
        {'Margin-1': 0.5, 'Uniform-1': 0.5}
    """

    samplers: Sequence[Sampler]
    arms: Sequence[Sequence[float]] | None = None
    gamma: float = 0.5
    reward: Callable[[Sequence[float]], float] = latest
    _log_weights: Tensor = field(init=False, repr=False, compare=False)
    _before: Tensor = field(init=False, repr=False, compare=False)  # the log-weights at the last draw that was paid
    _batch: list[int] = field(default_factory=list, init=False, repr=False, compare=False)  # and its rows
    _n_before: int = field(default=0, init=False, repr=False, compare=False)  # and the number of scores
    _scores: list[float] = field(default_factory=list, init=False, repr=False, compare=False)
    _pulls: list[int] = field(default_factory=list, init=False, repr=False, compare=False)
    _told: Told = field(default_factory=Told, init=False, repr=False, compare=False)
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        self.arms = checked_arms(self.arms, n_members=len(self.samplers))
        check_fraction("gamma", self.gamma)
        if not callable(self.reward):
            raise ConfigError(f"reward must be a function of the scores so far, got {self.reward!r}")
        self._before = self._log_weights = torch.zeros(len(self.arms), dtype=torch.float64)

    @property
    def needs_validation(self) -> bool:
        """True: the accuracy on the validation part is the reward."""
        return True

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - always, to pay an arm
        """Tell that it reads a model, whose accuracy is the reward."""
        return True

    @property
    def arm_names(self) -> list[str]:
        """What the arms are called in reports."""
        assert self.arms is not None
        return arm_names(self.names, self.arms)

    @property
    def probabilities(self) -> Tensor:
        """(A,) float64: of each arm at the next draw."""
        return exp3_probabilities(self._log_weights, gamma=self.gamma)

    @property
    def picks_ahead(self) -> bool:
        """Whether it can pick another batch before the labels of the last one came: no, they pay the arm."""
        return False

    def select(self, view: PoolView, n: int) -> Selection:
        """Draw an arm, and pick n candidates by its mixture."""
        assert self.arms is not None
        self._told.warn_of_others(view, by=type(self).__name__)
        probabilities, generator = self.probabilities, view.fork(0).generator
        arm = int(torch.multinomial(probabilities.to(generator.device), 1, generator=generator))
        mixed = self.mix(view.fork(1), n, self.arms[arm])
        names = self.arm_names
        self._report = {
            "pull": len(self._pulls),
            "arm": arm,
            "arm_name": names[arm],
            "probabilities": dict(zip(names, probabilities.tolist(), strict=True)),
            "members": self.members_report(mixed.indices, mixed.proposals),
        }
        return mixed.selection

    def observe(self, result: RoundResult) -> Mapping[str, Any] | None:
        """Pay the arm whose rows were bought. A batch whose labels come in parts is one pull: its last score counts.

        Raises:
            DataError: no validation accuracy; a reward outside [0, 1]; rows of a draw that is not the last one.
        """
        arm, pull = result.report.get("arm"), result.report.get("pull")
        accuracy = result.validation.get("accuracy")
        # Rows that no arm picked may have none in a round 0 that goes on, as there is no model yet.
        if accuracy is None and not (arm is None and result.round == 0):
            raise DataError(
                f"{type(self).__name__} learns from the validation accuracy; round {result.round} has none"
                if result.round >= 0
                else f"{type(self).__name__} learns from the validation accuracy: tell(..., validation_accuracy=...)"
            )
        if arm is None:
            learned = super().observe(result)
            self._scores += [] if accuracy is None else [accuracy]
            self._told.add(result.rows)
            return learned
        batch = sorted({row for told in result.report["members"].values() for row in told["rows"]})
        again = pull == len(self._pulls) - 1 and batch == self._batch
        if not (again or pull == len(self._pulls)):
            raise DataError(
                f"{type(self).__name__} has {len(self._pulls)} pulls behind it and is told of pull {pull}, arm {arm}; "
                "a sampler with state belongs to one run"
            )
        before = self._before if again else self._log_weights
        n_before = self._n_before if again else len(self._scores)
        scores = [*self._scores[:n_before], result.validation["accuracy"]]
        reward = float(self.reward(tuple(scores)))
        log_weights = exp3_update(before, arm, reward, gamma=self.gamma)
        learned = dict(super().observe(result) or {})
        self._log_weights, self._before, self._scores, self._n_before = log_weights, before, scores, n_before
        self._told.add(result.rows)
        if not again:
            self._pulls.append(arm)
            self._batch = batch
        pulls = {name: self._pulls.count(i) for i, name in enumerate(self.arm_names)}
        return {"reward": reward, "pulls": pulls, **learned}

    def report(self) -> dict[str, Any]:
        """Return the arm of the last batch, the probabilities of all, and who has named which row."""
        return self._report

    def state_dict(self) -> dict[str, Any]:
        """Return weights, scores and pulls, and the members' states."""
        assert self.arms is not None
        return super().state_dict() | {
            "arms": [list(arm) for arm in self.arms],
            "log_weights": self._log_weights.clone(),
            "before": self._before.clone(),
            "n_before": self._n_before,
            "batch": list(self._batch),
            "scores": list(self._scores),
            "pulls": list(self._pulls),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            DataError: the state is of other members or arms.
        """
        assert self.arms is not None
        check_state(state, "arms", by=type(self).__name__)
        if state["arms"] != [list(arm) for arm in self.arms]:
            raise DataError(f"the state is of the arms {state['arms']}; this bandit has {[*map(list, self.arms)]}")
        super().load_state_dict(state)
        self._log_weights, self._before = state["log_weights"].clone(), state["before"].clone()
        self._n_before, self._batch = state["n_before"], list(state["batch"])
        self._scores, self._pulls = list(state["scores"]), list(state["pulls"])
        self._told = Told()


def bandit_mixture() -> Bandit:
    """Return the Playground's bandit over five mixtures of margin and uniform sampling."""
    return Bandit((Margin(), Uniform()), arms=((0, 1), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1, 0)))


def bandit_discrete() -> Bandit:
    """Return the Playground's bandit over margin and uniform sampling."""
    return Bandit((Margin(), Uniform()), arms=((0, 1), (1, 0)))
