"""To know of which labels a sampler was told, so that it can say when it was not."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from torchal.pool.view import PoolView


class Told:
    """The labeled rows that a sampler knows of.

    Nobody has to tell of those that are labeled when it first looks at a pool: they are a start set, or what came
    before a resume. So this is no part of a sampler's state.
    """

    def __init__(self) -> None:
        self._start: Tensor | None = None  # (N,) bool
        self._rows = torch.empty(0, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Note that the sampler was told of these rows (n,) int64."""
        self._rows = torch.cat([self._rows, rows.cpu()])

    def warn_of_others(self, view: PoolView, *, by: str) -> None:
        """Warn where rows of a view were labeled that the sampler was not told of.

        Call it in `select` itself, since the warning points at whoever called that, and after the checks that the pool
        is that of before.
        """
        if view.is_hypothetical:
            return
        labeled, start = view.labeled, self._start
        if start is None or self._is_of_another_pool(labeled):
            self._rows = self._rows if start is None else self._rows[:0]
            self._start = labeled.clone()
            return
        self._start = start & labeled  # a label that was taken back and comes again is news
        rows = (labeled & ~start).nonzero().squeeze(1)
        n_others = int((~torch.isin(rows, self._rows.to(rows.device))).sum())
        if n_others:
            warnings.warn(
                f"{by} learns from the labels of its picks, and was not told of {n_others} of {int(labeled.sum())} "
                "labeled rows: in a loop of your own call sampler.tell(picks, labels) after each select",
                UserWarning,
                stacklevel=4,
            )

    def _is_of_another_pool(self, labeled: Tensor) -> bool:
        """Tell whether none of the rows known is labeled any more, or there are not as many rows."""
        start = self._start
        assert start is not None
        if start.shape != labeled.shape or start.device != labeled.device:
            return True
        known = start.index_fill(0, self._rows[self._rows < len(start)].to(start.device), True)
        return bool(known.any()) and not bool((known & labeled).any())
