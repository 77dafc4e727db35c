"""BAIT: rows whose labels would tell most about a classifier's last layer, by its Fisher information."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, check_budget, check_finite, check_positive, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.features import FeatureReader, Features
from torchal.engine.fisher import FisherRows, RankOneFisher, WholeFisher, best_against_all, of_two, one_against_all
from torchal.errors import ConfigError, ShapeError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection
from torchal.functional.uncertainty import least_confidence

Form = Literal["auto", "exact", "block_diagonal", "binary"]

_EXACT_SIZE = 2**13  # rows of the exact Fisher matrix, which has half a GiB then; a handful of them are held
_BLOCK_VALUES = 2**26  # numbers of a block-diagonal one, half a GiB
_KEPT_VALUES = 2**28  # numbers kept for all candidates, 2 GiB
_PRODUCTS = 2**40  # multiply-adds of all picks together: about a minute of a few CPU cores
_LEAST_RIDGE = 2.0**-23  # of the largest squared length: 1 - G, of rows that are to be removed again, keeps some digits
_SAME = 1e-10  # gains closer than this, relative to the best, are equal: rounding must not choose among copies


def bait(
    log_probs: ArrayLike,
    features: Features,
    n: int,
    *,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    regularization: float = 1.0,
    oversampling: int = 2,
    form: Form = "auto",
) -> Selection:
    r"""Pick rows whose labels would leave the least error of the last layer over the whole pool, as its Fisher tells.

    The Fisher matrix of the last layer at a row with probabilities p and features h is (diag(p) - p p^T) (x) h h^T,
    whatever its label. With F, its mean over all N rows, and

        M = regularization I + sum over L labeled rows / (L + n) + sum over picks * n / (L + n),

    tr(M^-1 F) bounds the expected error. Forward, the row that lowers it most is picked, oversampling * n times or
    until there are no candidates left; backward, the pick without which it grows least is removed, until n remain.

    Gains that agree to ten digits go to the lowest row, and of such losses the latest pick is removed. A class that
    all rows are sure of, or features of zero, have no Fisher; where nothing is to be gained, the picks are the lowest
    rows.

    Args:
        log_probs: what the model predicts.
        features: what its last layer reads. The regularization refers to their scale: features ten times as large are
            as a hundredth of it. Over the share of the picks among all labels, n / (L + n), it counts as at least
            2^-23 of the largest squared length of a row, for float64 could not tell less from none.
        n: how many rows to pick.
        labeled: the rows that are labeled; none unless given.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        regularization: lambda, above 0: the precision of the prior. The authors take 1, on CIFAR-10 0.01.
        oversampling: how many times n rows are picked forward; 1 leaves the backward pass out.
        form: "exact"; "block_diagonal", without what couples two classes, sum of p (1 - p) h h^T for each;
            "binary", the most probable class against all others, with p (1 - p) of that class for all of them; or
            "auto", the first of these that is small enough: exact to (C - 1) D = 8192 where the candidates times
            (C - 1)^2 are at most 2^27, block_diagonal to C D^2 = 2^26 and candidates times C of 2^27; either where the
            forward picks take at most 2^40 multiply-adds (`Complexity`). The others are approximations: see
            `Reference`.

    Shapes:
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        features: (N, D) float, on the same device; a tensor or a mapped file.
        labeled, candidates: (N,) bool.

    Returns:
        indices (n,) in pick order; scores (n,) float64, by how much each pick lowered tr(M^-1 F) when it was picked.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: log_probs or features are no float matrices, or the tensors disagree in rows or device.
        DataError: features are not finite; a row of log_probs does not sum to 1 after exp.
        ConfigError: regularization is not above 0, oversampling not a whole number of at least 1, or form unknown.

    Reference:
        Ash, Goel, Krishnamurthy & Kakade, "Gone Fishing: Neural Active Learning with Fisher Embeddings", NeurIPS 2021,
        Algorithm 1, with the scales of the authors' code (JordanAsh/badge): F is the mean over labeled rows too, and a
        labeled row counts an n-th of a pick. Deviations: equal gains go to the lowest row (theirs, to the highest), and
        classes are told against the first, which makes the matrices (C - 1) D wide and changes nothing else.
        "binary" is that of Huseljic, Hahn, Herde, Rauch & Sick, "Fast Fishing: Approximating BAIT for Efficient and
        Scalable Deep Active Image Classification", ECML PKDD 2024.

    Complexity:
        With r = C - 1, exact: for each row once (r D)^2 multiply-adds, and for each pick 2 r^2 D + 6 r^3, for what a
        pick changes has rank r (from the start they would be (r D)^2 each time). A pick also takes 9 r (r D)^2 for the
        matrices. Memory 2 r^2 numbers a candidate, and 4 (r D)^2.
        block_diagonal: for each row once 2 C D^2, for each pick 2 C D; memory 3 C a candidate, and 3 C D^2. binary, and
        exact with two classes: the same with C = 1. All of it in float64.

    Example:
        >>> log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.9, 0.1], [1.0, 0.0]]).log()
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 9.0]])
        >>> bait(log_probs, features, 2).indices
        tensor([2, 0])
    """
    reader = FeatureReader(features)
    log_probs = as_float("log_probs", log_probs, ndim=2)
    least_confidence(log_probs)  # its checks
    if len(log_probs) != len(reader) or log_probs.device != reader.home:
        raise ShapeError(
            "log_probs (N, C) and features (N, D) must have the same rows on one device, got "
            f"{tuple(log_probs.shape)} on {log_probs.device} and {(len(reader), reader.n_columns)} on {reader.home}"
        )
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
    check_settings(regularization, oversampling, form)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(reader.device):
        rows = candidates.nonzero().squeeze(1)
        n_forward = min(oversampling * n, len(rows))
        if form == "auto":
            form = form_for(len(rows), log_probs.shape[1], reader.n_columns, n_forward)
        kind = _kind_of(form, log_probs.shape[1], reader.n_columns)
        pool = _Pool(kind, log_probs.detach(), reader)
        matrices = _Matrices.of(pool, labeled.nonzero().squeeze(1), n, float(regularization))
        picked, scores = _greedy(_Candidates.of(pool, rows, matrices), matrices, n, n_forward)
        return Selection(rows[picked], scores)


def check_settings(regularization: object, oversampling: object, form: object) -> None:
    """Require settings that `bait` takes.

    Raises:
        ConfigError: one is out of range.
    """
    check_positive("regularization", regularization)  # without it a Fisher matrix of few rows has no inverse
    check_whole("oversampling", oversampling, least=1)
    if form not in get_args(Form):
        raise ConfigError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")


def form_for(n_candidates: int, n_classes: int, n_columns: int, n_picks: int) -> Form:
    """Return what "auto" is: the first of exact, block_diagonal and binary that is small enough.

    Example:
        >>> sizes = (50_000, 10, 512), (50_000, 100, 512), (1_000_000, 1000, 512)
        >>> [form_for(*size, n_picks=200) for size in sizes]
        ['exact', 'block_diagonal', 'binary']
    """
    rank = n_classes - 1
    # of matrices, of what is kept for the candidates, and of multiply-adds for each of these and each pick
    limits = {
        "exact": (rank * n_columns <= _EXACT_SIZE, 2 * rank**2, 2 * rank**2 * n_columns + 6 * rank**3),
        "block_diagonal": (n_classes * n_columns**2 <= _BLOCK_VALUES, 2 * n_classes, 2 * n_classes * n_columns),
    }
    for form, (is_small, kept, products) in limits.items():
        if is_small and n_candidates * kept <= _KEPT_VALUES and n_candidates * n_picks * products <= _PRODUCTS:
            return cast(Form, form)
    return "binary"


def _kind_of(form: Form, n_classes: int, n_columns: int) -> FisherRows:
    """Return the matrices to compute with."""
    if form == "exact" and n_classes > 2:
        return WholeFisher(n_classes, n_columns)
    if form == "exact":
        # two classes are one difference, for which a prior of precision 1 on both weights is one of 1 - 1/2
        return RankOneFisher(1, n_columns, of_two, unit=0.5)
    if form == "block_diagonal":
        return RankOneFisher(n_classes, n_columns, one_against_all)
    return RankOneFisher(1, n_columns, best_against_all)


class _Pool:
    """The rows, read in chunks in float64; features divided by a power of two where they are far from 1."""

    def __init__(self, kind: FisherRows, log_probs: Tensor, reader: FeatureReader) -> None:
        self.kind = kind
        self._log_probs, self._reader = log_probs, reader
        peak, size = 0.0, reader.chunk_rows()
        for start in range(0, len(reader), size):
            some = reader.read(start, min(start + size, len(reader)))
            check_finite("features", some, first_row=start)
            peak = max(peak, *(abs(float(x)) for x in some.aminmax()))
        self.scale = 1.0 if 2.0**-64 < peak < 2.0**64 or not peak else 2.0 ** -math.frexp(peak)[1]

    def __len__(self) -> int:
        return len(self._reader)

    def chunks(self, rows: Tensor | None, width: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """Give start, stop, features (c, D) and probabilities (c, C) of all rows, or of some, when each takes `width`.

        As many at once as make values_per_chunk numbers.
        """
        size = self.rows_per_chunk(width)
        for start in range(0, len(self) if rows is None else len(rows), size):
            some = slice(start, min(start + size, len(self))) if rows is None else rows[start : start + size]
            h = self.features(some)
            probs = self._log_probs[some].double().exp()
            yield start, start + len(h), h, probs.div_(probs.sum(1, keepdim=True))

    def rows_per_chunk(self, width: int) -> int:
        """Return how many rows to take at once when each makes `width` numbers besides its own."""
        width = max(width, self._reader.n_columns, self._log_probs.shape[1])
        return max(1, values_per_chunk(self._reader.device) // width)

    def longest_sq(self) -> float:
        """Return the largest squared length of a row, scaled."""
        parts = [h.square().sum(1).amax() for _, _, h, _ in self.chunks(None, 1)]
        return float(torch.stack(parts).amax())

    def features(self, rows: Tensor | slice) -> Tensor:
        """Return the features of some rows, (c, D)."""
        some = self._reader.read(rows.start, rows.stop) if isinstance(rows, slice) else self._reader.rows(rows)
        h = some.double()
        return h if self.scale == 1 else h * self.scale

    def fisher(self, rows: Tensor | None) -> Tensor:
        """Return the sum of the Fisher matrices of all rows, or of some, (B, size, size)."""
        kind = self.kind
        out = torch.zeros(kind.n_blocks, kind.size, kind.size, dtype=torch.float64, device=self._reader.device)
        for _, _, h, probs in self.chunks(rows, kind.size):
            kind.add_fisher(h, probs, out)
        return out


class _Matrices:
    """P, the inverse of M, and R = P F P, both (B, size, size), and how they change with one row more or less."""

    def __init__(self, inverse: Tensor, product: Tensor) -> None:
        self.inverse, self.product = inverse, product

    @classmethod
    def of(cls, pool: _Pool, labeled: Tensor, n: int, regularization: float) -> _Matrices:
        """Return them for the labeled rows, in units where a pick's Fisher matrix counts once.

        M and F divided by n / (L + n), the share of a pick in M, leave tr(M^-1 F) as it is.
        """
        share = n / (len(labeled) + n)
        ridge = max(regularization * pool.scale**2 / share, _LEAST_RIDGE * pool.longest_sq())
        matrix = pool.fisher(labeled).div_(n)
        pool.kind.add_prior(ridge, matrix)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        del matrix
        product = inverse @ pool.fisher(None).div_(len(pool) * share) @ inverse
        return cls(inverse, product)

    def change(self, v: Tensor, inner: Tensor, outer: Tensor, sign: int) -> tuple[Tensor, Tensor, int]:
        """Add a row (sign 1), or take it away (-1); return the change (`FisherRows.lower`).

        Shapes:
            v: (B, size, rank), its factor V.
            inner, outer: (B, rank, rank), V^T P V and V^T R V.
        """
        lower = torch.linalg.cholesky_ex(torch.eye(v.shape[2], dtype=v.dtype, device=v.device) + sign * inner).L
        half = torch.linalg.solve_triangular(lower, outer, upper=False)
        middle = torch.linalg.solve_triangular(lower.mT, half, upper=True, left=False)
        u, z = (
            torch.linalg.solve_triangular(lower.mT, matrix @ v, upper=True, left=False)
            for matrix in (self.inverse, self.product)
        )
        z -= (sign / 2) * (u @ middle)
        self.inverse.baddbmm_(u, u.mT, alpha=-sign)
        self.product.baddbmm_(torch.cat([u, z], 2), torch.cat([z, u], 2).mT, alpha=-sign)
        return u, z, sign


class _Candidates:
    """What every candidate would change, kept up to date as rows come and go.

    Shapes:
        gains: (c,) float64, how much tr(M^-1 F) falls with a row more; after `turn`, how much it grows with one less.
    """

    def __init__(self, pool: _Pool, rows: Tensor, kept: tuple[Tensor, Tensor, Tensor], *, sign: int) -> None:
        self._pool, self._kind, self._rows, self._sign = pool, pool.kind, rows, sign
        self._weights, self._inner, self._outer = kept
        self.gains = torch.empty(len(rows), dtype=torch.float64, device=rows.device)

    @classmethod
    def of(cls, pool: _Pool, rows: Tensor, matrices: _Matrices) -> _Candidates:
        """Return them for some rows (c,)."""
        kind = pool.kind
        new = partial(torch.empty, dtype=torch.float64, device=rows.device)
        weights = new(len(rows), kind.n_weights)
        inner, outer = new(len(rows), *kind.form_shape), new(len(rows), *kind.form_shape)
        for start, stop, h, probs in pool.chunks(rows, kind.size):
            weights[start:stop] = kind.weights(probs)
            inner[start:stop] = kind.forms(h, weights[start:stop], matrices.inverse)
            outer[start:stop] = kind.forms(h, weights[start:stop], matrices.product)
        made = cls(pool, rows, (weights, inner, outer), sign=1)
        made.change(None)
        return made

    def take(self, some: Tensor) -> _Candidates:
        """Return some of them (k,), to be taken away again."""
        kept = (self._weights[some], self._inner[some], self._outer[some])
        return _Candidates(self._pool, self._rows[some], kept, sign=-1)

    def at(self, one: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return V, V^T P V and V^T R V of one of them (1,), as `_Matrices.change` wants them."""
        weights = self._weights[one]
        factor = self._kind.factor(self._pool.features(self._rows[one]), weights)
        return factor, self._kind.blocks(self._inner[one], weights), self._kind.blocks(self._outer[one], weights)

    def change(self, change: tuple[Tensor, Tensor, int] | None) -> None:
        """Bring all up to date after what `_Matrices.change` returned; None where only the gains are to be computed."""
        width = 4 * math.prod(self._kind.form_shape)
        size = self._pool.rows_per_chunk(width)
        for start in range(0, len(self._rows), size):
            part = slice(start, start + size)
            weights, inner, outer = self._weights[part], self._inner[part], self._outer[part]
            if change is not None:
                self._kind.lower(inner, outer, self._pool.features(self._rows[part]), weights, change)
            self.gains[part] = self._kind.gains(inner, outer, weights, self._sign)


