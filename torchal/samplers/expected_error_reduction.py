"""Expected error reduction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from torchal import functional
from torchal._checks import check_budget, check_flag, check_whole
from torchal.errors import CapabilityError, ConfigError
from torchal.functional.expected_error import Form, Loss, check_settings
from torchal.functional.selection import Selection, top_n
from torchal.pool import interop
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import Sampler

Refit = Literal["last_layer", "exact"]


@dataclass(frozen=True)
class ExpectedErrorReduction(Sampler):
    """Picks the rows whose label is expected to leave the model with the least error on the other candidates.

    For each row and each label that it may have, the model is refitted with both: for real, or its last layer by an
    approximation that any model with probabilities is taken to have on its features. The rows are scored one by one;
    those of a batch know nothing of each other.

    Args:
        refit: "last_layer", as if the model were a logistic regression on the view's features; "exact", by fits of
            clones, all of `refits_at_once` by one call of the model's `fit_many` where it has one.
        loss: "log", the entropy of the predictions that follow; "zero_one", 1 minus their largest probability.
        l2: of the last layer, the factor of half the squared weights beside the sum of the log-losses: 1 / C of a
            logistic regression.
        fit_intercept: whether the last layer has an intercept, which is not penalized.
        form: of the last layer's Hessian; "auto", "newton" or "kronecker".
        n_steps: of the last layer's refit; with more of them it is the optimum.
        n_candidates: how many candidates are scored, drawn at random anew in each round; at least as many as are to
            be picked. All where None, or where there are no more.
        n_pool: how many candidates the error is averaged over, likewise. With all of them, a row is left out of its own
            average.
        refits_at_once: how many clones are fitted at once.

    Raises:
        ConfigError: an unknown refit, loss or form, or a number out of range.

    Reference:
        See `torchal.functional.expected_error_reduction`. Roy & McCallum (2001) sample the pool too.

    Complexity:
        "last_layer": as said there, n_candidates and n_pool for n and M. "exact": n_candidates x C fits.

    Example:
        >>> from torchal import PoolView
        >>> x = torch.tensor([[-2.0], [2.0], [-1.9], [0.1], [0.2]])
        >>> log_probs = torch.nn.functional.logsigmoid(x * torch.tensor([-1.0, 1.0]))
        >>> labeled = torch.tensor([True, True, False, False, False])
        >>> view = PoolView.from_tensors(features=x, log_probs=log_probs, labeled=labeled)
        >>> ExpectedErrorReduction().select(view, 1).indices
        tensor([3])
    """

    refit: Refit = "last_layer"
    loss: Loss = "log"
    l2: float = 1.0
    fit_intercept: bool = True
    form: Form = "auto"
    n_steps: int = 2
    n_candidates: int | None = 1000
    n_pool: int | None = 1000
    refits_at_once: int = 64

    requires = (HasProbabilities,)

    def __post_init__(self) -> None:
        if self.refit not in get_args(Refit):
            raise ConfigError(f"refit must be one of {', '.join(get_args(Refit))}; got {self.refit!r}")
        check_settings(self.loss, self.form, self.l2)
        check_flag("fit_intercept", self.fit_intercept)
        for name in ("n_steps", "n_candidates", "n_pool", "refits_at_once"):
            value = getattr(self, name)
            if value is not None or name in {"n_steps", "refits_at_once"}:
                check_whole(name, value, least=1)

    def check_model(self, model: object) -> None:
        """Require probabilities, and for exact refits a model that can be cloned."""
        super().check_model(model)
        if self.refit == "exact" and not interop.is_clonable(model):
            raise CapabilityError(
                f"{type(self).__name__} with refit='exact' fits copies of the model; {type(model).__name__} has no "
                "get_params to clone it; refit='last_layer' needs none"
            )

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n best of the candidates that are scored."""
        candidates = view.candidates.nonzero().squeeze(1)
        check_budget(n, len(candidates))
        generator = view.generator
        scored = None if self.n_candidates is None else max(n, self.n_candidates)
        rows = _draw(candidates, scored, generator)
        pool = _draw(candidates, self.n_pool, generator)
        best = top_n(self._scores(view, rows, pool), n)
        return Selection(rows[best.indices], best.scores)

    def _scores(self, view: PoolView, rows: Tensor, pool: Tensor) -> Tensor:
        if self.refit == "last_layer":
            return functional.expected_error_reduction(
                view.log_probs,
                view.features,
                labeled=view.labeled,
                rows=rows,
                pool=pool,
                loss=self.loss,
                l2=self.l2,
                fit_intercept=self.fit_intercept,
                form=self.form,
                n_steps=self.n_steps,
            )

        def refit(added: Tensor, labels: Tensor) -> Tensor:
            return view.refit(added.unsqueeze(1), view.classes[labels].unsqueeze(1)).log_probs_of(pool)

        return functional.expected_error_of_refits(
            view.log_probs,
            refit,
            rows=rows,
            pool=pool,
            loss=self.loss,
            refits_at_once=self.refits_at_once,
        )


def _draw(rows: Tensor, n: int | None, generator: torch.Generator) -> Tensor:
    """Return n of some rows at random, ascending; all where there are no more, or n is None."""
    if n is None or n >= len(rows):
        return rows
    order = torch.randperm(len(rows), generator=generator, device=generator.device)
    return rows[order[:n].sort().values.to(rows.device)]
