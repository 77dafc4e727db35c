"""BADGE: rows whose gradients are large and unlike each other."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_flag
from torchal._chunks import exact_arithmetic
from torchal.distributed import Group, as_shards
from torchal.engine.draws import draw
from torchal.engine.features import Features
from torchal.engine.gradients import open_gradients, read_factors
from torchal.engine.greedy import Picks, Pool, sample_by_value
from torchal.engine.kronecker import KroneckerSpace
from torchal.engine.sharded import first_of_all
from torchal.engine.sources import StreamedRows
from torchal.errors import ConfigError
from torchal.functional.k_center import check_masks
from torchal.functional.selection import Selection

First: TypeAlias = Literal["largest", "uniform"]


def badge(
    log_probs: Features,
    features: Features,
    n: int,
    *,
    generator: torch.Generator,
    candidates: ArrayLike | None = None,
    first: First = "largest",
    bias: bool = False,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Selection:
    r"""Draw rows one after another, each in proportion to the squared distance of its gradient from those drawn so far.

    The gradient is that of the cross-entropy by the weights of the last layer, were the predicted class the label:
    (p - onehot(argmax p)) x h, of length |p - onehot| |h|. It is large where the model is unsure, and no other label
    would make it smaller. It is never formed: distances come from the two factors, p - onehot (C numbers) and h (D).

    The draws are k-means++ seeding, exactly in distribution, but made in blocks, by rejection
    (`torchal.engine.greedy`). A row is never drawn twice. Once every candidate's gradient equals one that was drawn,
    the rest are drawn uniformly. Rows with a label are no centres.

    Args:
        log_probs: of the classes that the model has seen; equally probable classes count as the first of them.
        features: what the last layer reads. Both may be tensors on any device, or memory-mapped files, larger than the
            device's memory.
        n: how many rows to draw.
        generator: the randomness.
        candidates: the rows that may be drawn; all unless given.
        first: the first row: "largest", that with the largest gradient, the lowest of equal ones; or "uniform", any.
        bias: whether the gradient by the layer's bias counts too, as if each h ended with a 1.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; as many as fit into a cache (CPU) or 128 MiB (GPU), unless given.
        group: of ranks that call this together, each with its own rows, and with generators that were seeded alike; see
            `torchal.distributed`.

    Shapes:
        log_probs: (N, C) float, natural logarithms of probabilities that sum to 1; -inf is probability 0.
        features: (N, D) float, on the same device. Half precision is computed in float32, float64 in float64.
        candidates: (N,) bool, on the features' device.

    Returns:
        indices (n,) in the order of the draws; scores (n,), the distance from the nearest gradient drawn before, and
        of the first draw the length of its gradient. Both on the features' device.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: log_probs or features are no float matrix, or the tensors disagree in rows or device.
        DataError: no rows; features that are not finite; a row of log_probs that does not sum to 1 (within 1e-3; 0.01
            in float16, 0.1 in bfloat16).
        ConfigError: an unknown `first`, or a `bias` that is not true or false.
        DeviceMemoryError: the smallest chunk does not fit on the device.
        GroupError: another rank failed or is gone.

    Reference:
        Ash, Zhang, Krishnamurthy, Langford & Agarwal, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
        Bounds", ICLR 2020, Algorithm 1. Its seeding is that of Arthur & Vassilvitskii, "k-means++: The Advantages of
        Careful Seeding", SODA 2007, which draws the first row uniformly; the authors' code takes the largest.
        Deviation: p - 1 of the predicted class is taken as minus the sum of the others, which does not vanish by
        rounding where the model is sure.

    Complexity:
        Two passes over the rows, of N (C + D) multiply-adds each, and more of them where they cost less than rejected
        proposals; n^2 (C + D) / r multiply-adds among the proposals, of which the share r is accepted. One pass a draw
        would be N n (C + D). O(N) memory beyond the inputs, and chunks.

    Example:
        >>> log_probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]).log()
        >>> x = torch.tensor([[9.0, 9.0], [1.0, 2.0], [1.0, 2.0]])
        >>> badge(log_probs, x, 2, generator=torch.Generator().manual_seed(0)).indices
        tensor([1, 0])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_first(first)
        check_flag("bias", bias)
        right, left = read_factors(log_probs, features, device=device, chunk_rows=chunk_rows, shards=shards)
        meeting.rows(len(right), right.n_columns)
        _, candidates = check_masks(None, candidates, n_rows=len(right), device=right.home)
        meeting.count(candidates.count_nonzero())
        dtypes = (left.stored_dtype, right.stored_dtype, right.device.type)
        meeting.same(n=n, classes=left.n_columns, first=first, bias=bias, dtypes=dtypes, generator=generator)
    check_budget(n, meeting.totals[0])
    with exact_arithmetic(right.device):
        candidates = candidates.to(right.device)
        space, source = open_gradients(right, left, bias=bias, among=candidates)
        rows, distances = _draw(space, source, n, candidates, first, generator)
    dtype = torch.promote_types(right.dtype, torch.float32)
    return Selection(rows.to(right.home), distances.to(right.home, dtype))


def check_first(first: object) -> None:
    """Require a first row that is known."""
    if first not in get_args(First):
        raise ConfigError(f"first must be one of {', '.join(get_args(First))}, got {first!r}")


def _draw(  # noqa: PLR0917 - all of it
    space: KroneckerSpace, source: StreamedRows, n: int, candidates: Tensor, first: First, generator: torch.Generator
) -> Picks:
    """Do what `badge` does, after its checks; return rows and distances."""
    values = torch.where(candidates, torch.inf, -torch.inf).to(space.dtype)
    pool, shards = Pool(source, space, values), source.shards
    if first == "largest":
        _, there = first_of_all(torch.where(candidates, source.sq, -1), source)
    else:
        row = draw(candidates.to(space.dtype), 1, generator, shards)
        there = source.select(row)
    length_sq = there.sq
    pool.lower_near(there)
    if first == "largest":  # of equal rows, which rounding may tell apart, the lowest
        row = shards.lowest_of((values <= 0) & candidates).unsqueeze(0)
    values[shards.local(row)] = -torch.inf
    if n == 1:
        shards.settle()
        return row, space.distance(length_sq)
    rows, found = sample_by_value(pool, n - 1, values.new_ones(()).expand(len(values)), generator)
    return torch.cat([row, rows]), space.distance(torch.cat([length_sq, found]))
