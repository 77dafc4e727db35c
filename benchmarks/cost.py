"""What a batch of each strategy costs, as a formula: `python -m benchmarks.cost --out benchmarks/results`.

Each strategy picks from pools of several sizes, all but one of rows, columns, classes and picks as in the base pool.
The seconds are those of a core, and of the selection alone: features, scores and draws of a posterior are there. What
is fitted is s = s1 + s0 (N / 8000)^a (D / 64)^b (C / 10)^c (B / 50)^d, by least squares of logarithms; a pool that none
of them was fitted to says how far it is off. The table is what the site's page on choosing a strategy reads.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from tqdm import tqdm

from torchal import PoolView, samplers
from torchal.errors import TorchalError

FIELDS = ("sampler", "fixed", "seconds", "rows", "columns", "classes", "picks", "predicted", "measured")
_SHORTEST = 1e-4  # seconds; what takes less is not told from nothing
_LABELED, _DRAWS, _CLUSTERS = 100, 20, 50
_TRIES = 2
_BOUND = 3.0  # of powers
MOST_POWER = _BOUND - 0.01  # one at the bound was not found by so few sizes, as where only some rows are clustered


class Size(NamedTuple):
    """Of a pool and a batch."""

    rows: int = 8000
    columns: int = 64
    classes: int = 10
    picks: int = 50


BASE = Size()
SIZES = (
    BASE,
    *(BASE._replace(rows=rows) for rows in (1000, 2000, 4000, 16_000, 32_000, 128_000)),
    *(BASE._replace(columns=columns) for columns in (16, 256, 512)),
    *(BASE._replace(classes=classes) for classes in (3, 30)),
    *(BASE._replace(picks=picks) for picks in (10, 200, 1000)),
)
CHECK = Size(rows=20_000, columns=128, classes=20, picks=100)


class Cost(NamedTuple):
    """The formula of a strategy: seconds whatever the sizes, those at the base, and the power of each of the sizes."""

    fixed: float
    seconds: float
    powers: tuple[float, ...]

    def at(self, size: Size) -> float:
        """Return the seconds at a size."""
        ratios = (here / base for here, base in zip(size, BASE, strict=True))
        powers = (ratio**power for ratio, power in zip(ratios, self.powers, strict=True))
        return float(self.fixed + self.seconds * math.prod(powers))


def pool_of(size: Size) -> PoolView:
    """Return a pool in clusters, with all that a sampler may read, and labels of 100 rows."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(_CLUSTERS, size.columns, generator=generator)
    cluster = torch.randint(0, _CLUSTERS, (size.rows,), generator=generator)
    features = centers[cluster] + 0.5 * torch.randn(size.rows, size.columns, generator=generator)
    weight = torch.randn(size.classes, size.columns, generator=generator) / math.sqrt(size.columns)
    scores = features @ weight.T
    moved = scores.unsqueeze(1) + torch.randn(size.rows, _DRAWS, size.classes, generator=generator)
    labeled = torch.zeros(size.rows, dtype=torch.bool)
    labeled[torch.randperm(size.rows, generator=generator)[:_LABELED]] = True
    return PoolView.from_tensors(
        features=features,
        scores=scores,
        log_probs=scores.log_softmax(1),
        posterior_log_probs=moved.log_softmax(2),
        last_layer=(weight, torch.zeros(size.classes)),
        labeled=labeled,
        targets=torch.where(labeled, cluster % size.classes, -1),
        generator=generator,
    )


def seconds_of(name: str, size: Size, view: PoolView) -> float:
    """Return the least seconds of a core that a batch takes; every try begins with a sampler that knows nothing."""
    taken = []
    for _ in range(_TRIES):
        sampler = samplers.from_name(name)
        started = time.process_time()
        sampler.select(view, size.picks)
        taken.append(time.process_time() - started)
        if taken[0] > 1:
            break
    return max(_SHORTEST, min(taken))


def fit(sizes: Sequence[Size], seconds: Sequence[float]) -> Cost:
    """Return the formula nearest to what was measured. No power is below 0: more of anything takes no less."""
    ratios = np.log(np.array(sizes, dtype=float) / np.array(BASE, dtype=float))
    wanted = np.log(np.array(seconds))

    def missed(found: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.logaddexp(found[0], found[1] + ratios @ found[2:]) - wanted)

    start = np.array([wanted.min() - 1, float(np.median(wanted)), *([0.5] * len(BASE))])
    low, high = [-20.0, -20.0, *([0.0] * len(BASE))], [10.0, 10.0, *([_BOUND] * len(BASE))]
    found = least_squares(missed, start, bounds=(low, high)).x
    return Cost(math.exp(found[0]), math.exp(found[1]), tuple(map(float, found[2:])))


def measure(names: Sequence[str], *, most: float) -> Iterator[dict[str, str]]:
    """Yield the formula of each strategy that selects from tensors, and what it says of a pool it was not fitted to.

    Args:
        names: of the strategies.
        most: seconds that a batch may take; larger pools are left out then.
    """
    views = {size: pool_of(size) for size in (*SIZES, CHECK)}
    for name in tqdm(names):
        sizes: list[Size] = []
        seconds: list[float] = []
        for size in sorted(SIZES, key=math.prod):
            try:
                if len(sizes) > 2 and fit(sizes, seconds).at(size) > most:
                    continue
                seconds.append(seconds_of(name, size, views[size]))
            except TorchalError as error:
                tqdm.write(f"{name}: {error}")
                break
            sizes.append(size)
        if len(sizes) < len(BASE) + 3:
            continue
        cost = fit(sizes, seconds)
        if max(cost.powers) > MOST_POWER:
            continue
        predicted = cost.at(CHECK)
        measured = seconds_of(name, CHECK, views[CHECK]) if predicted < 2 * most else math.nan
        values = (cost.fixed, cost.seconds, *cost.powers, predicted, measured)
        yield dict(zip(FIELDS, (name, *(f"{value:.4g}" for value in values)), strict=True))


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=samplers.names(), default=samplers.names(), metavar="NAME")
    parser.add_argument("--most", type=float, default=20.0, help="seconds that a batch may take")
    parser.add_argument("--out", type=Path, help="folder for cost.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(measure(options.only, most=options.most))
    for row in rows:
        print("  ".join(f"{value:>10}" for value in row.values()))
    if options.out is not None:
        with (options.out / "cost.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
