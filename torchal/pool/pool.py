"""The pool: all rows and the labels bought so far.

There is one index space. Every mask and every answer counts the N rows of the pool, labeled or not, and nothing is
translated. A label that was not bought is nowhere in here.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from torchal._checks import as_integers, as_mask, as_rows
from torchal.errors import DataError, ShapeError
from torchal.pool.classes import Classes
from torchal.pool.file_inputs import FileInputs
from torchal.pool.inputs import SparseInputs, as_inputs, checked_inputs, is_sparse, joined
from torchal.pool.labels import LabeledData, buy, check_labels, training_data
from torchal.pool.tables import TableInputs
from torchal.pool.view import PoolView
from torchal.protocols import UNLABELED, Classifier, Inputs


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows, and the labels bought so far. Immutable: buying labels gives a new pool.

    Args:
        inputs: N rows; a tensor, a NumPy array, a table of pandas, Polars or Arrow, texts in a list (`TableInputs`), a
            sparse matrix of SciPy or torch (`SparseInputs`), rows in several files (`torchal.FileRows`), or anything
            with a length that is indexed by row numbers. Numbers may be missing (NaN) where the model fills them in.
        targets: labels where they were bought, `UNLABELED` (-1) elsewhere.
        labeled: where labels were bought; where `targets` has one, unless given.
        n_classes: number of classes, at least 2, known before each has a label; unless given, as many as `classes`, or
            else the largest label plus 1.
        skipped: rows that cannot be labeled and are not asked again.
        source_rows: each row's number where the data came from; 0 to N - 1 unless given.
        classes: what people call the classes: text, numbers or truth values, in the order of their numbers.
        learns_classes: whether a label that is none of `classes` yet is a new class.

    Shapes:
        inputs: (N, ...).
        targets: (N,) int64.
        labeled, skipped: (N,) bool.
        source_rows: (N,) int64.

    Raises:
        DataError: no rows; inputs that are not finite; fewer than 2 classes; a label outside [0, n_classes); a target
            of an unlabeled row.
        ShapeError: the tensors disagree in rows, dtype or device.

    Example:
        >>> pool = Pool.unlabeled(torch.rand(5, 2), n_classes=2)
        >>> pool.with_labels(torch.tensor([3, 1]), torch.tensor([0, 1])).targets
        tensor([-1,  1, -1,  0, -1])
    """

    inputs: Inputs
    targets: Tensor
    labeled: Tensor = None  # type: ignore[assignment]  # filled in below, as are the others
    n_classes: int = None  # type: ignore[assignment]
    skipped: Tensor = None  # type: ignore[assignment]
    source_rows: Tensor = None  # type: ignore[assignment]
    classes: tuple[Any, ...] | None = None
    learns_classes: bool = False

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("inputs", checked_inputs("inputs", self.inputs))
        if not isinstance(self.targets, Tensor):
            put("targets", as_integers("targets", self.targets))
        n_rows = len(self.inputs)
        if n_rows == 0:
            raise DataError("a pool needs at least one row, got none")
        device = self.inputs.device if isinstance(self.inputs, Tensor) else self.targets.device
        if isinstance(self.inputs, Tensor) and self.inputs.is_floating_point():
            _check_not_infinite(self.inputs)
        if self.targets.shape != (n_rows,) or self.targets.dtype != torch.int64 or self.targets.device != device:
            raise ShapeError(
                f"targets must be ({n_rows},) int64 on {device}, got {tuple(self.targets.shape)} {self.targets.dtype} "
                f"on {self.targets.device}"
            )
        if self.labeled is None:
            put("labeled", self.targets != UNLABELED)
        if self.skipped is None:
            put("skipped", torch.zeros(n_rows, dtype=torch.bool, device=device))
        rows = torch.arange(n_rows) if self.source_rows is None else as_integers("source_rows", self.source_rows)
        put("source_rows", rows.to(device))
        if self.classes is not None:
            given = Classes(tuple(self.classes), 0) if self.learns_classes else Classes.named(self.classes)
            put("classes", given.names)
            n_classes = max(2, len(self.classes))
            if self.n_classes not in (None, n_classes):
                raise DataError(f"n_classes is {self.n_classes!r}, and classes names {len(self.classes)}; give one")
            put("n_classes", n_classes)
        if self.n_classes is None:
            put("n_classes", int(self.targets.max()) + 1)
        if isinstance(self.n_classes, bool) or not isinstance(self.n_classes, Integral) or self.n_classes < 2:
            raise DataError(f"n_classes must be a whole number of at least 2, got {self.n_classes!r}")
        put("labeled", as_mask("labeled", self.labeled, n_rows=n_rows, device=device))
        put("skipped", as_mask("skipped", self.skipped, n_rows=n_rows, device=device))
        if self.source_rows.shape != (n_rows,):
            raise ShapeError(f"source_rows must have shape ({n_rows},), got {tuple(self.source_rows.shape)}")
        extra = int((self.targets[~self.labeled] != UNLABELED).sum())
        if extra:
            raise DataError(
                f"{extra} rows that are not labeled have a target: a pool holds only labels that were bought; "
                "use Pool.unlabeled(inputs, n_classes=...).with_labels(rows, labels)"
            )
        check_labels(self.targets[self.labeled], self.n_classes)

    @classmethod
    def unlabeled(
        cls,
        inputs: Any,
        *,
        n_classes: int | None = None,
        classes: Iterable[Any] | None = None,
        source_rows: Tensor | None = None,
    ) -> Pool:
        """Return a pool with no label bought yet.

        With `n_classes`, labels are the numbers 0 to n_classes - 1; with `classes`, these words or values, in the order
        of their numbers; with neither, the classes are learned from the labels that come.

        Shapes:
            inputs: (N, ...).
            source_rows: (N,) int64.

        Example:
            >>> pool = Pool.unlabeled(["free prize", "at noon?", "call now"], classes=["ham", "spam"])
            >>> pool.with_labels([0, 1], ["spam", "ham"]).targets
            tensor([ 1,  0, -1])
        """
        inputs = checked_inputs("inputs", inputs)
        device = inputs.device if isinstance(inputs, Tensor) else None
        targets = torch.full((len(inputs),), UNLABELED, device=device)
        named = Classes.named(classes) if classes is not None else Classes.learned()
        return cls(
            inputs,
            targets,
            n_classes=n_classes,  # type: ignore[arg-type]
            source_rows=source_rows,  # type: ignore[arg-type]
            classes=None if classes is None and n_classes is not None else named.names,
            learns_classes=classes is None and n_classes is None,
        )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def device(self) -> torch.device:
        """Where the masks and targets are."""
        return self.targets.device

    @cached_property
    def candidates(self) -> Tensor:
        """(N,) bool: rows that may be asked, neither labeled nor skipped."""
        return ~(self.labeled | self.skipped)

    @cached_property
    def n_labeled(self) -> int:
        """Number of labels bought."""
        return int(self.labeled.sum())

    @property
    def labels(self) -> Classes:
        """The classes and their names, to make numbers of labels and labels of numbers."""
        return Classes(self.classes, self.n_classes, grows=self.learns_classes)

    def with_labels(self, rows: Any, labels: Any) -> Pool:
        """Return the pool with these labels bought.

        A label that is missing (None, NaN) says that nobody can tell: such a row is not asked again.

        Shapes:
            rows: (n,) int64.
            labels: (n,), of the pool's classes.

        Raises:
            DataError: a row is labeled already, or a label is none of the classes.
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        rows = as_rows("rows", rows, n_rows=len(self), device=self.device)
        codes, classes = self.labels.encode(labels, n=len(rows))
        codes = codes.to(self.device)
        told = codes != UNLABELED
        targets, labeled = buy(rows[told], codes[told], self.targets, self.labeled)
        pool = self._changed(targets=targets, labeled=labeled, skipped=self.skipped & ~labeled).with_classes(classes)
        return pool if bool(told.all()) else pool.without(rows[~told])

    def with_classes(self, classes: Classes) -> Pool:
        """Return the pool with these classes, the first of which are those it has."""
        return self._changed(classes=classes.names, n_classes=classes.n, learns_classes=classes.grows)

    def relabeled(self, rows: Any, labels: Any) -> Pool:
        """Return the pool with other labels of rows that are labeled, or that nobody could tell.

        Shapes:
            rows: (n,) int64.
            labels: (n,), of the pool's classes; a row whose label is missing becomes one that nobody can tell.

        Raises:
            DataError: a row is neither labeled nor skipped, or a label is none of the classes.
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        return self.unlabel(rows).with_labels(rows, labels)

    def unlabel(self, rows: Any) -> Pool:
        """Return the pool without the labels of these rows, which may be asked again.

        Shapes:
            rows: (n,) int64.

        Raises:
            DataError: a row is neither labeled nor skipped.
            ShapeError: rows repeat or lie outside the pool.
        """
        rows = as_rows("rows", rows, n_rows=len(self), device=self.device)
        others = self.candidates[rows]
        if bool(others.any()):
            raise DataError(
                f"{int(others.sum())} of {len(rows)} rows have no label yet, the first is row {int(rows[others][0])}"
            )
        return self._changed(
            targets=self.targets.index_fill(0, rows, UNLABELED),
            labeled=self.labeled.index_fill(0, rows, False),
            skipped=self.skipped.index_fill(0, rows, False),
        )

    def without(self, rows: Tensor) -> Pool:
        """Return the pool with these rows never asked again, as when a person cannot label them.

        Shapes:
            rows: (n,) int64.

        Raises:
            DataError: a row is labeled already.
        """
        rows = as_rows("rows", rows, n_rows=len(self), device=self.device)
        if bool(self.labeled[rows].any()):
            raise DataError(f"{int(self.labeled[rows].sum())} of {len(rows)} rows to skip are labeled already")
        skipped = self.skipped.clone()
        skipped[rows] = True
        return self._changed(skipped=skipped)

    def extended(self, inputs: Any, *, source_rows: Any = None) -> Pool:
        """Return the pool with more rows behind those that it has, not labeled.

        Shapes:
            inputs: (m, ...).
            source_rows: (m,) int64; they count on from the largest number so far unless given.

        Raises:
            ShapeError: rows of another shape.
            DataError: rows of another kind; rows in a memory map, which cannot grow here.
        """
        more = Pool.unlabeled(inputs, n_classes=2, source_rows=source_rows)
        m, device = len(more), self.device
        if source_rows is None:
            first = int(self.source_rows.max()) + 1
            numbers = torch.arange(first, first + m, device=device)
        else:
            numbers = more.source_rows.to(device)
        none = torch.zeros(m, dtype=torch.bool, device=device)
        return self._changed(
            inputs=joined(self.inputs, more.inputs),
            targets=torch.cat([self.targets, torch.full((m,), UNLABELED, device=device)]),
            labeled=torch.cat([self.labeled, none]),
            skipped=torch.cat([self.skipped, none]),
            source_rows=torch.cat([self.source_rows, numbers]),
        )

    def training_data(self) -> tuple[Inputs, Tensor]:
        """Return the labeled rows, in ascending order, and their labels (L,)."""
        return training_data(self.inputs, self.targets, self.labeled)

    def fingerprint(self, n_rows: int | None = None) -> str:
        """Return a digest of the pool's size and of up to 1 024 of its rows, to know it again.

        Args:
            n_rows: of the pool as it was when it had so many rows; as it is unless given.
        """
        inputs = self.inputs
        n_rows = len(self) if n_rows is None else min(n_rows, len(self))
        shape: Any = getattr(inputs, "shape", None)
        if shape is not None and n_rows < len(self):
            shape = torch.Size([n_rows, *shape[1:]]) if isinstance(shape, torch.Size) else (n_rows, *shape[1:])
        digest = hashlib.sha256(f"{n_rows} {self.labels.fingerprint()} {shape}".encode())
        rows = torch.linspace(0, n_rows - 1, min(n_rows, 1024), dtype=torch.float64).long()
        if isinstance(inputs, Tensor):
            some = inputs[rows.to(inputs.device)].cpu().contiguous()
            digest.update(some.view(torch.uint8).numpy().tobytes() if some.ndim else b"")
        elif isinstance(inputs, SparseInputs):
            matrix = inputs[rows].matrix
            for part in (matrix.indptr.astype("int64"), matrix.indices.astype("int64"), matrix.data):
                digest.update(part.tobytes())
        elif isinstance(inputs, FileInputs):
            digest.update((inputs if n_rows == len(self) else inputs[:n_rows]).fingerprint.encode())
        elif isinstance(inputs, TableInputs):
            digest.update(inputs[rows].fingerprint().encode())
        return digest.hexdigest()[:16]

    def _changed(self, **changes: Any) -> Pool:
        """Return a copy with other masks, without the checks: they read all inputs, which have not changed."""
        changed = copy.copy(self)
        for derived in ("candidates", "n_labeled"):
            changed.__dict__.pop(derived, None)
        for name, value in changes.items():
            object.__setattr__(changed, name, value)
        return changed

    def view(
        self, model: Classifier | None, *, generator: torch.Generator, validation: LabeledData | None = None
    ) -> PoolView:
        """Return what a sampler may see, with a model fitted on the labels bought so far.

        Args:
            model: fitted; None where nothing can be fitted yet, and the features are the inputs.
            generator: of the round.
            validation: labeled rows beside the pool, for samplers that look at a score on them.
        """
        if validation is not None and is_sparse(validation.inputs):
            validation = validation._replace(inputs=as_inputs(validation.inputs))
        return PoolView(
            labeled=self.labeled.clone(),
            candidates=self.candidates.clone(),  # what a sampler does to its view must not reach the pool
            targets=self.targets.clone(),
            inputs=self.inputs,
            n_classes=self.n_classes,
            generator_state=generator.clone_state(),
            model=model,
            validation=validation,
            is_cold=model is None,
        )


def _check_not_infinite(inputs: Tensor) -> None:
    """Require that no value is infinite; one that is missing (NaN) is for the model to say something of."""
    if not inputs.numel() or bool(torch.isfinite(torch.stack(inputs.aminmax())).all()):
        return
    infinite = torch.isinf(inputs).flatten(1).any(1)
    n_bad = int(infinite.sum())
    if n_bad:
        first = int(infinite.nonzero()[0])
        raise DataError(f"inputs must be finite: {n_bad} of {len(inputs)} rows are not, the first is row {first}")
