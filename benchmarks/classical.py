"""The Playground's classical models with their grids, against scikit-learn's under GridSearchCV."""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from benchmarks.harness import Row, compare
from torchal import Schedule, Trainer
from torchal.data import csv, start_rows
from torchal.models import KernelLeastSquares, KernelSVM, LinearSVM, LogisticRegression, OneVsRestLogisticRegression
from torchal.samplers import Margin

Array = NDArray[Any]
GRID = [10.0**i for i in range(-4, 5)]
GRID_OVR = [10.0**i for i in range(-5, 4)]
GRID_LS = [10.0**i for i in range(-6, 1)]
N_TRIALS = 10


def rows(size: str, device: str) -> Iterator[Row]:
    """Time fits with their search for C, and one fit without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn as it comes stops before the optimum and says so
        yield from _single(size, device)
        few = size == "small"
        yield from _linear_svm_on_text(200 if few else 800)
        yield from _logistic("digits", *_digits(200 if few else 500), device)
        read = letter()
        if read is None:
            print(f"{letter_file()} is not there: the models that are measured on it are left out", file=sys.stderr)
            return
        x, y = read
        for n in (500,) if few else (2000, 10_000):
            yield from _logistic("letter", x[:n], y[:n], device, repeats=5 if n < 10_000 else 3)
        n = 500 if few else 2000
        yield from _logistic_ovr(x[:n], y[:n], device)
        yield from _linear_svm(x[:n], y[:n], device)
        yield from _kernel_svm(x[:n], y[:n], device)
        n = 500 if few else 4000
        yield from _kernel_ls(x[:n], y[:n], device)
        yield from _trials(x, y, 300 if few else 1000, device)
        if size == "large":
            yield from _default_experiment(device)


def _digits(n: int) -> tuple[Array, Array]:
    x, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(x)[:n], y[:n]


def letter() -> tuple[Array, Array] | None:
    """Return standardised rows in an order of their own, and labels; nothing where the file is not there."""
    path = letter_file()
    if not path.exists():
        return None
    table = np.loadtxt(path, delimiter=",", dtype=str, skiprows=1)
    order = np.random.default_rng(0).permutation(len(table))
    return StandardScaler().fit_transform(table[order, 1:].astype(float)), table[order, 0]


def letter_file() -> Path:
    """Return where the letter data are, or would be."""
    return _data_file("letter/letter-recognition.data")


def _data_file(name: str) -> Path:
    return Path(os.environ.get("TORCHAL_DATA", "../shared/data")) / name


def _single(size: str, device: str) -> Iterator[Row]:
    """One C: scikit-learn as it comes, and to a comparable tolerance."""
    for n in {"small": (20, 400), "medium": (20, 100, 400, 1198), "large": (20, 100, 400, 1198, 1797)}[size]:
        x, y = _digits(n)
        candidates: dict[str, Callable[[], object]] = {
            "ours": _fit(LogisticRegression(device=device), x, y, device),
            "scikit-learn, defaults": partial(SklearnLogisticRegression().fit, x, y),
            "scikit-learn, tol=1e-6": partial(SklearnLogisticRegression(tol=1e-6, max_iter=10_000).fit, x, y),
            "scikit-learn, tol=1e-8": partial(SklearnLogisticRegression(tol=1e-8, max_iter=10_000).fit, x, y),
        }
        yield from compare(f"logistic, one C, digits {n}", candidates, repeats=5, device=device)


def _fit(model: Any, x: Array, y: Array, device: str) -> Callable[[], object]:
    """Return a fit of rows that are on the device already."""
    return partial(model.fit, torch.tensor(x, device=device), torch.tensor(_codes(y), device=device))


def _codes(y: Array) -> Array:
    codes: Array = np.unique(y, return_inverse=True)[1]
    return codes


def _search(model: Any, x: Array, y: Array, grid: list[float]) -> Callable[[], object]:
    return partial(GridSearchCV(model, {"C": grid}, cv=3).fit, x, y)


def _logistic(name: str, x: Array, y: Array, device: str, repeats: int = 5) -> Iterator[Row]:
    exact = SklearnLogisticRegression(tol=1e-6, max_iter=10_000)
    candidates = {
        "ours": _fit(LogisticRegression(C=GRID, device=device), x, y, device),
        "GridSearchCV, max_iter=200": _search(SklearnLogisticRegression(max_iter=200), x, y, GRID),
        "GridSearchCV, tol=1e-6": _search(exact, x, y, GRID),
    }
    once = ["GridSearchCV, tol=1e-6"] if len(x) >= 10_000 else []
    work = f"logistic with its grid, {name} {len(x)}"
    notes = _objectives(x, y)
    yield from compare(work, candidates, repeats=repeats, device=device, once=once, notes=notes)


def _objectives(x: Array, y: Array) -> dict[str, str]:
    """Say how far above the least objective each ends, at the largest C."""
    reached = {
        "ours": LogisticRegression(C=GRID[-1]),
        "GridSearchCV, max_iter=200": SklearnLogisticRegression(C=GRID[-1], max_iter=200),
        "GridSearchCV, tol=1e-6": SklearnLogisticRegression(C=GRID[-1], tol=1e-6, max_iter=10_000),
    }
    codes = _codes(y)
    least, values = np.inf, {}
    for who, model in {**reached, "": LogisticRegression(C=GRID[-1], tol=1e-14)}.items():
        model.fit(x, codes)
        logits = x @ model.coef_.T + model.intercept_
        losses = np.logaddexp.reduce(logits, 1) - logits[np.arange(len(x)), codes]
        values[who] = GRID[-1] * losses.sum() + 0.5 * (model.coef_**2).sum()
        least = min(least, values[who])
    return {who: f"at C=1e4 {values[who] / least - 1:.0e} above the least objective" for who in reached}


def _logistic_ovr(x: Array, y: Array, device: str) -> Iterator[Row]:
    from sklearn.multiclass import OneVsRestClassifier

    theirs = OneVsRestClassifier(SklearnLogisticRegression(solver="liblinear"))
    candidates: dict[str, Callable[[], object]] = {
        "ours": _fit(OneVsRestLogisticRegression(C=GRID_OVR, penalize_intercept=True, device=device), x, y, device),
        "GridSearchCV(OneVsRest(liblinear))": partial(GridSearchCV(theirs, {"estimator__C": GRID_OVR}, cv=3).fit, x, y),
    }
    yield from compare(f"logistic_ovr with its grid, letter {len(x)}", candidates, repeats=3, device=device)


def _linear_svm(x: Array, y: Array, device: str) -> Iterator[Row]:
    candidates = {
        "ours": _fit(LinearSVM(C=GRID, device=device), x, y, device),
        "GridSearchCV(LinearSVC)": _search(LinearSVC(random_state=0), x, y, GRID),
    }
    yield from compare(f"linear_svm with its grid, letter {len(x)}", candidates, repeats=5, device=device)


def _linear_svm_on_text(n: int) -> Iterator[Row]:
    """Sparse rows, which stay on the CPU."""
    path = _data_file("reuters-r8/r8.tsv.gz")
    if not path.exists():
        print(f"{path} is not there: the text is left out", file=sys.stderr)
        return
    with gzip.open(path, "rt", encoding="utf-8") as file:
        cells = [line.rstrip("\n").split("\t") for line in file]
    order = np.random.default_rng(0).permutation(len(cells))[:n]
    x, y = (
        TfidfVectorizer().fit_transform([row[-1] for row in cells])[order],
        np.array([row[-2] for row in cells])[order],
    )
    exact = LinearSVC(tol=1e-8, max_iter=10_000, random_state=0)
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(LinearSVM(C=GRID, device="cpu").fit, x, y),
        "ours, solver='torch'": partial(LinearSVM(C=GRID, solver="torch", device="cpu").fit, x, y),
        "GridSearchCV(LinearSVC)": _search(LinearSVC(random_state=0), x, y, GRID),
        "GridSearchCV(LinearSVC), tol=1e-8": _search(exact, x, y, GRID),
    }
    yield from compare(f"linear_svm with its grid, tf-idf of Reuters {n}", candidates, repeats=3, device="cpu")


def _kernel_svm(x: Array, y: Array, device: str) -> Iterator[Row]:
    candidates = {
        "ours": _fit(KernelSVM(C=GRID, device=device), x, y, device),
        "ours, solver='torch'": _fit(KernelSVM(C=GRID, solver="torch", device=device), x, y, device),
        "GridSearchCV(SVC)": _search(SVC(), x, y, GRID),
    }
    yield from compare(f"kernel_svm with its grid, letter {len(x)}", candidates, repeats=3, device=device)


def _kernel_ls(x: Array, y: Array, device: str) -> Iterator[Row]:
    candidates = {
        "ours": _fit(KernelLeastSquares(C=GRID_LS, device=device), x, y, device),
        "the Playground's, GridSearchCV": _search(PlaygroundKernelSolver(), x, y, GRID_LS),
    }
    once = ["the Playground's, GridSearchCV"] if len(x) > 2000 else []
    yield from compare(f"kernel_ls with its grid, letter {len(x)}", candidates, repeats=3, device=device, once=once)


class PlaygroundKernelSolver(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """google/active-learning's kernel_block_solver.py for one block: normal equations of the kernel and its ridge."""

    def __init__(self, C: float = 0.1, block_size: int = 4000) -> None:
        self.C = C
        self.block_size = block_size

    def fit(self, X: Array, y: Array) -> PlaygroundKernelSolver:
        """Solve (K + C n I)^T (K + C n I) coef = (K + C n I)^T Y, and say how good that is on the same rows."""
        if len(X) > self.block_size:
            raise ValueError(f"more than one block does not converge: {len(X)} rows, block_size is {self.block_size}")
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.gamma_, self.rows_ = 1 / X.shape[1], X
        kernel = rbf_kernel(X, gamma=self.gamma_)
        diagonal = np.diag_indices(len(X))
        kernel[diagonal] += self.C * len(X)
        order = np.random.default_rng(1).permutation(len(X))
        block = kernel[:, order]
        targets = np.eye(len(self.classes_))[codes]
        self.coef_ = np.zeros_like(targets)
        self.coef_[order] = linalg.solve(block.T.dot(block), block.T.dot(targets))
        kernel[diagonal] -= self.C * len(X)
        self.train_accuracy_ = float((kernel.dot(self.coef_).argmax(1) == codes).mean())
        return self

    def predict(self, X: Array) -> Array:
        """Return the labels of the largest fitted targets."""
        labels: Array = self.classes_[rbf_kernel(X, self.rows_, gamma=self.gamma_).dot(self.coef_).argmax(1)]
        return labels


