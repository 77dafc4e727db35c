"""Laplace's approximation at the last linear layer of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from torchal._batch import Rows
from torchal._chunks import Chunker
from torchal.models.laplace import LaplaceFit, LastLayerGaussian, check_size
from torchal.models.networks.head import last_linear, linear_head


def fit_laplace(
    network: Callable[[Any], Tensor],
    module: nn.Module,
    batches: Iterable[Rows],
    weights: Tensor | None,
    *,
    prior: float,
    mixed: bool,
) -> LastLayerGaussian:
    """Return the Gaussian at the last layer of a trained network, given the rows it was trained on.

    Args:
        network: makes logits (n, C) of rows, by the module.
        module: the network itself, in evaluation mode.
        batches: the rows, (b, ...) each.
        weights: of all rows, (n,) float64; 1 each unless given.
        prior: precision of the prior of each weight.
        mixed: whether the network runs in a dtype of half the precision.

    Raises:
        CapabilityError: the logits are not what the last nn.Linear makes of its input.
    """
    fit: LaplaceFit | None = None
    chunker, start = Chunker(smallest=1), 0
    parts: list[Tensor] = []
    with last_linear(module) as ran:

        def embed(rows: Rows, first: int, last: int) -> None:
            nonlocal fit
            logits = network(rows[first:last])
            layer, features = ran()
            features = None if features is None else features.to(logits.dtype)
            if fit is None:
                head = linear_head(layer, features, logits, name=type(module).__name__, mixed=mixed)
                has_bias = layer is not None and layer.bias is not None
                fit = LaplaceFit(head.weight, head.bias if has_bias else None, prior=prior)
            assert features is not None
            parts.append(features)

        for rows in batches:
            chunker(len(rows), len(rows), partial(embed, rows))
            assert fit is not None
            for features in parts:
                fit.add(features, None if weights is None else weights[start : start + len(features)])
                start += len(features)
            parts.clear()
    assert fit is not None
    return fit.gaussian()


def check_laplace(network: Callable[[Any], Tensor], module: nn.Module, rows: Rows, *, mixed: bool) -> None:
    """Require a network for which there is such a Gaussian, trained or not.

    Args:
        network: makes logits (n, C) of rows, by the module.
        module: the network itself, in evaluation mode.
        rows: (n, ...), some to run it on.
        mixed: whether it runs in a dtype of half the precision.

    Raises:
        CapabilityError: the logits are not what the last nn.Linear makes of its input, or that layer is too large.
    """
    with last_linear(module) as ran:
        logits = network(rows)
        layer, features = ran()
    features = None if features is None else features.to(logits.dtype)
    check_size(linear_head(layer, features, logits, name=type(module).__name__, mixed=mixed).weight)


@contextmanager
def laplace_draws(
    network: Callable[[Any], Tensor], module: nn.Module, gaussian: LastLayerGaussian, weights: Tensor
) -> Iterator[Callable[[Any], Tensor]]:
    """While open, make logits (n, K, C) of rows (n, ...) under weights (K, C, E) of the last layer."""
    with last_linear(module) as ran:

        def draw(rows: Rows) -> Tensor:
            network(rows)
            features = ran().features
            assert features is not None
            return gaussian.logits(features.to(weights.dtype), weights)

        yield draw
