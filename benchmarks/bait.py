"""BAIT by low-rank changes of what is kept of each row, against a loop that solves for each row anew at every pick."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from torchal.functional import bait
from torchal.functional.fisher import Form

SIZES = {"small": (400, 4, 8, 5), "medium": (5000, 10, 64, 50), "large": (50_000, 10, 512, 50)}
APPROXIMATE = {"small": (2000, 10, 8, 5), "medium": (50_000, 100, 64, 50), "large": (1_000_000, 1000, 64, 50)}
_LOOP_PICKS = {"small": 10, "medium": 2, "large": 1}  # that the loop makes forward: each takes the same time
_CHUNK = 1 << 24  # numbers


def rows(size: str, device: str) -> Iterator[Row]:
    """Time a batch: exact, with the loop's time at its share of the picks, and the approximations."""
    n_rows, n_classes, n_columns, n = SIZES[size]
    log_probs, features = outputs(n_rows, n_classes, n_columns, device)
    loop = f"plain loop, {_LOOP_PICKS[size]} of {2 * n} forward picks"
    x = features.double()
    both = torch.randn(n_columns, 2 * (n_classes - 1) ** 2, dtype=torch.float64, device=device)

    def products() -> None:
        for _ in range(2 * n):
            torch.mm(x, both)

    yield from compare(
        f"BAIT {n_rows} x {n_columns}, {n_classes} classes, {n} picks",
        {
            "ours": partial(bait, log_probs, features, n, form="exact"),
            "block_diagonal": partial(bait, log_probs, features, n, form="block_diagonal"),
            "binary": partial(bait, log_probs, features, n, form="binary"),
            "floor: one product a pick": products,
            loop: partial(plain, log_probs.exp(), features, _LOOP_PICKS[size]),
        },
        repeats=3,
        device=device,
        once=[] if size == "small" else [loop],
    )
    n_rows, n_classes, n_columns, n = APPROXIMATE[size]
    log_probs, features = outputs(n_rows, n_classes, n_columns, device)
    forms: list[Form] = ["binary"] if size == "large" else ["block_diagonal", "binary"]
    for form in forms:
        work = f"BAIT {form} {n_rows} x {n_columns}, {n_classes} classes, {n} picks"
        yield from compare(work, {"ours": partial(bait, log_probs, features, n, form=form)}, repeats=3, device=device)


def outputs(n_rows: int, n_classes: int, n_columns: int, device: str) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N, C) and features (N, D) as a network's last layer has them."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n_rows, n_columns, generator=generator).relu()
    weight = torch.randn(n_classes, n_columns, generator=generator) * (8 / n_columns) ** 0.5
    return (features @ weight.T).log_softmax(1).to(device), features.to(device)


def plain(probs: Tensor, features: Tensor, n_forward: int) -> list[int]:
    """Pick forward as the algorithm is written: C D x C numbers for each row, by Woodbury's identity, at each pick."""
    n_rows, n_classes = probs.shape
    size = n_classes * features.shape[1]
    eye = torch.eye(n_classes, device=probs.device)
    inverse = torch.eye(size, device=probs.device)

    def factors(part: slice) -> Tensor:
        some = probs[part]
        root = (eye - some.unsqueeze(1)) * some.sqrt().unsqueeze(2)
        return (root.unsqueeze(3) * features[part, None, None]).flatten(2)

    n_chunk = max(1, _CHUNK // (n_classes * size))
    chunks = [slice(i, i + n_chunk) for i in range(0, n_rows, n_chunk)]
    fisher = torch.zeros_like(inverse)
    for part in chunks:
        flat = factors(part).flatten(0, 1)
        fisher += flat.T @ flat / n_rows
    picked: list[int] = []
    for _ in range(n_forward):
        gains = []
        for part in chunks:
            v = factors(part)
            pv = v @ inverse
            inner = torch.linalg.inv(eye + pv @ v.mT)
            gains.append(((pv @ fisher) @ pv.mT * inner).sum((1, 2)))
        every = torch.cat(gains)
        every[picked] = -torch.inf
        picked.append(int(every.argmax()))
        v = factors(slice(picked[-1], picked[-1] + 1))[0]
        pv = v @ inverse
        inverse = inverse - pv.T @ torch.linalg.inv(eye + pv @ v.T) @ pv
    return picked
