"""Labels that were bought, and the rows that have them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchal._checks import as_integers, as_rows, check_finite
from torchal.errors import DataError, ShapeError
from torchal.pool.inputs import checked_inputs, gather
from torchal.protocols import Inputs


class LabeledData(NamedTuple):
    """Inputs with all their labels: a validation or a test part.

    Shapes:
        inputs: (M, ...).
        targets: (M,) int64.
    """

    inputs: Inputs
    targets: Tensor


def buy(rows: object, labels: object, targets: Tensor, labeled: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return copies of targets and labeled with these labels in them."""
    rows = as_rows("rows", rows, n_rows=len(targets), device=targets.device)
    labels = as_labels(labels, n=len(rows), n_classes=n_classes, device=targets.device)
    again = rows[labeled[rows]]
    if len(again):
        raise DataError(f"{len(again)} of {len(rows)} rows are labeled already, the first is row {int(again[0])}")
    targets, labeled = targets.clone(), labeled.clone()
    targets[rows], labeled[rows] = labels, True
    return targets, labeled


def training_data(inputs: Inputs, targets: Tensor, labeled: Tensor) -> tuple[Any, Tensor]:
    """Return the labeled rows, in ascending order, and their labels (L,)."""
    rows = labeled.nonzero().squeeze(1)
    return gather(inputs, rows), targets[rows]


def as_labels(labels: object, *, n: int, n_classes: int, device: torch.device) -> Tensor:
    """Return labels as (n,) int64 on `device`, each in [0, n_classes).

    Raises:
        ShapeError: there are not n labels, or they are not whole numbers.
        DataError: a label is not in [0, n_classes).
    """
    tensor = as_integers("labels", labels).to(device)
    if len(tensor) != n:
        raise ShapeError(f"labels must be ({n},) integers, got shape {tuple(tensor.shape)}")
    check_labels(tensor, n_classes)
    return tensor


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Require labels in [0, n_classes)."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise DataError(f"labels must lie in [0, {n_classes}), got {int(labels.min())} to {int(labels.max())}")


def checked_part(name: str, part: LabeledData | None, n_classes: int) -> LabeledData | None:
    """Return a part as tensors, after checking that it can be scored; None where there is none.

    Raises:
        DataError: it is empty or not finite, has not one label for each row, or a label outside [0, n_classes).
    """
    if part is None:
        return None
    inputs = checked_inputs(f"the {name} inputs", part[0])
    device = inputs.device if isinstance(inputs, Tensor) else torch.device("cpu")
    if len(inputs) == 0 or len(inputs) != len(part[1]):
        raise DataError(f"the {name} part has {len(inputs)} inputs and {len(part[1])} targets")
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        check_finite(f"the {name} inputs", inputs)
    return LabeledData(inputs, as_labels(part[1], n=len(inputs), n_classes=n_classes, device=device))
