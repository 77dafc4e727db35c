"""GLISTER: rows whose labels, were they as predicted, would lower the loss on a validation part the most."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_linear_layer, as_row_labels, check_budget, check_finite, check_positive
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.distances import kinds, survey
from torchal.engine.features import FeatureReader, Features, as_matrix
from torchal.engine.greedy import Picks
from torchal.errors import DataError, ShapeError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection, top_n

_SMALLEST_BLOCK = 64  # rows


def glister(
    features: Features,
    n: int,
    *,
    weight: ArrayLike,
    bias: ArrayLike,
    validation_features: Features,
    validation_targets: ArrayLike,
    learning_rate: float = 0.01,
    candidates: ArrayLike | None = None,
    chunk_rows: int | None = None,
) -> Selection:
    r"""Pick, again and again, the row whose gradient step would lower the validation loss the most.

    A pick counts as labeled with its predicted class, and moves the last layer by one step along its gradient g of the
    cross-entropy. What that gains is taken to first order: learning_rate x <g, G>, where G is the gradient of the mean
    loss on the validation part, at the weights after all picks so far. Gradients of rows of the pool are those at the
    weights given.

    Between passes over the pool, gains are computed for the rows of the largest gains alone. No other row's gain can
    have grown by more than |g| times what G has moved since, and while the best of those rows is not below that, no
    pass is needed. So the picks are those of the plain greedy algorithm. Ties of equal rows go to the lowest; where
    different rows' gains are closer than rounding, either may come first.

    Args:
        features: what the last layer reads; a tensor or a mapped file.
        n: how many rows to pick.
        weight: of the last layer, logits = features weight^T + bias.
        bias: of the last layer.
        validation_features: of rows whose labels are known.
        validation_targets: these labels, as numbers of the layer's classes.
        learning_rate: how far one row moves the layer. Of features with large numbers it must be small.
        candidates: the rows that may be picked; all unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        weight: (C, D) float.
        bias: (C,) float.
        validation_features: (M, D) float.
        validation_targets: (M,) int64 in [0, C).
        candidates: (N,) bool. All on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), by how much each pick lowers the validation loss, to first order.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: features is no float matrix, or the tensors disagree in shape, dtype or device.
        DataError: no rows, no validation rows, numbers that are not finite, or a label that is no class.
        ConfigError: a learning rate that is not above 0.

    Reference:
        Killamsetty, Sivasubramanian, Ramakrishnan & Iyer, "GLISTER: Generalization based Data Subset Selection for
        Efficient and Robust Learning", AAAI 2021: GLISTER-ACTIVE by the greedy algorithm with the Taylor approximation
        on the last layer, and no regularisation term. The weights are moved after each pick, as in DISTIL, the authors'
        library. Deviation: there, a step along the summed gradients of the labeled rows comes first; a fitted
        model has made it already.

    Complexity:
        2 N C D multiply-adds a pass; M C D for G, and m C D for the gains of m rows, for each pick, with m as many rows
        as make a chunk; O(N + M C) memory beyond the features, and chunks.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> layer = {"weight": torch.eye(2), "bias": torch.zeros(2)}
        >>> validation = {"validation_features": torch.tensor([[0.0, 1.0]]), "validation_targets": torch.tensor([1])}
        >>> glister(x, 1, **layer, **validation).indices
        tensor([1])
    """
    check_positive("learning_rate", learning_rate)
    reader = FeatureReader(features, chunk_rows=chunk_rows)
    weight, bias = as_linear_layer(weight, bias, n_columns=reader.n_columns, device=reader.device)
    validation_features, validation_targets = _as_validation(validation_features, validation_targets, weight)
    _, candidates = check_masks(None, candidates, n_rows=len(reader), device=reader.device)
    check_budget(n, int(candidates.sum()))
    with exact_arithmetic(reader.device):
        peak = survey(reader, "euclidean").peak
        small = 1e-12 < peak < 1e15 or peak == 0  # so that the squares of gradients fit into float32
        dtype = torch.promote_types(reader.dtype, torch.float32 if small else torch.float64)
        layer = torch.cat([weight, bias.unsqueeze(1)], 1).to(dtype)
        loss = _ValidationLoss(layer, validation_features, validation_targets, float(learning_rate))
        rows, scores = _pick(_Gradients(reader, layer), loss, n, candidates.clone())
    return Selection(rows, scores.to(torch.promote_types(reader.dtype, torch.float32)))


def _as_validation(features: Features, targets: ArrayLike, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Require rows for a layer (C, D), and labels that are among its classes."""
    n_classes, n_columns = weight.shape
    features = as_matrix("validation_features", features, device=weight.device)
    if features.shape[1] != n_columns or features.device != weight.device:
        raise ShapeError(
            f"validation_features must be (M, {n_columns}) on {weight.device}, "
            f"got {tuple(features.shape)} on {features.device}"
        )
    if not len(features):
        raise DataError("validation_features has no rows")
    check_finite("validation_features", features)
    targets = as_row_labels("validation_targets", targets, n_rows=len(features), device=features.device)
    low, high = (int(target) for target in targets.aminmax())
    if low < 0 or high >= n_classes:
        raise DataError(f"validation_targets must lie in [0, {n_classes}), got {low} to {high}")
    return features, targets