def _greedy(candidates: _Candidates, matrices: _Matrices, n: int, n_forward: int) -> tuple[Tensor, Tensor]:
    """Pick n_forward of the candidates and remove all but n; return which they are (n,), and their gains (n,)."""
    gains = candidates.gains
    picked = torch.empty(n_forward, dtype=torch.int64, device=gains.device)
    scores = gains.new_empty(n_forward)
    taken = torch.zeros(len(gains), dtype=torch.bool, device=gains.device)
    for step in range(n_forward):
        values = gains.masked_fill(taken, -torch.inf)
        best = values.amax()
        # the first of those that are equal: argmax of a number for each would not know copies that differ by rounding
        one = (values >= best - _SAME * best.abs()).int().argmax(0, keepdim=True)
        picked[step], scores[step] = one[0], values[one][0]
        taken[one] = True
        change = matrices.change(*candidates.at(one), sign=1)
        if step + 1 < n_forward:
            candidates.change(change)
    if n == n_forward:
        return picked, scores
    candidates = candidates.take(picked)
    candidates.change(change)
    kept = torch.ones_like(picked, dtype=torch.bool)
    for step in range(n_forward - n):
        values = candidates.gains.masked_fill(~kept, torch.inf)
        least = values.amin()
        one = n_forward - 1 - (values <= least + _SAME * least.abs()).flip(0).int().argmax(0, keepdim=True)
        kept[one] = False
        if step + 1 < n_forward - n:
            candidates.change(matrices.change(*candidates.at(one), sign=-1))
    return picked[kept], scores[kept]
