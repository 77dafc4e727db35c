"""What numpy does several times faster than torch on a CPU; on other devices it is torch's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def where_true(mask: Tensor) -> Tensor:
    """Return where a mask is true, (n,) int64, counted through its rows."""
    if mask.device.type == "cpu":  # four times faster where little is true
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest values of each row (R, B), and their columns, (R, k) both, in any order."""
    if values.device.type == "cpu" and k < values.shape[1]:  # three times faster
        columns = torch.from_numpy(np.argpartition(values.numpy(), k - 1, axis=1)[:, :k])
        return values.gather(1, columns), columns
    best = values.topk(k, largest=False, sorted=False)
    return best.values, best.indices


def smallest_values(values: Tensor, k: int) -> Tensor:
    """Return a copy of the k smallest values of each row (R, B), in any order; the values themselves may be moved."""
    if values.shape[1] <= k:
        return values.clone()
    if values.device.type == "cpu":  # twice as fast
        values.numpy().partition(k - 1, axis=1)
        return values[:, :k].clone()
    return values.topk(k, largest=False, sorted=False).values
