"""The nearest rows in a few lists: most of them for a part of the work, and how many of them, by a sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchal.engine.distances import Space, WholeCosineSpace, unit_rows
from torchal.engine.draws import draw_places
from torchal.engine.faiss_search import ListIndex
from torchal.engine.sources import StreamedRows

_DOUBT = 0.05
"""How probable it may be that a mean is less than `lowest_mean`."""
_LEAST_SAMPLE = 1000
_LISTS = 4  # times the square root of N: choosing among lists costs about as much as reading a few of them
_TRAINING = 40  # rows for each centre; faiss warns of fewer than 39


class InvertedLists:
    """A copy of all rows in float32, in lists of rows that are near each other.

    Args:
        source: the rows of one process, on the CPU, with euclidean or cosine distances.
        generator: which rows the centres are found among, and where k-means starts.
    """

    def __init__(self, source: StreamedRows, generator: torch.Generator) -> None:
        self._source = source
        n_rows = len(source)
        n_lists = min(n_rows, math.ceil(_LISTS * math.sqrt(n_rows)))
        drawn = draw_places(min(n_rows, _TRAINING * n_lists), n_rows, generator).cpu().sort().values
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        self._index = ListIndex(_single(source.space, source.select(drawn).x), n_lists, seed)
        self.n_lists = n_lists
        size = source.reader.chunk_rows()
        for start in range(0, n_rows, size):
            self._index.add(_single(source.space, source.part(start, min(start + size, n_rows)).x))

    def nearest(self, k: int, n_probes: int, *, wanted: Tensor | None = None) -> Tensor:
        """Return the k nearest other rows of each row, or of some, in the lists of the nearest centres.

        A row with fewer than k others in these lists looks into twice as many, until there are k.

        Args:
            k: at most N - 1.
            n_probes: how many lists.
            wanted: of which rows.

        Shapes:
            wanted: (R,) int64.

        Returns:
            (R, k) int64, the nearest first, as float32 has them.
        """
        source = self._source
        n_rows = len(source) if wanted is None else len(wanted)
        found = torch.empty((n_rows, k), dtype=torch.int64)

        def look(start: int, stop: int) -> None:
            if wanted is None:
                own, rows = torch.arange(start, stop), source.part(start, stop)
            else:
                own, rows = wanted[start:stop], source.select(wanted[start:stop])
            near = self._nearest(_single(source.space, rows.x), k + 1, n_probes)
            # A row is often, but among duplicates not always, found for itself.
            others_first = (near == own.unsqueeze(1)).sort(dim=1, stable=True).indices
            found[start:stop] = near.gather(1, others_first)[:, :k]

        source.in_chunks(n_rows, source.reader.chunk_rows(2 * k), look)
        return found

    def _nearest(self, x: Tensor, k: int, n_probes: int) -> Tensor:
        found = self._index.nearest(x, k, n_probes)
        short = (found[:, -1] < 0).nonzero().squeeze(1)
        while len(short) and n_probes < self.n_lists:
            n_probes = min(2 * n_probes, self.n_lists)
            found[short] = self._index.nearest(x[short], k, n_probes)
            short = short[found[short, -1] < 0]
        return found


def sample_size(least: float) -> int | None:
    """Return how many rows show that a mean is at least `least`, with room for half as many misses as it allows.

    None where no sample shows it, since it allows no miss at all.
    """
    return None if least == 1 else max(_LEAST_SAMPLE, math.ceil(2 * math.log(1 / _DOUBT) / (1 - least)))


def lowest_mean(mean: float, n: int) -> float:
    """Return what the mean of numbers between 0 and 1 is at least, with a confidence of 95 %, by that of n drawn ones.

    The one-sided bound is right for every n and every distribution of the numbers, drawn with or without replacement.

    Reference:
        Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 1963, (2.1) and section 6: the
        smallest q < mean with n KL(mean, q) <= log 20.

    Example:
        >>> round(lowest_mean(1.0, 1000), 4), round(lowest_mean(0.97, 1000), 4), lowest_mean(0.0, 1000)
        (0.997, 0.9549, 0.0)
    """
    most = math.log(1 / _DOUBT) / n
    low, high = 0.0, mean
    for _ in range(60):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        apart = mean * math.log(mean / middle)
        apart += (1 - mean) * math.log((1 - mean) / (1 - middle)) if mean < 1 else 0.0
        low, high = (middle, high) if apart > most else (low, middle)
    return low


def _single(space: Space, x: Tensor) -> Tensor:
    """Return rows that were made ready, (R, D) float32, so that squared distances are ordered as values are."""
    return (unit_rows(x) if isinstance(space, WholeCosineSpace) else x).float().contiguous()