def _trials(x: Array, y: Array, n: int, device: str) -> Iterator[Row]:
    """Ten data sets at once, beside scikit-learn one after another."""
    data = [(x[i * n : (i + 1) * n], _codes(y)[i * n : (i + 1) * n]) for i in range(N_TRIALS)]
    inputs = torch.tensor(np.stack([one for one, _ in data]), device=device)
    targets = torch.tensor(np.stack([one for _, one in data]), device=device)
    models: dict[str, tuple[Any, Any, list[float]]] = {
        "logistic": (LogisticRegression(C=GRID, device=device), SklearnLogisticRegression(max_iter=200), GRID),
        "linear_svm": (LinearSVM(C=GRID, device=device), LinearSVC(random_state=0), GRID),
        "kernel_svm": (KernelSVM(C=GRID, device=device), SVC(), GRID),
        "kernel_ls": (KernelLeastSquares(C=GRID_LS, device=device), PlaygroundKernelSolver(), GRID_LS),
    }
    for name, (ours, theirs, grid) in models.items():
        candidates = {
            "ours": partial(ours.fit_many, inputs, targets),
            "ours, one by one": partial(
                _one_by_one, [partial(ours.fit, *pair) for pair in zip(inputs, targets, strict=True)]
            ),
            "GridSearchCV, one by one": partial(_one_by_one, [_search(theirs, *pair, grid) for pair in data]),
        }
        work, once = f"{name} with its grid, {N_TRIALS} x letter {n}", ["GridSearchCV, one by one"]
        yield from compare(work, candidates, repeats=3, device=device, once=once)


