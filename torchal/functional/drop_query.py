"""DropQuery: rows whose predicted label does not survive that most of their features are dropped."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_linear_layer, check_budget, check_finite, check_whole
from torchal._chunks import exact_arithmetic
from torchal.engine.features import FeatureReader, Features
from torchal.errors import ConfigError
from torchal.functional.k_center import check_masks
from torchal.functional.representatives import cluster_representatives
from torchal.functional.selection import Selection

_DRAWN = 1 << 20  # random numbers at once, on every device: chunks of another size would be other draws


def dropout_disagreement(
    features: Features,
    *,
    weight: ArrayLike,
    bias: ArrayLike,
    generator: torch.Generator,
    n_masks: int = 3,
    rate: float = 0.75,
) -> Tensor:
    """Return under how many of some dropout masks a row's predicted label is another one, as a fraction.

    Each row has masks of its own. What is kept counts 1 / (1 - rate) times, as dropout has it in training.

    Args:
        features: what the last layer reads.
        weight: of the last layer, logits = features weight^T + bias.
        bias: of the last layer.
        generator: the randomness: N n_masks D numbers, the same for every chunk size and device of the features.
        n_masks: masks of each row.
        rate: chance that a feature is dropped, at least 0 and below 1.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        weight: (C, D) float.
        bias: (C,) float.

    Returns:
        (N,), multiples of 1 / n_masks between 0 and 1; at least float32.

    Raises:
        ConfigError: n_masks or rate are out of range.
        ShapeError: features is no float matrix, or the tensors disagree in shape or device; no classes.
        DataError: no rows, or numbers that are not finite.

    Reference:
        Gupte, Aklilu, Nirschl & Yeung-Levy, "Revisiting Active Learning in the Era of Vision Foundation Models",
        TMLR 2024, section 3.4. The authors' classifier also standardizes the columns behind the dropout.

    Complexity:
        N D C (n_masks + 1) multiply-adds and N D n_masks draws, which take longer where C is small; O(N) memory beyond
        the features, and chunks.

    Example:
        >>> x = torch.tensor([[9.0, 9.0, 9.0], [9.0, 0.0, 0.0]])
        >>> weight, bias = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([0.0, 1.0])
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = dropout_disagreement(x, weight=weight, bias=bias, generator=generator, n_masks=1000, rate=0.5)
        >>> found.round(decimals=1)  # the first row loses all its features with the chance 1/8
        tensor([0.1000, 0.5000])
    """
    check_dropout(n_masks, rate)
    reader = FeatureReader(features)
    weight, bias = as_linear_layer(weight, bias, n_columns=reader.n_columns, device=reader.device)
    dtype = torch.promote_types(torch.promote_types(reader.dtype, weight.dtype), bias.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    out = torch.empty(len(reader), dtype=dtype, device=reader.device)
    size = max(1, _DRAWN // reader.n_columns)
    with exact_arithmetic(reader.device):
        weight, bias = weight.detach().to(dtype), bias.detach().to(dtype)
        for start in range(0, len(reader), size):
            x = reader.read(start, min(start + size, len(reader))).to(dtype)
            check_finite("features", x, first_row=start)
            label = _labels(x, weight, bias)
            changed = torch.zeros_like(label)
            for _ in range(n_masks):
                kept = torch.rand(x.shape, generator=generator, device=generator.device) >= rate
                # the bias times 1 - rate, in place of what is kept over it: no label is another
                changed += _labels(x * kept.to(x.device), weight, bias * (1 - rate)) != label
            out[start : start + size] = changed.to(dtype) / n_masks
    return out


def _labels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the predicted label of rows (R, D), (R,) int64, in pieces where there are more classes than columns."""
    pieces = -(-len(weight) // x.shape[1])
    return torch.cat([torch.addmm(bias, some, weight.T).argmax(1) for some in x.tensor_split(pieces)])


def drop_query(
    features: Features,
    n: int,
    *,
    weight: ArrayLike,
    bias: ArrayLike,
    generator: torch.Generator,
    n_masks: int = 3,
    rate: float = 0.75,
    candidates: ArrayLike | None = None,
    max_iterations: int = 20,
) -> Selection:
    """Pick representatives of the rows whose predicted label is another one under more than half of some dropout masks.

    They are clustered into n clusters, and the row nearest to the mean of each is picked (`cluster_representatives`).
    With fewer than n of them all are picked, and then those with the most disagreement; equal ones are drawn at random.

    Args:
        features: as in `dropout_disagreement`, as are weight, bias, n_masks and rate.
        n: number of picks and of clusters.
        weight: of the last layer.
        bias: of the last layer.
        generator: the randomness of the masks, of what fills the batch, and of the clusters' start.
        n_masks: masks of each row.
        rate: chance that a feature is dropped.
        candidates: rows that may be picked; all unless given.
        max_iterations: of k-means.

    Shapes:
        features: (N, D) float; a tensor or a mapped file.
        weight: (C, D) float.
        bias: (C,) float.
        candidates: (N,) bool.

    Returns:
        indices (n,), the most disagreement first; scores (n,), the disagreement.

    Raises:
        ConfigError, ShapeError, DataError: as `dropout_disagreement`; candidates disagree in shape, dtype or device.
        BudgetError: n is not between 1 and the number of candidates.

    Reference:
        Gupte et al. (2024); see `dropout_disagreement`. The authors' code asks for less than half of the masks where it
        finds fewer than 25 n rows, which the paper does not, and fills at random whatever the disagreement.

    Complexity:
        That of `dropout_disagreement`, and of k-means on the rows that disagree.

    Example:
        >>> x = torch.tensor([[9.0, 9.0], [0.1, 0.0], [0.0, 0.1], [9.0, -9.0]])
        >>> weight, bias = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0.05, 0.1])
        >>> generator = torch.Generator().manual_seed(0)
        >>> drop_query(x, 2, weight=weight, bias=bias, generator=generator, n_masks=99).indices.sort().values
        tensor([1, 2])
    """
    check_dropout(n_masks, rate)
    reader = FeatureReader(features)
    _, candidates = check_masks(None, candidates, n_rows=len(reader), device=reader.device)
    check_budget(n, int(candidates.sum()))
    found = dropout_disagreement(features, weight=weight, bias=bias, generator=generator, n_masks=n_masks, rate=rate)
    # less than the difference of any two fractions, so that it decides between equal ones only
    tie_break = torch.rand(len(found), dtype=torch.float64, generator=generator, device=generator.device)
    picks = cluster_representatives(
        features,
        n,
        wanted=found > 0.5,
        scores=found.double() + tie_break.to(found.device) / (2 * n_masks),
        generator=generator,
        candidates=candidates,
        max_iterations=max_iterations,
    ).indices
    return Selection(picks, found[picks])


def check_dropout(n_masks: object, rate: object) -> None:
    """Require settings of `dropout_disagreement` that make sense.

    Raises:
        ConfigError: n_masks is no whole number of at least 1, or rate is not at least 0 and below 1.
    """
    check_whole("n_masks", n_masks, least=1)
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1:
        raise ConfigError(f"rate must be a number of at least 0 and below 1, got {rate!r}")
