"""Batches chosen by simulating what smaller batches would have led to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.errors import CapabilityError, ConfigError
from torchal.functional.selection import Selection, top_n
from torchal.functional.uncertainty import draw_labels
from torchal.pool import interop
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import Sampler
from torchal.samplers.composite import CompositeSampler, arm_names, checked_arms
from torchal.samplers.margin import Margin
from torchal.samplers.uniform import Uniform

Keep = Literal["best_arm", "best_simulation", "frequent"]


@dataclass
class SimulateBatch(CompositeSampler):
    """Plays each arm several times in small batches, with labels drawn from the model, and learns from how that ends.

    A simulation picks minibatches of a `train_per_sim`-th of the batch, draws their labels from the probabilities of
    the model, and fits it again after each. Members see the drawn labels in their view, but observe no simulated round:
    one whose state matters from batch to batch, as graph density's, plays each minibatch with the state of now.

    Args:
        samplers: the members of the arms.
        arms: for each arm the members' weights; each member alone is an arm unless given.
        n_sims: simulations of each arm.
        train_per_sim: minibatches of each simulation.
        keep: what the batch is. "best_arm": what the arm with the best mean validation accuracy at the end of its
            simulations picks at once; "best_simulation": the rows of that arm's best simulation; "frequent": the rows
            that come most often in the simulations of all arms, for which no validation part is needed.

    Raises:
        ConfigError: no samplers or arms; weights that are no mixture; a number out of range; an unknown `keep`.

    Reference:
        google/active-learning, simulate_batch. There "frequent" counts the last arm's simulations only.

    Complexity:
        n_sims x train_per_sim fits for each arm, by the model's `fit_many` where it has one.

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from torchal import ActiveLearner, Pool
        >>> from torchal.samplers import Margin, SimulateBatch
        >>> inputs = torch.linspace(0, 1, 101)[:, None]
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> pool = Pool.unlabeled(inputs, n_classes=2).with_labels(torch.tensor([0, 9, 91, 99]), labels)
        >>> learner = ActiveLearner(GaussianNB(), SimulateBatch([Margin()], n_sims=3, keep="frequent"), pool)
        >>> len(learner.ask(5))
        5
    """

    samplers: Sequence[Sampler]
    arms: Sequence[Sequence[float]] | None = None
    n_sims: int = 10
    train_per_sim: int = 10
    keep: Keep = "best_simulation"
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    requires = (HasProbabilities,)

    def __post_init__(self) -> None:
        self.check_members()
        self.arms = checked_arms(self.arms, n_members=len(self.samplers))
        check_whole("n_sims", self.n_sims, least=1)
        check_whole("train_per_sim", self.train_per_sim, least=1)
        if self.keep not in get_args(Keep):
            raise ConfigError(f"keep must be one of {', '.join(get_args(Keep))}; got {self.keep!r}")

    @property
    def needs_validation(self) -> bool:
        """Whether simulations are compared by their validation accuracy, or a member needs it."""
        return self.keep != "frequent" or super().needs_validation

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - always, to draw labels from
        """Tell that it reads a model, whose labels are simulated."""
        return True

    def check_model(self, model: object) -> None:
        """Require probabilities to draw labels from, and a model that can be cloned to be fitted on them."""
        super().check_model(model)
        if not interop.is_clonable(model):
            raise CapabilityError(
                f"{type(self).__name__} fits copies of the model; {type(model).__name__} has no get_params to clone it"
            )

    def select(self, view: PoolView, n: int) -> Selection:
        """Simulate every arm, and return what `keep` says."""
        assert self.arms is not None
        check_budget(n, int(view.candidates.sum()))
        arms = [self._simulate(view.fork(i), n, arm) for i, arm in enumerate(self.arms)]
        names = arm_names(self.names, self.arms)
        self._report = {"simulations": self.n_sims}
        if self.keep == "frequent":
            times = torch.cat([arm.rows.flatten() for arm in arms]).bincount(minlength=len(view))
            batch = top_n(times.double(), n, candidates=view.candidates)
            everything = (arm.proposals(range(self.n_sims)) for arm in arms)
            proposals = [torch.cat(named) for named in zip(*everything, strict=True)]
        else:
            means = torch.stack([arm.scores.mean() for arm in arms])
            chosen = int(means.argmax())
            best = arms[chosen]
            self._report |= {
                "mean_simulated_accuracy": dict(zip(names, means.tolist(), strict=True)),
                "simulated_accuracies": dict(zip(names, (arm.scores.tolist() for arm in arms), strict=True)),
                "arm": chosen,
                "arm_name": names[chosen],
            }
            if self.keep == "best_arm":
                mixed = self.mix(view, n, self.arms[chosen])
                batch, proposals = mixed.selection, list(mixed.proposals)
            else:
                which = int(best.scores.argmax())
                rows = best.rows[which]
                scores = best.scores[which].to(rows.device).expand(n)
                batch, proposals = Selection(rows, scores), best.proposals([which])
        of_one_selection = self.keep == "best_arm"
        members = self.members_report(batch.indices, proposals, with_reports=of_one_selection)
        self._report["members"] = members
        return batch

    def report(self) -> dict[str, Any]:
        """Return the accuracies at the ends of the simulations, the arm chosen, and who has named which row."""
        return self._report

    def _simulate(self, view: PoolView, n: int, arm: Sequence[float]) -> _Simulations:
        """Simulate a batch of n rows n_sims times, side by side."""
        n_sims = self.n_sims
        size = math.ceil(n / self.train_per_sim)
        rows = torch.empty(n_sims, 0, dtype=torch.int64, device=view.candidates.device)
        labels, trials = rows, [view] * n_sims
        named: list[list[tuple[Tensor, ...]]] = [[] for _ in trials]
        for begin in range(0, n, size):
            picked, drawn = [], []
            for i, trial in enumerate(trials):
                own = trial.fork(begin * n_sims + i)
                mixed = self.mix(own, min(size, n - begin), arm)
                picked.append(mixed.indices)
                drawn.append(trial.classes[draw_labels(trial.log_probs_of(mixed.indices), generator=own.generator)])
                if trial is not view:
                    trial.outputs.clear()  # else the outputs of all simulations would be held at once
                named[i].append(mixed.proposals)
            rows = torch.cat([rows, torch.stack(picked)], 1)
            labels = torch.cat([labels, torch.stack(drawn).to(labels.device)], 1)
            if begin + size < n or self.keep != "frequent":
                trials = list(view.refit(rows, labels).trials)
        scores = [math.nan if self.keep == "frequent" else trial.validation_score() for trial in trials]
        return _Simulations(rows, torch.tensor(scores, dtype=torch.float64), named)


class _Simulations(NamedTuple):
    """Simulations of an arm: rows (T, n), validation accuracies at the end (T,), and what each member named by step."""

    rows: Tensor
    scores: Tensor
    named: list[list[tuple[Tensor, ...]]]

    def proposals(self, which: Sequence[int]) -> list[Tensor]:
        """Return what each member named in some of the simulations."""
        steps = [step for i in which for step in self.named[i]]
        return [torch.cat(parts) for parts in zip(*steps, strict=True)]


def simulate_batch_mixture() -> SimulateBatch:
    """Return the Playground's choice among three mixtures of margin and uniform sampling, by five simulations each."""
    return SimulateBatch((Margin(), Uniform()), arms=((1, 0), (0.5, 0.5), (0, 1)), n_sims=5, keep="best_arm")


def simulate_batch_best_sim() -> SimulateBatch:
    """Return the Playground's choice of the best of ten simulations of margin sampling."""
    return SimulateBatch((Margin(),), keep="best_simulation")


def simulate_batch_frequency() -> SimulateBatch:
    """Return the Playground's choice of the rows that come most often in ten simulations of margin sampling."""
    return SimulateBatch((Margin(),), keep="frequent")