def _one_by_one(fits: list[Callable[[], object]]) -> None:
    for fit in fits:
        fit()


def _default_experiment(device: str) -> Iterator[Row]:
    """The Playground's default run: letter, margin, batches of 2 % to the last row, its model tuned at every fit."""
    data = csv(letter_file(), target=0, max_rows=15_000, standardize=True, seed=0).to(device)
    n = len(data.train.targets) // 50
    start = start_rows(data.train.targets, n, how="playground", generator=torch.Generator().manual_seed(0))
    final: dict[str, float] = {}

    def run(who: str, model: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(model, Margin(), schedule=Schedule(batch_size=n), run_dir=folder, progress=False)
            done = trainer.fit(data.pool(), data.oracle(), validation=data.validation, test=data.test, start=start)
            final[who] = float(np.mean(done.curve()[1]))

    candidates = {
        "ours": partial(run, "ours", LogisticRegression(C=GRID, device=device)),
        "GridSearchCV, max_iter=200": partial(
            run, "GridSearchCV, max_iter=200", GridSearchCV(SklearnLogisticRegression(max_iter=200), {"C": GRID}, cv=3)
        ),
    }
    work = f"the Playground's default experiment, {len(data.train.targets)} rows"
    for row in list(compare(work, candidates, repeats=1, device=device, once=list(candidates))):
        yield replace(row, note=f"mean test accuracy of the curve {final[row.who]:.4f}")
