"""The embedding that a forward pass leaves behind."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchal.errors import CapabilityError, ConfigError

_COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module's layers


@contextmanager
def capture(module: nn.Module, layer: str | None = None) -> Iterator[Callable[[], Tensor]]:
    """Let every forward pass of a module leave its embedding behind.

    While the context is open, the function that it gives returns the embedding of the last pass, (n, D): what came out
    of the layer, flattened from axis 1; where the layer ran several times, the last one counts. It is part of the
    pass's graph if there is one. Compiled code would pass by the layer unseen, so that a module of `torch.compile` runs
    uncompiled meanwhile.

    Args:
        module: any module.
        layer: the layer's name, as in `module.named_modules()`. Unless given, it is the module's attribute
            `embedding_layer` if that is a name; else the embedding is what goes into the last nn.Linear that ran.

    Returns:
        A function without arguments that returns (n, D). It raises CapabilityError if the layer did not run in the last
        pass, or gave something else than a tensor.

    Raises:
        ConfigError: the module has no layer of this name.
        CapabilityError: no layer is named, and the module has no nn.Linear.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> with capture(net) as embedding:
        ...     logits = net(torch.ones(5, 4))
        ...     print(embedding().shape, logits.shape)
        torch.Size([5, 3]) torch.Size([5, 2])
    """
    name = layer_name(module, layer)
    watched = f"the layer {name!r}" if name is not None else "an nn.Linear"
    seen: Tensor | type | None = None
    version: int | None = None

    def forget(*_: object) -> None:
        nonlocal seen
        seen = None

    def leave(value: object) -> None:
        nonlocal seen, version
        seen = value if isinstance(value, Tensor) and value.ndim else type(value)
        version = _version(value)

    def came_out(_: nn.Module, __: Any, output: Any) -> None:
        # A copy, since many networks go on in place: `out = bn(x); out += shortcut; relu_(out)`.
        leave(output.clone() if isinstance(output, Tensor) else output)

    def went_in(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leave(args[0] if args else kwargs.get("input"))

    def embedding() -> Tensor:
        if seen is None:
            raise CapabilityError(
                f"{watched} of {type(module).__name__} did not run in its last pass; name one that does"
            )
        if not isinstance(seen, Tensor):
            raise CapabilityError(
                f"{watched} of {type(module).__name__} must give a tensor of rows, got {seen.__name__}"
            )
        if version != _version(seen):
            raise CapabilityError(
                f"what went into the last nn.Linear of {type(module).__name__} was changed in place since; name a layer"
            )
        return seen.flatten(1) if seen.ndim > 1 else seen[:, None]

    with ExitStack() as stack:
        stack.callback(forget)
        stack.callback(module.register_forward_pre_hook(forget, prepend=True).remove)
        if name is not None:
            stack.callback(_layers(module)[name].register_forward_hook(came_out).remove)
        else:
            for one in module.modules():
                if isinstance(one, nn.Linear):
                    stack.callback(one.register_forward_pre_hook(went_in, with_kwargs=True).remove)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import would take a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield embedding


def has_embedding(module: nn.Module, layer: str | None) -> bool:
    """Tell whether a network has a layer to take the embedding from."""
    named = layer is not None or isinstance(getattr(module, "embedding_layer", None), str)
    return named or any(isinstance(one, nn.Linear) for one in module.modules())


def layer_name(module: nn.Module, layer: str | None) -> str | None:
    """Return the name of the layer whose output is wanted; None for the input of the last nn.Linear."""
    if layer is None:
        named = getattr(module, "embedding_layer", None)
        layer = named if isinstance(named, str) else None
    if layer is None:
        if not any(isinstance(one, nn.Linear) for one in module.modules()):
            raise CapabilityError(
                f"{type(module).__name__} has no nn.Linear whose input could be the embedding; name a layer"
            )
        return None
    layers = _layers(module)
    name = str(layer).removeprefix(_COMPILED)
    if name not in layers:
        close = difflib.get_close_matches(name, layers)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ConfigError(f"{type(module).__name__} has no layer {layer!r} among its {len(layers) - 1} layers{hint}")
    return name


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    named = module.named_modules(remove_duplicate=False)
    return {name.removeprefix(_COMPILED): one for name, one in named}


def _version(value: object) -> int | None:
    """Return a number that in-place changes of a tensor raise; inference tensors do not count them."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None