class _Gradients:
    """Gradients of the pool's rows by the last layer, as their factors: u (R, C), and h (R, D) with a 1 behind it.

    Args:
        reader: h.
        layer: (C, D + 1), weight and bias.
    """

    def __init__(self, reader: FeatureReader, layer: Tensor) -> None:
        self.reader = reader
        self.layer = layer

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return both factors of some rows."""
        h = self.reader.rows(index).to(self.layer.dtype)
        return _residuals(_linear(h, self.layer)), h

    def products(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the product of each row's gradient with one (C, D + 1), and its length, (N,) both."""
        products, lengths = torch.empty(2, len(self.reader), dtype=self.layer.dtype, device=self.layer.device)

        def multiply(start: int, stop: int) -> None:
            h = self.reader.read(start, stop).to(self.layer.dtype)
            u = _residuals(_linear(h, self.layer))
            products[start:stop] = (u * _linear(h, gradient)).sum(1)
            lengths[start:stop] = (u.square().sum(1) * h.square().sum(1).add_(1)).sqrt_()

        self.reader.in_chunks(len(products), self.reader.chunk_rows(2 * len(self.layer)), multiply)
        return products, lengths

    def kinds(self) -> Tensor:
        """Return a number for each row, the same for equal rows, (N,)."""
        out = torch.empty(len(self.reader), dtype=torch.float64, device=self.layer.device)

        def look(start: int, stop: int) -> None:
            out[start:stop] = kinds(self.reader.read(start, stop))

        self.reader.in_chunks(len(out), self.reader.chunk_rows(), look)
        return out


class _ValidationLoss:
    """The mean cross-entropy on the validation part, as the last layer moves.

    Args:
        layer: (C, D + 1), weight and bias.
        features: (M, D).
        targets: (M,) int64.
        learning_rate: of the steps.
    """

    def __init__(self, layer: Tensor, features: Tensor, targets: Tensor, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._features = features.to(layer.dtype)
        self._targets = targets.unsqueeze(1)
        self._logits = _linear(self._features, layer)

    def gradient(self) -> Tensor:
        """Return the gradient by the layer, (C, D + 1)."""
        u = self._logits.softmax(1)
        u.scatter_add_(1, self._targets, torch.full_like(u[:, :1], -1))
        return torch.cat([u.T @ self._features, u.sum(0).unsqueeze(1)], 1).div_(len(u))

    def step(self, u: Tensor, h: Tensor) -> None:
        """Move the layer along the gradient of one row, (1, C) and (1, D)."""
        along = (self._features @ h.squeeze(0)).add_(1)
        self._logits.addmm_(along.unsqueeze(1), u, alpha=-self.learning_rate)


def _linear(h: Tensor, layer: Tensor) -> Tensor:
    """Return what a layer (C, D + 1) makes of rows (R, D), (R, C)."""
    return torch.addmm(layer[:, -1], h, layer[:, :-1].T)


def _residuals(logits: Tensor) -> Tensor:
    """Return p - onehot(argmax p), (R, C), with p - 1 as minus the sum of the others, which does not vanish."""
    probs = logits.softmax(1)
    best = logits.argmax(1, keepdim=True)
    others = probs.scatter(1, best, 0).sum(1, keepdim=True)
    return probs.scatter_(1, best, -others)


def _pick(pool: _Gradients, loss: _ValidationLoss, n: int, free: Tensor) -> Picks:
    """Do what `glister` does, after its checks; `free` are the rows that may be picked, written on."""
    kind = pool.kinds()
    n_block = max(_SMALLEST_BLOCK, values_per_chunk(free.device) // pool.reader.n_columns)
    picked = torch.empty(n, dtype=torch.int64, device=free.device)
    scores = torch.empty(n, dtype=pool.layer.dtype, device=free.device)
    gradient = loss.gradient()
    done = 0
    while done < n:
        before = gradient
        outside, lengths = pool.products(before)
        outside.masked_fill_(~free, -torch.inf)
        block = top_n(outside, min(n_block, int(free.sum())), candidates=free).indices.sort().values
        outside[block] = -torch.inf
        u, h = pool.rows(block)
        first = done
        while done < n:
            gains = (u * _linear(h, gradient)).sum(1).masked_fill_(~free[block], -torch.inf)
            best, where = gains.max(0, keepdim=True)
            moved = torch.linalg.vector_norm(gradient - before)
            # whether a pass is needed is asked for each pick: that costs far less than one
            if done > first and not bool(best >= (outside + lengths * moved).amax()):
                break
            if not bool(best > -torch.inf):  # all of the block are picked
                break
            row = block[where]
            row = ((kind == kind[row]) & free).to(torch.uint8).argmax(0, keepdim=True)  # the lowest of equal ones
            free[row], outside[row] = False, -torch.inf
            picked[done : done + 1], scores[done : done + 1] = row, best * loss.learning_rate
            loss.step(*pool.rows(row))
            gradient = loss.gradient()
            done += 1
    return picked, scores
