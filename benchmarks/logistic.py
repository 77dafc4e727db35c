"""Multinomial logistic regression, fitted to its optimum, against scikit-learn's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from benchmarks.harness import Row, compare
from torchal.models import LogisticRegression

ROWS = {"small": (20, 400), "medium": (20, 100, 400, 1198), "large": (20, 100, 400, 1198, 1797)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time fits on standardised digits: scikit-learn as it comes, and to a comparable tolerance."""
    x, y = load_digits(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0).clip(1e-9)
    for n in ROWS[size]:
        inputs, targets = torch.tensor(x[:n], device=device), torch.tensor(y[:n], device=device)
        to_optimum = SklearnLogisticRegression(tol=1e-8, max_iter=10_000)
        candidates = {
            "ours": partial(LogisticRegression(device=device).fit, inputs, targets),
            "scikit-learn, defaults": partial(SklearnLogisticRegression().fit, x[:n], y[:n]),
            "scikit-learn, tol=1e-8": partial(to_optimum.fit, x[:n], y[:n]),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn as it comes stops before the optimum and says so
            table = list(compare(f"logistic regression, digits, n={n}", candidates, repeats=5, device=device))
        yield from table
