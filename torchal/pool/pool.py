"""The pool: all rows and the labels bought so far.

There is one index space. Every mask and every answer counts the N rows of the pool, labeled or not, and nothing is
translated. A label that was not bought is nowhere in here.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import torch
from torch import Tensor

from torchal._checks import as_integers, as_mask, as_rows, check_finite
from torchal.errors import DataError, ShapeError
from torchal.pool.inputs import SparseInputs, as_inputs, checked_inputs, is_sparse
from torchal.pool.labels import LabeledData, buy, check_labels, training_data
from torchal.pool.view import PoolView
from torchal.protocols import UNLABELED, Classifier, Inputs


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows, and the labels bought so far. Immutable: buying labels gives a new pool.

    Args:
        inputs: N rows; a tensor, a NumPy array, a sparse matrix of SciPy or torch (see `torchal.data.SparseInputs`), or
            anything with a length that is indexed by row numbers.
        targets: labels where they were bought, `UNLABELED` (-1) elsewhere.
        labeled: where labels were bought; where `targets` has one, unless given.
        n_classes: number of classes, at least 2, known before each has a label; unless given, the largest label plus 1.
        skipped: rows that cannot be labeled and are not asked again.
        source_rows: each row's number where the data came from; 0 to N - 1 unless given.

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
            check_finite("inputs", self.inputs)
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
    def unlabeled(cls, inputs: Inputs, *, n_classes: int, source_rows: Tensor | None = None) -> Pool:
        """Return a pool with no label bought yet.

        Shapes:
            inputs: (N, ...).
            source_rows: (N,) int64.
        """
        inputs = checked_inputs("inputs", inputs)
        device = inputs.device if isinstance(inputs, Tensor) else None
        targets = torch.full((len(inputs),), UNLABELED, device=device)
        return cls(inputs, targets, n_classes=n_classes, source_rows=source_rows)  # type: ignore[arg-type]

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

    def with_labels(self, rows: Tensor, labels: Tensor) -> Pool:
        """Return the pool with these labels bought.

        Shapes:
            rows: (n,) int64.
            labels: (n,) int64.

        Raises:
            DataError: a row is labeled already, or a label is not in [0, n_classes).
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        targets, labeled = buy(rows, labels, self.targets, self.labeled, self.n_classes)
        return self._changed(targets=targets, labeled=labeled, skipped=self.skipped & ~labeled)

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

    def training_data(self) -> tuple[Inputs, Tensor]:
        """Return the labeled rows, in ascending order, and their labels (L,)."""
        return training_data(self.inputs, self.targets, self.labeled)

    def fingerprint(self) -> str:
        """Return a digest of the pool's size and of up to 1 024 of its rows, to know it again."""
        n_rows, inputs = len(self), self.inputs
        digest = hashlib.sha256(f"{n_rows} {self.n_classes} {getattr(inputs, 'shape', None)}".encode())
        rows = torch.linspace(0, n_rows - 1, min(n_rows, 1024), dtype=torch.float64).long()
        if isinstance(inputs, Tensor):
            some = inputs[rows.to(inputs.device)].cpu().contiguous()
            digest.update(some.view(torch.uint8).numpy().tobytes() if some.ndim else b"")
        elif isinstance(inputs, SparseInputs):
            matrix = inputs[rows].matrix
            for part in (matrix.indptr.astype("int64"), matrix.indices.astype("int64"), matrix.data):
                digest.update(part.tobytes())
        return digest.hexdigest()[:16]

    def _changed(self, **changes: Tensor) -> Pool:
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

        Without one, where nothing can be fitted yet, the features are the inputs.
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
