"""K-center greedy against one pass per pick, and against the matrix product that applying all picks would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from torchal.engine.distances import Metric
from torchal.functional import k_center_greedy


class Work(NamedTuple):
    """One problem."""

    name: str
    features: Callable[[torch.device], Tensor]
    n: int
    n_labeled: int
    metric: Metric = "euclidean"
    against_playground: bool = False


def gaussian(n_rows: int, n_columns: int) -> Callable[[torch.device], Tensor]:
    """Return a maker of standard normal rows."""
    return lambda device: torch.randn(n_rows, n_columns, generator=_seeded(device), device=device)


def clustered(n_rows: int, n_columns: int) -> Callable[[torch.device], Tensor]:
    """Return a maker of rows in ten groups with negative numbers cut off, like a network's features."""

    def make(device: torch.device) -> Tensor:
        generator = _seeded(device)
        centers = torch.randn(10, n_columns, generator=generator, device=device)
        group = torch.randint(0, 10, (n_rows,), generator=generator, device=device)
        return (centers[group] + torch.randn(n_rows, n_columns, generator=generator, device=device)).relu()

    return make


def binary(n_rows: int, n_columns: int) -> Callable[[torch.device], Tensor]:
    """Return a maker of rows of 0 and 1: most distances are tied."""
    return lambda device: (torch.rand(n_rows, n_columns, generator=_seeded(device), device=device) < 0.25).float()


