"""The last linear layer of a network, by itself: what its logits are of its embedding."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchal.errors import CapabilityError
from torchal.protocols import LastLayer


@contextmanager
def last_linear(module: nn.Module) -> Iterator[Callable[[], LinearPass]]:
    """While open, know which nn.Linear of a module ran last: call what this gives, after a forward pass.

    Compiled parts run uncompiled meanwhile, or they would pass by unseen.
    """
    ran: list[LinearPass] = []

    def note(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        del output
        assert isinstance(layer, nn.Linear)
        ran[:] = [LinearPass(layer, args[0] if args else kwargs["input"])]

    with ExitStack() as stack:
        for one in module.modules():
            if isinstance(one, nn.Linear):
                stack.callback(one.register_forward_hook(note, with_kwargs=True).remove)
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield lambda: ran[0] if ran else LinearPass(None, None)


class LinearPass(NamedTuple):
    """A layer that ran, and what went into it; None where none ran."""

    layer: nn.Linear | None
    features: Tensor | None


def linear_head(
    layer: nn.Linear | None, features: Tensor | None, logits: Tensor, *, name: str, mixed: bool
) -> LastLayer:
    """Return weight and bias of the layer that ran last, which makes logits (n, C) of features (n, D).

    Args:
        layer: an nn.Linear, if any ran.
        features: of some rows.
        logits: of these rows.
        name: of the network.
        mixed: whether it ran in a dtype of half the precision.

    Raises:
        CapabilityError: it makes other logits.
    """
    what = f"the logits of {name} are not linear in its embedding"
    wanted = logits.shape[1], "D" if features is None else features.shape[-1]
    if layer is None or features is None or features.ndim != 2 or layer.weight.shape != wanted:
        found = "none ran" if layer is None else f"the last that ran is {tuple(layer.weight.shape)}"
        raise CapabilityError(f"{what}: an nn.Linear of {wanted} weights is needed, {found}")
    weight = layer.weight.detach().to(logits.dtype)
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().to(logits.dtype)
    off = float((features @ weight.T + bias - logits).abs().max())
    size = float(features.abs().max() * weight.abs().sum(1).max() + bias.abs().max())
    if off > math.sqrt(torch.finfo(logits.dtype).eps) * (100 if mixed else 1) * size:
        raise CapabilityError(f"{what}: the last nn.Linear makes logits that are up to {off:.3g} off")
    return LastLayer(weight, bias)
