"""EPIG of a pool, against the plain expression with xlogy, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.batch_bald import posterior_draws
from benchmarks.harness import Row, compare
from torchal import functional

# rows, targets, draws, classes
SIZES = {
    "small": [(2000, 100, 20, 4)],
    "medium": [(20_000, 2000, 20, 10)],
    "large": [(20_000, 2000, 20, 10), (1_000_000, 100, 20, 10)],
}
VALUES = 1 << 18  # of a product that stays in a cache
PLAIN_ROWS = 1000  # of the plain expression, whose time is in proportion to its rows


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the scores; the floor is the matrix product of all joint probabilities, of the plain expression's rows."""
    for n_rows, n_targets, n_draws, n_classes in SIZES[size]:
        pool = posterior_draws(n_rows, n_draws, n_classes, device=device)
        targets = posterior_draws(n_targets, n_draws, n_classes, device=device)
        few = pool[:PLAIN_ROWS]
        outcomes = few.exp().transpose(1, 2).reshape(-1, n_draws)
        columns = targets.exp().transpose(0, 1).reshape(n_draws, -1)
        share = f"of all rows: {n_rows / len(few):g} times as long"
        floor, plain = f"floor: products of {len(few)} rows", f"plain expression, {len(few)} rows"
        yield from compare(
            f"EPIG, N={n_rows}, M={n_targets}, K={n_draws}, C={n_classes}",
            {
                "ours": partial(functional.epig, pool, targets),
                floor: partial(products, outcomes, columns),
                plain: partial(plain_epig, few, targets),
            },
            repeats=3,
            device=device,
            once=[plain] if size != "small" else [],
            notes={floor: share, plain: share},
        )


def products(outcomes: Tensor, columns: Tensor) -> None:
    """Take the product, part by part, into the same place."""
    room = columns.new_empty(max(1, VALUES // columns.shape[1]), columns.shape[1])
    for some in outcomes.split(len(room)):
        torch.mm(some, columns, out=room[: len(some)])


def plain_epig(pool: Tensor, targets: Tensor) -> Tensor:
    """Return the entropies of both labels less that of the two together, ten rows at a time."""
    n_draws, n_targets = pool.shape[1], len(targets)
    columns = targets.exp().transpose(0, 1).reshape(n_draws, -1)
    of_targets = torch.special.entr(targets.exp().mean(1)).sum(1).mean()
    scores = []
    for some in pool.exp().split(10):
        joint = some.transpose(1, 2) @ columns / n_draws
        of_both = -torch.xlogy(joint, joint).sum((1, 2)) / n_targets
        scores.append(torch.special.entr(some.mean(1)).sum(1) + of_targets - of_both)
    return torch.cat(scores)
