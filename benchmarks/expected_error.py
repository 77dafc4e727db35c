"""The expected error after a label by steps of the last layer, against fits for each row and label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from torchal.functional import expected_error_reduction

SIZES = {"small": (50, 50, 3, 16, 20), "medium": (500, 500, 10, 64, 100), "large": (1000, 1000, 10, 512, 100)}
SCORED_BY_FITS = 20  # rows; all of them would take minutes, and their time is in proportion


def rows(size: str, device: str) -> Iterator[Row]:
    """Score n rows over M others of C classes and D features, with L labeled."""
    n, n_pool, n_classes, n_columns, n_labeled = SIZES[size]
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(n_labeled + n + n_pool, n_columns, generator=generator, device=device)
    weights = torch.randn(n_columns, n_classes, generator=generator, device=device) * 2 / n_columns**0.5
    log_probs = (x @ weights).log_softmax(1)
    labeled = torch.arange(len(x), device=device) < n_labeled
    scored = torch.arange(n_labeled, n_labeled + n, device=device)
    pool = torch.arange(n_labeled + n, len(x), device=device)
    run = partial(expected_error_reduction, x, log_probs, labeled=labeled, rows=scored, pool=pool)
    now = log_probs[pool].T.contiguous()
    alternatives: dict[str, Callable[[], object]] = {
        "ours": run,
        "ours, one step": partial(run, n_steps=1),
        "ours, kronecker": partial(run, form="kronecker"),
        "ours, kronecker, one step": partial(run, form="kronecker", n_steps=1),
        "floor: the entropies alone": partial(entropies, now, n * n_classes),
    }
    notes = {}
    if find_spec("sklearn") and device == "cpu":
        name = f"plain loop of fits, {SCORED_BY_FITS} of {n} rows"
        alternatives[name] = partial(fits, x, log_probs, n_labeled, scored[:SCORED_BY_FITS], pool)
        notes[name] = f"all would take {n / SCORED_BY_FITS:.3g} times as long"
    work = f"expected error, n={n} M={n_pool} C={n_classes} D={n_columns} L={n_labeled}"
    yield from compare(work, alternatives, repeats=3, device=device, notes=notes)


def entropies(log_probs: Tensor, n_pairs: int) -> list[Tensor]:
    """Return the entropies of logits (C, M), once for each of n pairs of a row and a label."""
    out = []
    for _ in range(n_pairs):
        odds = log_probs.exp()
        total = odds.sum(0)
        out.append((total.log() - (odds * log_probs).sum(0) / total).sum())
    return out


def fits(x: Tensor, log_probs: Tensor, n_labeled: int, scored: Tensor, pool: Tensor) -> list[float]:
    """Return what scikit-learn's logistic regression, fitted for each row and label, is expected to lose."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    features, probs = x.numpy(), log_probs.exp().numpy()
    old = list(range(n_labeled))
    labels = probs[old].argmax(1)
    n_classes = probs.shape[1]
    labels[:n_classes] = range(n_classes)
    found = []
    for row in scored.tolist():
        expected = 0.0
        for label in range(n_classes):
            model = LogisticRegression(max_iter=1000).fit(features[[*old, row]], [*labels, label])
            after = model.predict_proba(features[pool.numpy()])
            expected -= float(probs[row, label] * (after * np.log(after + 1e-30)).sum(1).mean())
        found.append(expected)
    return found
