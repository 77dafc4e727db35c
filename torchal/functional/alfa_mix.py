"""ALFA-Mix: rows whose predicted label flips when their features are mixed a little with those of labeled rows."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_linear_layer, as_row_labels, check_budget, check_finite, check_positive
from torchal._chunks import exact_arithmetic
from torchal.engine.distances import Space, make_space, survey
from torchal.engine.features import FeatureReader, Features, as_matrix
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.k_center import check_masks
from torchal.functional.representatives import cluster_representatives
from torchal.functional.selection import Selection


def class_means(features: Features, targets: ArrayLike) -> Tensor:
    """Return the mean of the labeled rows of each class, for the classes that have some: the anchors of ALFA-Mix.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        targets: (N,) int64 on the features' device, the class of a labeled row, -1 elsewhere.

    Returns:
        (A, D), the classes ascending; at least float32. The sums are taken in float64.

    Raises:
        ShapeError: features is no float matrix, or targets disagree in shape, dtype or device.
        DataError: no row is labeled.

    Complexity:
        L D additions for L labeled rows, in one pass over them.

    Example:
        >>> class_means(torch.tensor([[1.0], [2.0], [4.0], [9.0]]), torch.tensor([2, 0, 0, -1]))
        tensor([[3.],
                [1.]])
    """
    reader = FeatureReader(features)
    targets = as_row_labels("targets", targets, n_rows=len(reader), device=reader.device)
    rows = (targets >= 0).nonzero().squeeze(1)
    if not len(rows):
        raise DataError(f"anchors are means of labeled rows, and none of {len(reader)} rows is labeled")
    by_class = targets[rows].sort(stable=True)
    sizes = by_class.values.unique_consecutive(return_counts=True)[1]
    totals = torch.zeros(len(sizes), reader.n_columns, dtype=torch.float64, device=reader.device)
    size = reader.chunk_rows()
    # class by class and not by index_add, whose order of additions, and so their rounding, is open on a GPU
    for total, members in zip(totals, rows[by_class.indices].split(sizes.tolist()), strict=True):
        for some in members.split(size):
            total.add_(reader.rows(some).sum(0, dtype=torch.float64))
    return totals.div_(sizes.unsqueeze(1)).to(torch.promote_types(reader.dtype, torch.float32))


def flip_eps(features: Features, *, weight: ArrayLike, bias: ArrayLike, anchors: Features) -> Tensor:
    r"""Return the eps from which on mixing with some anchor flips a row's predicted label.

    The mix of a row z with an anchor a is z + alpha (a - z), with a ratio for each column: the closed form

        alpha = eps / sqrt(D) |a - z| g / |g| / (a - z),    g = W^T (p - e_y),

    the gradient of the loss at the predicted label y. So a row moves from z by eps / sqrt(D) |a - z| along g, whichever
    anchor it is; only the farthest anchor counts. On that way every logit is a straight line, and the least eps
    at which the line of another label crosses that of y comes out of two divisions, for all eps at once. Where an
    anchor's column equals the row's, mixing does not move it; rows with such columns are done anchor by anchor.

    Args:
        features: what the last layer reads.
        weight: of the last layer, logits = features weight^T + bias.
        bias: of the last layer.
        anchors: what rows are mixed with, as `class_means` gives them.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        weight: (C, D) float.
        bias: (C,) float.
        anchors: (A, D) float.

    Returns:
        (N,), at least 0: a label flips for every eps above it; inf where none does: with one class, or where no anchor
        differs from the row. At least float32.

    Raises:
        ShapeError: features is no float matrix, or the tensors disagree in shape or device; no anchors or no classes.
        DataError: no rows, or numbers that are not finite.

    Reference:
        Parvaneh, Abbasnejad, Teney, Haffari, van den Hengel & Shi, "Active Learning by Feature Mixing", CVPR 2022,
        equations 2 to 6, with the factor 1 / sqrt(D) of the authors' code. There, each eps and anchor is a forward pass
        on N mixed rows, and 1e-8 is added to a - z; here, nothing is. The gradient is taken as that of a row
        with p_y = 0, which has the same direction and does not vanish where the prediction is sure.

    Complexity:
        N D (C + A) multiply-adds and N D A comparisons in one pass; O(N) memory beyond the features, and chunks. Rows
        that share a number with an anchor in some column: N D C A multiply-adds.

    Example:
        >>> x = torch.tensor([[0.5, 3.0], [4.0, 3.0]])
        >>> weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)
        >>> flip_eps(x, weight=weight, bias=bias, anchors=torch.tensor([[1.0, 2.0]]))
        tensor([0.6325, 1.7889])
    """
    reader = FeatureReader(features)
    weight, bias = as_linear_layer(weight, bias, n_columns=reader.n_columns, device=reader.device)
    anchors = as_matrix("anchors", anchors, device=reader.device)
    if not len(anchors) or anchors.shape[1] != reader.n_columns or anchors.device != reader.device:
        raise ShapeError(
            f"anchors must be (A, {reader.n_columns}) on {reader.device} with A at least 1, "
            f"got {tuple(anchors.shape)} on {anchors.device}"
        )
    check_finite("anchors", anchors)
    with exact_arithmetic(reader.device):
        space = make_space(reader, survey(reader, "euclidean")._replace(whole=False), "euclidean")
        mixes = _Mixes(space, weight, bias, anchors)
        out = torch.empty(len(reader), dtype=mixes.dtype, device=reader.device)

        def measure(start: int, stop: int) -> None:
            out[start:stop] = mixes.flip_eps(reader.read(start, stop))

        reader.in_chunks(len(reader), reader.chunk_rows(max(len(weight), len(anchors))), measure)
    return out.to(torch.promote_types(reader.dtype, torch.float32))


class _Mixes:
    """The last layer along the ways to the anchors.

    Shapes:
        weight: (C, D), less its mean over the classes: no difference of logits changes.
        bias: (C,), likewise.
        root: (r, C) with r = min(C, D): root^T root = weight weight^T, so lengths of gradients need no D columns.
        anchors: (A, D).
    """

    def __init__(self, space: Space, weight: Tensor, bias: Tensor, anchors: Tensor) -> None:
        self.dtype = torch.promote_types(space.dtype, torch.promote_types(weight.dtype, bias.dtype))
        weight, bias = weight.detach().double(), bias.detach().double()
        weight = weight - weight.mean(0)
        self.weight = weight.to(self.dtype)
        self.bias = (bias - bias.mean()).to(self.dtype)
        self.root = torch.linalg.qr(weight.T, mode="r").R.to(self.dtype)
        self.anchors = anchors.detach().to(self.dtype)
        self._space = space
        self._ready = space.prepare(anchors.detach())

    def flip_eps(self, x: Tensor) -> Tensor:
        """Return what the function of this name does for some rows (R, D)."""
        ready = self._space.prepare(x)
        x = x.to(self.dtype)
        logits = torch.addmm(self.bias, x, self.weight.T)
        label = logits.argmax(1, keepdim=True)
        gaps = logits.gather(1, label) - logits
        # p - e_y over 1 - p_y: the softmax of the others, and -1; p_y = 1 up to rounding is no special case
        pull = logits.scatter_(1, label, -torch.inf).softmax(1).scatter_(1, label, -1)
        roots = pull @ self.root.T
        length = torch.linalg.vector_norm(roots, dim=1, keepdim=True)
        # distances (R, A), in columns' root mean squares
        reach = self._space.distance(self._space.pairwise(ready, self._ready)).to(self.dtype) / math.sqrt(x.shape[1])
        out = _first_crossing(gaps, roots @ self.root / length, label) / reach.amax(1)
        stuck = self._stuck(x)
        if len(stuck):
            gradient = pull[stuck] @ self.weight / length[stuck]
            out[stuck] = self._one_by_one(x[stuck], gradient, gaps[stuck], label[stuck], reach[stuck])
        return out.nan_to_num_(nan=math.inf, posinf=math.inf)  # 0 / 0: it is on the boundary, and does not move

    def _stuck(self, x: Tensor) -> Tensor:
        """Return the rows (S,) that have the number of an anchor in some column."""
        same, some = torch.zeros_like(x, dtype=torch.bool), torch.empty_like(x, dtype=torch.bool)
        if x.device.type == "cpu":  # where numpy's comparisons are three times faster
            for anchor in self.anchors.numpy():
                np.logical_or(same.numpy(), np.equal(x.numpy(), anchor, out=some.numpy()), out=same.numpy())
        else:
            for anchor in self.anchors:
                same |= torch.eq(x, anchor, out=some)
        return same.any(1).nonzero().squeeze(1)

    def _one_by_one(self, x: Tensor, gradient: Tensor, gaps: Tensor, label: Tensor, reach: Tensor) -> Tensor:
        """Return what `flip_eps` does where the columns (S, D) that an anchor shares with a row do not move."""
        out = x.new_full((len(x),), torch.inf)
        moves, pull = torch.empty_like(x, dtype=torch.bool), torch.empty_like(x)
        for anchor, far in zip(self.anchors, reach.T, strict=True):
            if x.device.type == "cpu":  # as above
                np.not_equal(x.numpy(), anchor.numpy(), out=moves.numpy())
                np.multiply(gradient.numpy(), moves.numpy(), out=pull.numpy())
            else:
                torch.mul(gradient, torch.ne(x, anchor, out=moves), out=pull)
            torch.fmin(out, _first_crossing(gaps, pull @ self.weight.T, label) / far, out=out)
        return out


def _first_crossing(gaps: Tensor, slopes: Tensor, label: Tensor) -> Tensor:
    """Return how far along lines of these slopes (R, C) the first logit passes that of the label (R, 1), (R,)."""
    rises = (slopes - slopes.gather(1, label)).clamp_(min=0)  # one that does not rise passes at infinity
    # minus infinity is a division by -0.0, which clamp leaves as it is
    return (gaps / rises).nan_to_num_(nan=math.inf, posinf=math.inf, neginf=math.inf).amin(1)


def alfa_mix(
    features: Features,
    n: int,
    *,
    weight: ArrayLike,
    bias: ArrayLike,
    anchors: Features,
    generator: torch.Generator,
    eps: float = 0.2,
    max_eps: float = 1.0,
    candidates: ArrayLike | None = None,
    max_iterations: int = 20,
) -> Selection:
    """Pick representatives of the rows whose predicted label flips when they are mixed a little with an anchor.

    They are clustered into n clusters, and the row nearest to the mean of each is picked (`cluster_representatives`).
    Where fewer than n candidates flip, the mix grows by eps until enough do or it has reached max_eps. What is missing
    then are the rows that would flip next.

    Args:
        features: as in `flip_eps`, as are weight, bias and anchors.
        n: number of picks and of clusters.
        weight: of the last layer.
        bias: of the last layer.
        anchors: what rows are mixed with.
        generator: the randomness of the clusters' start.
        eps: how much is mixed at first, and by how much more each time.
        max_eps: no more than that, rounded up to a multiple of eps; eps for one mix, as in the paper.
        candidates: rows that may be picked; all unless given.
        max_iterations: of k-means.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        weight: (C, D) float.
        bias: (C,) float.
        anchors: (A, D) float.
        candidates: (N,) bool.

    Returns:
        indices (n,), the first to flip first; scores (n,), minus the eps at which they flip (`flip_eps`).

    Raises:
        ConfigError: eps is not positive and finite, or max_eps is below it.
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError, DataError: as `flip_eps`; candidates disagree in shape, dtype or device.

    Reference:
        Parvaneh et al. (2022), Algorithm 1; see `flip_eps`. The paper mixes with one eps. The steps up to 1 are
        those of the authors' code (which goes on until more than n flip), as is clustering by direction. What is
        missing they draw at random, with replacement.

    Complexity:
        That of `flip_eps`, whatever the number of steps, and of k-means on the rows that flip.

    Example:
        >>> x = torch.tensor([[0.5, 3.0], [4.0, 3.0], [-0.1, -3.0]])
        >>> weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)
        >>> anchors, generator = torch.tensor([[1.0, 2.0], [-1.0, 2.0]]), torch.Generator().manual_seed(0)
        >>> alfa_mix(x, 2, weight=weight, bias=bias, anchors=anchors, generator=generator).indices
        tensor([2, 0])
    """
    check_mix(eps, max_eps)
    reader = FeatureReader(features)
    _, candidates = check_masks(None, candidates, n_rows=len(reader), device=reader.device)
    check_budget(n, int(candidates.sum()))
    found = flip_eps(features, weight=weight, bias=bias, anchors=anchors)
    return cluster_representatives(
        features,
        n,
        wanted=found < _grown(found[candidates], n, eps, max_eps),
        scores=-found,
        generator=generator,
        candidates=candidates,
        max_iterations=max_iterations,
    )


def check_mix(eps: float, max_eps: float) -> None:
    """Require settings of `alfa_mix` that make sense.

    Raises:
        ConfigError: eps is not positive and finite, or max_eps is below it.
    """
    check_positive("eps", eps)
    check_positive("max_eps", max_eps)
    if max_eps < eps:
        raise ConfigError(f"max_eps must be a finite number of at least eps = {eps!r}, got {max_eps!r}")


def _grown(found: Tensor, n: int, eps: float, max_eps: float) -> float:
    """Return the first multiple of eps below which at least n of the rows (M,) flip, or the last."""
    last = math.ceil(max_eps / eps * (1 - 1e-9))
    nth = float(found.kthvalue(n).values)
    return (math.floor(nth / eps) + 1) * eps if nth < last * eps else last * eps
