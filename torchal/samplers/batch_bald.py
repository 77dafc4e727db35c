"""BatchBALD sampling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.functional.bald import bald
from torchal.functional.batch_bald import batch_bald, joint_mutual_information
from torchal.functional.selection import Selection, top_n
from torchal.pool.view import PoolView
from torchal.protocols import HasPosterior
from torchal.samplers.base import Sampler
from torchal.samplers.posterior import draws_to_compare, score_draws


@dataclass
class BatchBALD(Sampler):
    """Picks a batch whose labels, together, say the most of the model.

    Args:
        k: draws from the posterior; an ensemble with fewer members gives all of them. The labels of a batch can tell no
            more than which of the draws is the true one, log(k) nats, and with few draws a batch of ten gets near to
            that: then its last rows are picked by chance.
        max_configurations: of the picked rows' labels that are looked at; see `torchal.functional.batch_bald`.
        n_candidates: the rows that are considered, those of the largest BALD; never fewer than are picked, and None for
            all. They are held in memory, with k numbers for each class. Rows outside can only have been the better pick
            where a gain is below `bound_outside` in the report, their largest BALD.

    Raises:
        ConfigError: k is not a whole number of at least 2, or another setting of at least 1.

    Reference:
        See `torchal.functional.batch_bald`. The paper considers all rows.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> first = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])  # four draws
        >>> second = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
        >>> view = PoolView.from_tensors(posterior_log_probs=torch.stack([first, first, second]).log())
        >>> BatchBALD(k=4).select(view, 2).indices
        tensor([0, 2])
    """

    requires = (HasPosterior,)

    k: int = 100
    max_configurations: int = 10_000
    n_candidates: int | None = 20_000
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_whole("k", self.k, least=2)
        check_whole("max_configurations", self.max_configurations, least=2)
        if self.n_candidates is not None:
            check_whole("n_candidates", self.n_candidates, least=1)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `batch_bald`."""
        n_candidates = int(view.candidates.sum())
        check_budget(n, n_candidates)
        self._report = {}
        k = draws_to_compare(view, self.k)
        rows = self._considered(view, k, n)
        log_probs = view.posterior_log_probs_of(rows, k)
        generator, most = view.generator, self.max_configurations
        picks = batch_bald(log_probs, n, generator=generator, max_configurations=most)
        joint = joint_mutual_information(log_probs[picks.indices], generator=generator, max_configurations=most)
        self._report["joint_mutual_information"] = float(joint.values[-1])
        self._report["standard_error"] = float(joint.standard_errors[-1])
        if n < n_candidates and float(picks.scores[0]) < 1e-9:
            warnings.warn(
                f"all {n_candidates} candidates have the same BatchBALD score, 0: the picks are the first rows, not "
                "those most wanted. Does the model answer the same under every draw?",
                UserWarning,
                stacklevel=3,
            )
        return Selection(rows[picks.indices], picks.scores)

    def _considered(self, view: PoolView, k: int, n: int) -> Tensor:
        """Return the candidates of the largest BALD, ascending."""
        rows = view.candidates.nonzero().squeeze(1)
        if self.n_candidates is None or len(rows) <= max(n, self.n_candidates):
            return rows
        n_considered = max(n, self.n_candidates)
        ordered = top_n(score_draws(view, k, bald), n_considered + 1, candidates=view.candidates)
        self._report["bound_outside"] = float(ordered.scores[-1])
        return ordered.indices[:-1].sort().values

    def report(self) -> dict[str, Any]:
        """Return what the batch's labels say, in nats, with its standard error, and the largest BALD not considered."""
        return dict(self._report)
