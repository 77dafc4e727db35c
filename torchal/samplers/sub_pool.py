"""Another sampler on a random part of the pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.composite import WrapperSampler
from torchal.samplers.margin import Margin
from torchal.samplers.uniform import Uniform


@dataclass
class SubPool(WrapperSampler):
    """Lets another sampler choose among candidates drawn at random, anew in each round.

    For strategies whose work grows with the number of candidates, and against batches of near copies, which the best
    scores of a whole pool may be. The rows drawn are the sampler's only candidates; the outputs of the model are still
    those of all rows, and computed for them where the sampler reads them whole.

    Args:
        sampler: chooses among the rows drawn.
        n_rows: how many candidates are drawn; all, where there are fewer, and never fewer than the batch has rows.

    Raises:
        ConfigError: n_rows is not a whole number of at least 1, or sampler is none.

    Reference:
        Pools drawn anew in each round are in Gal, Islam & Ghahramani, "Deep Bayesian Active Learning with Image Data",
        ICML 2017, and Beluch et al., "The Power of Ensembles for Active Learning in Image Classification", CVPR 2018.

    Example:
        >>> from torchal import PoolView
        >>> from torchal.samplers import Margin, SubPool
        >>> view = PoolView.from_tensors(scores=torch.linspace(1, 100, 100))
        >>> int(SubPool(Margin(), n_rows=10).select(view, 1).indices) > 0  # the surest of ten, hardly row 0
        True
    """

    sampler: Sampler = field(default_factory=Margin)
    n_rows: int = 10_000
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        check_whole("n_rows", self.n_rows, least=1)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n of the candidates drawn."""
        n_candidates = int(view.candidates.sum())
        check_budget(n, n_candidates)
        n_rows = min(max(self.n_rows, n), n_candidates)
        selection = self.ask(view.fork(1).narrowed(self.drawn(view, n_rows)), n)
        self._report = {"n_drawn": n_rows, "members": self.sampler_report(selection.indices)}
        return selection

    def drawn(self, view: PoolView, n_rows: int) -> Tensor:
        """Return which candidates are drawn of this view, (N,) bool: the same for the same view."""
        rows = Uniform().select(view.fork(0), n_rows).indices
        return torch.zeros_like(view.candidates).index_fill_(0, rows, True)

    def report(self) -> dict[str, Any]:
        """Return how many rows were drawn, and the sampler's own report."""
        return self._report
