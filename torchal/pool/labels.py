"""Labels that were bought, and the rows that have them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchal.errors import DataError
from torchal.pool.classes import Classes
from torchal.pool.inputs import checked_inputs, gather
from torchal.protocols import UNLABELED, Inputs


class LabeledData(NamedTuple):
    """Inputs with all their labels: a validation or a test part.

    Shapes:
        inputs: (M, ...).
        targets: (M,) int64; what is given to a learner may be a list of the pool's own labels.
    """

    inputs: Inputs
    targets: Tensor


def buy(rows: Tensor, codes: Tensor, targets: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of targets and labeled with these labels in them: rows (n,), numbers of their classes (n,).

    Raises:
        DataError: a row is labeled already.
    """
    again = rows[labeled[rows]]
    if len(again):
        raise DataError(f"{len(again)} of {len(rows)} rows are labeled already, the first is row {int(again[0])}")
    targets, labeled = targets.clone(), labeled.clone()
    targets[rows], labeled[rows] = codes.to(targets.device), True
    return targets, labeled


def training_data(inputs: Inputs, targets: Tensor, labeled: Tensor) -> tuple[Any, Tensor]:
    """Return the labeled rows, in ascending order, and their labels (L,)."""
    rows = labeled.nonzero().squeeze(1)
    return gather(inputs, rows), targets[rows]


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Require labels in [0, n_classes)."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise DataError(f"labels must lie in [0, {n_classes}), got {int(labels.min())} to {int(labels.max())}")


def checked_part(name: str, part: LabeledData | None, classes: Classes) -> tuple[LabeledData | None, Classes]:
    """Return a part as tensors, after checking that it can be scored, and the classes, which may be more now.

    Raises:
        DataError: it is empty, has not one label for each row, or a label that is missing or none of the classes.
    """
    if part is None:
        return None, classes
    inputs = checked_inputs(f"the {name} inputs", part[0])
    device = inputs.device if isinstance(inputs, Tensor) else torch.device("cpu")
    if len(inputs) == 0 or len(inputs) != len(part[1]):
        raise DataError(f"the {name} part has {len(inputs)} inputs and {len(part[1])} targets")
    codes, classes = classes.encode(part[1], n=len(inputs))
    n_missing = int((codes == UNLABELED).sum())
    if n_missing:
        raise DataError(f"{n_missing} of {len(codes)} targets of the {name} part are missing")
    return LabeledData(inputs, codes.to(device)), classes