def _seeded(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def works(size: str, device: torch.device) -> list[Work]:
    """Return the problems of a size."""
    if size == "small":
        return [
            Work("gaussian 2000 x 32", gaussian(2000, 32), 50, 10, against_playground=True),
            Work("manhattan 2000 x 32", gaussian(2000, 32), 50, 10, metric="manhattan"),
            Work("binary 2000 x 32", binary(2000, 32), 50, 10),
        ]
    medium = [
        Work("gaussian 50 000 x 512", gaussian(50_000, 512), 1000, 100, against_playground=True),
        Work("clustered ReLU 50 000 x 512", clustered(50_000, 512), 1000, 100, against_playground=True),
        Work("manhattan, gaussian 50 000 x 512", gaussian(50_000, 512), 1000, 100, metric="manhattan"),
        *(
            Work(f"gaussian {n_rows:,} x 3".replace(",", " "), gaussian(n_rows, 3), n, 100)
            for n_rows in (5000, 50_000, 1_000_000)
            for n in (10, 100, 1000)
        ),
        Work("binary 50 000 x 180", binary(50_000, 180), 1000, 100),
    ]
    if size == "large" and device.type == "cuda":
        medium.append(Work("clustered ReLU 1 280 000 x 2048", clustered(1_280_000, 2048), 12_800, 1000))
    return medium


def rows(size: str, device: str) -> Iterator[Row]:
    """Time all problems; the notes count picks that differ from the plain loop's, and how far they are from a tie."""
    for work in works(size, torch.device(device)):
        features = work.features(torch.device(device))
        labeled = torch.arange(len(features), device=features.device) < work.n_labeled
        yield from _compare(work, features, labeled, device)
    n_rows, n = (2000, 50) if size == "small" else (1_000_000, 1000)
    yield from _settings(gaussian(n_rows, 64)(torch.device(device)), n, device)


def _settings(features: Tensor, n: int, device: str) -> Iterator[Row]:
    """Compare picks with weights, outliers and a least distance with those without; ours are those with weights."""
    n_rows = len(features)
    labeled = torch.arange(n_rows, device=features.device) < 100
    weights = torch.rand(n_rows, generator=_seeded(features.device), device=features.device)

    def pick(**settings: object) -> Callable[[], object]:
        return lambda: k_center_greedy(features, n, labeled=labeled, **settings)  # type: ignore[arg-type]

    candidates = {
        "ours": pick(weights=weights),
        "without weights": pick(),
        "1 % outliers": pick(outliers=0.01),
        "at least 1 apart": pick(min_distance=1.0),
    }
    yield from compare(f"weighted k-center {n_rows} x 64, {n} picks", candidates, repeats=3, device=device)


def _compare(work: Work, features: Tensor, labeled: Tensor, device: str) -> Iterator[Row]:
    def ours(backend: str = "auto") -> Tensor:
        return k_center_greedy(features, work.n, labeled=labeled, metric=work.metric, backend=backend).indices  # type: ignore[arg-type]

    candidates: dict[str, Callable[[], object]] = {"ours": ours}
    once = []
    if work.metric == "manhattan":
        plain = lambda: plain_manhattan(features, work.n, work.n_labeled)  # noqa: E731
        if find_spec("faiss"):
            candidates["ours, torch alone"] = lambda: ours("torch")
    else:
        plain = lambda: plain_euclidean(features, work.n, work.n_labeled)  # noqa: E731
        candidates["floor: one mm, picks and labeled"] = lambda: torch.mm(
            features, features[: work.n + work.n_labeled].T
        )
    candidates["plain loop, one pass a pick"] = plain
    if len(features) * work.n > 10_000_000:
        once.append("plain loop, one pass a pick")
    if work.against_playground and device == "cpu" and find_spec("sklearn"):
        candidates["the Playground's algorithm"] = lambda: playground(features, work.n, work.n_labeled)
        once.append("the Playground's algorithm")
    same = int((ours().cpu() == plain()).sum())
    notes = {"ours": f"{same} of {work.n} picks as the plain loop's"}
    off, beyond = off_the_maximum(features, labeled, ours(), work.metric)
    notes["ours"] += f"; {off} below the float64 maximum, {beyond} by more than the rounding bound"
    yield from compare(
        f"k-center {work.name}, {work.n} picks", candidates, repeats=5, device=device, once=once, notes=notes
    )


def plain_euclidean(x: Tensor, n: int, n_labeled: int) -> Tensor:
    """Pick with one matrix-vector product per centre."""
    sq = (x * x).sum(1)
    nearest = torch.full_like(sq, torch.inf)
    for center in range(n_labeled):
        nearest = torch.minimum(nearest, sq - 2 * (x @ x[center]) + sq[center])
    nearest[:n_labeled] = -1
    picked = []
    for _ in range(n):
        pick = nearest.argmax()
        picked.append(pick)
        nearest = torch.minimum(nearest, sq - 2 * (x @ x[pick]) + sq[pick])
        nearest[pick] = -1
    return torch.stack(picked).cpu()


def plain_manhattan(x: Tensor, n: int, n_labeled: int) -> Tensor:
    """Pick with one `torch.cdist` per centre."""
    nearest = x.new_full((len(x),), torch.inf)
    for center in range(n_labeled):
        nearest = torch.minimum(nearest, torch.cdist(x, x[center : center + 1], p=1).squeeze(1))
    nearest[:n_labeled] = -1
    picked = []
    for _ in range(n):
        pick = nearest.argmax()
        picked.append(pick)
        nearest = torch.minimum(nearest, torch.cdist(x, x[pick].unsqueeze(0), p=1).squeeze(1))
        nearest[pick] = -1
    return torch.stack(picked).cpu()


def playground(x: Tensor, n: int, n_labeled: int) -> list[int]:
    """Pick as google/active-learning's kcenter_greedy.py does: scikit-learn's pairwise distances, once per pick."""
    from sklearn.metrics import pairwise_distances

    features = x.numpy()
    nearest = pairwise_distances(features, features[:n_labeled]).min(1).reshape(-1, 1)
    picked = []
    for _ in range(n):
        pick = int(np.argmax(nearest))
        picked.append(pick)
        nearest = np.minimum(nearest, pairwise_distances(features, features[[pick]]))
    return picked


def off_the_maximum(x: Tensor, labeled: Tensor, picks: Tensor, metric: Metric) -> tuple[int, int]:
    """Count the picks whose value is not the largest in float64, and those beyond the stated bound."""
    center = x.double().mean(0)
    chosen, first = x[picks].double() - center, x[labeled].double() - center
    order = torch.full((len(x),), len(picks), device=x.device)
    order[picks] = torch.arange(len(picks), device=x.device)
    largest = torch.full((len(picks),), -torch.inf, dtype=torch.float64, device=x.device)
    own = torch.zeros(len(picks), dtype=torch.float64, device=x.device)
    steps = torch.arange(len(picks), device=x.device)
    longest = 0.0

    def far(a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a, b, p=1) if metric == "manhattan" else torch.cdist(a, b).square()

    for rows_, where, done in zip(x.split(2048), order.split(2048), labeled.split(2048), strict=True):
        part = rows_.double() - center
        longest = max(longest, float(part.square().sum(1).max()))
        start = far(part, first).amin(1, keepdim=True)
        values = torch.cat([start, far(part, chosen)[:, :-1]], 1).cummin(1).values
        mine = where < len(picks)
        own[where[mine]] = values[mine, where[mine]]
        values[(steps > where.unsqueeze(1)) | done.unsqueeze(1)] = -torch.inf
        largest = torch.maximum(largest, values.amax(0))
    gap = largest - own
    epsilon = (x.shape[1] + 4) * torch.finfo(x.dtype).eps
    bound = 2 * epsilon * largest if metric == "manhattan" else 4 * epsilon * longest
    return int((gap > 1e-9 * largest).sum()), int((gap > bound).sum())
