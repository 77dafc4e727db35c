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
        """Warn where rows of a view were labeled that the sampler was not told of. Call it first of all in `select`."""
        if view.is_hypothetical or view.is_cold:  # before there is a model, the first round is not over
            return
        labeled, start = view.labeled, self._start
        if start is not None and (
            start.shape != labeled.shape or start.device != labeled.device or bool((start & ~labeled).any())
        ):
            start, self._rows = None, self._rows[:0]  # another pool
        if start is None:
            self._start = labeled.clone()
            return
        rows = (labeled & ~start).nonzero().squeeze(1)
        n_others = int((~torch.isin(rows, self._rows.to(rows.device))).sum())
        if n_others:
            warnings.warn(
                f"{by} learns from the labels of its picks, and was not told of {n_others} of {int(labeled.sum())} "
                "labeled rows: in a loop of your own call sampler.tell(picks, labels) after each select",
                UserWarning,
                stacklevel=3,
            )
