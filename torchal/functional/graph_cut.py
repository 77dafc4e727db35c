"""Graph cut: rows that are like all others, and unlike each other."""

from __future__ import annotations

from numbers import Real
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_finite
from torchal._chunks import exact_arithmetic
from torchal.engine.distances import kinds, unit_rows
from torchal.engine.features import FeatureReader, Features
from torchal.engine.greedy import Picks
from torchal.errors import ConfigError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection

Similarity: TypeAlias = Literal["cosine", "shifted_cosine"]
Redundancy: TypeAlias = float | Literal["balanced"]

_PICKED = -torch.inf  # the gain of a row that may not be picked


def graph_cut(
    features: Features,
    n: int,
    *,
    redundancy: Redundancy = "balanced",
    similarity: Similarity = "shifted_cosine",
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row that is most like all rows, and least like the labeled rows and the picks.

    It is the greedy algorithm on

        f(S) = sum of s(i, j) over all rows i and j in S - redundancy x sum of s(j, k) over j and k in S,

    where S are the labeled rows and the picks. Where no similarity s is negative, as with the shifted cosine always,
    f is submodular, and with a redundancy of at most 1/2 it is monotone too: its value is then at least 1 - 1/e of the
    largest that any n picks have (all beyond what the labeled rows have). The first sum has N terms for each pick, the
    second two for each pair, so that much more than 1/2 is needed for the second to count in a large pool. "balanced"
    is N / (2 L + 2 n): a pick gains N times what it is like the pool on average, less what it is like S, were S full.

    A row of zeros, as a blank image or a document without a known word is, has no direction: its cosine with every row
    is 0, also with itself, so its shifted cosine is 1/2.

    Ties of equal rows go to the lowest. Gains are sums in float64, but of similarities as exact as the features' dtype
    (float32 for half precision); where different rows' gains are closer than that, either may come first.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to pick.
        redundancy: lambda of the paper, at least 0; or "balanced".
        similarity: shifted_cosine, (1 + cos) / 2; or cosine, which may be negative.
        labeled: rows that are in S from the start.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.

    Shapes:
        features: (N, D) float.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,) float64, by how much each raised f. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: an unknown similarity, or a redundancy that is neither "balanced" nor at least 0.
        ShapeError: features is no float matrix, or a mask disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Iyer, Khargonkar, Bilmes & Asnani, "Submodular Combinatorial Information Measures with Applications in Machine
        Learning", ALT 2021, where f is the graph cut function; as a strategy, Kothawade, Beck, Killamsetty & Iyer,
        "SIMILAR: Submodular Information Measures Based Active Learning in Realistic Scenarios", NeurIPS 2021. Its
        similarities are those of gradients; here of any features. "balanced" is none of theirs: it is the slope of the
        maximum mean discrepancy between S and the pool.

    Complexity:
        N D (n + 3) multiply-adds in n + 3 passes over the rows: similarities are products of rows, so the sum of those
        with many rows is the product with one vector. (Redundancies that matter change all gains at every pick, so that
        old ones say little about new ones.) O(N) memory beyond the features, and chunks.

    Example:
        >>> x = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [0.0, 1.0]])
        >>> graph_cut(x, 2, redundancy=0.0).indices
        tensor([0, 1])
        >>> graph_cut(x, 2, redundancy=2.0).indices
        tensor([0, 3])
    """
    check_graph_cut(redundancy, similarity)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
    check_budget(n, int(candidates.sum()))
    n_known = int(labeled.sum())
    weight = len(reader) / (2 * (n_known + n)) if redundancy == "balanced" else float(redundancy)
    with exact_arithmetic(reader.device):
        lengths, kind = _survey(reader)
        rows, gains = _Cut(reader, lengths, shifted=similarity == "shifted_cosine", weight=weight).pick(
            n, kind, labeled.to(reader.device), candidates.to(reader.device)
        )
    return Selection(rows.to(reader.home), gains.to(reader.home))


def check_graph_cut(redundancy: object, similarity: object) -> None:
    """Require settings of `graph_cut` that make sense.

    Raises:
        ConfigError: an unknown similarity, or a redundancy that is neither "balanced" nor at least 0.
    """
    if similarity not in get_args(Similarity):
        raise ConfigError(f"similarity must be one of {', '.join(get_args(Similarity))}, got {similarity!r}")
    number = isinstance(redundancy, Real) and not isinstance(redundancy, bool) and 0 <= float(redundancy) < torch.inf
    if not number and redundancy != "balanced":
        raise ConfigError(f"redundancy must be 'balanced' or a finite number of at least 0, got {redundancy!r}")


def _survey(reader: FeatureReader) -> tuple[Tensor, Tensor]:
    """Return the length of each row, 0 and inf where it has no place in float64, and a number that equal rows share.

    Shapes:
        both: (N,) float64.

    Raises:
        DataError: features that are not finite.
    """
    lengths, kind = torch.empty(2, len(reader), dtype=torch.float64, device=reader.device)

    def measure(start: int, stop: int) -> None:
        x = reader.read(start, stop).double()
        check_finite("features", x, first_row=start)
        peak = x.abs().amax(1)
        x = x / peak.masked_fill(peak == 0, 1).unsqueeze(1)  # or squares might overflow or vanish
        lengths[start:stop] = torch.linalg.vector_norm(x, dim=1) * peak
        kind[start:stop] = kinds(x)

    reader.in_chunks(len(reader), reader.chunk_rows(), measure)
    return lengths, kind


class _Cut:
    """Sums of similarities, each for all rows in one pass.

    Args:
        reader: the rows.
        lengths: (N,) float64.
        shifted: whether similarities are (1 + cos) / 2.
        weight: the redundancy.
    """

    def __init__(self, reader: FeatureReader, lengths: Tensor, *, shifted: bool, weight: float) -> None:
        self.reader = reader
        self.shifted = shifted
        self.weight = weight
        self.zeros = lengths == 0
        self.lengths = lengths.masked_fill(self.zeros, 1)  # as good as any: their products are 0
        short, long = (float(length) for length in self.lengths.aminmax())
        small = 1e-15 < short <= long < 1e15  # so that products fit into float32
        self.dtype = torch.promote_types(reader.dtype, torch.float32 if small else torch.float64)
        self.scaled = not 1e-280 < short <= long < 1e280  # each row in each pass, or products do not fit into float64
        if self.scaled:
            self.lengths.fill_(1)

    def own(self) -> Tensor:
        """Return the similarity of each row with itself, (N,) float64."""
        cosines = (~self.zeros).double()
        return cosines.add_(1).div_(2) if self.shifted else cosines

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Return rows start to stop, which `lengths` divides, until the next read."""
        x = self.reader.read(start, stop).to(dtype)
        return unit_rows(x) if self.scaled else x

    def similarities(self, total: Tensor, count: float, dtype: torch.dtype) -> Tensor:
        """Return each row's sum of similarities, (N,) float64, with `count` unit rows that sum to `total` (D,)."""
        total = total.to(dtype)
        products = torch.empty_like(self.lengths)

        def multiply(start: int, stop: int) -> None:
            products[start:stop] = self.read(start, stop, dtype) @ total

        self.reader.in_chunks(len(products), self.reader.chunk_rows(), multiply)
        products.div_(self.lengths)
        return products.add_(count).div_(2) if self.shifted else products

    def sums(self, labeled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of all rows, and of the labeled ones, each scaled to length 1, (D,) float64 both."""
        sums = self.lengths.new_zeros(2, self.reader.n_columns)

        def add(start: int, stop: int) -> None:
            weights = 1 / self.lengths[start:stop]
            sums.addmm_(torch.stack([weights, weights * labeled[start:stop]]), self.read(start, stop, torch.float64))

        self.reader.in_chunks(len(self.lengths), self.reader.chunk_rows(), add)
        return sums[0], sums[1]

    def pick(self, n: int, kind: Tensor, labeled: Tensor, candidates: Tensor) -> Picks:
        """Do what `graph_cut` does, after its checks."""
        everything, known = self.sums(labeled)
        count = len(labeled) - 2 * self.weight * int(labeled.sum())
        gains = self.similarities(everything - 2 * self.weight * known, count, torch.float64)
        gains.sub_(self.own(), alpha=self.weight).masked_fill_(~candidates, _PICKED)
        picked = torch.empty(n, dtype=torch.int64, device=gains.device)
        scores = gains.new_empty(n)
        for step in range(n):
            row = gains.argmax(0, keepdim=True)
            alike = (kind == kind[row]) & (gains > _PICKED)  # whose gains may differ by rounding
            row = alike.to(torch.uint8).argmax(0, keepdim=True)
            picked[step : step + 1], scores[step : step + 1] = row, gains[row]
            gains[row] = _PICKED
            if step + 1 < n and self.weight:
                unit = unit_rows(self.reader.rows(row).double()).squeeze(0)
                gains.sub_(self.similarities(unit, 1, self.dtype), alpha=2 * self.weight)
        return picked, scores
