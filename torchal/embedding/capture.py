"""The embedding that a forward pass leaves behind."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torchal._batch import logits_in
from torchal.errors import CapabilityError, ConfigError

_COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module's layers


@contextmanager
def capture(module: nn.Module, layer: str | None = None) -> Iterator[Captured]:
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
        pass, or gave something else than a tensor; or if no layer is named, and what the last nn.Linear gave has
        another shape than what the module gave, so that it is not its head.

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
    watched = Captured(module, layer_name(module, layer))
    with ExitStack() as stack:
        stack.callback(watched.forget)
        stack.callback(module.register_forward_pre_hook(watched.forget, prepend=True).remove)
        stack.callback(module.register_forward_hook(watched.ended).remove)
        if watched.name is not None:
            stack.callback(_layers(module)[watched.name].register_forward_hook(watched.came_out).remove)
        else:
            for one in module.modules():
                if isinstance(one, nn.Linear):
                    stack.callback(one.register_forward_hook(watched.went_in, with_kwargs=True).remove)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import would take a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield watched


class Captured:
    """What the last forward pass left behind: call it for the embedding, (n, D)."""

    def __init__(self, module: nn.Module, name: str | None) -> None:
        self.name = name
        self._module = type(module).__name__
        self._seen: Tensor | type | None = None
        self._version: int | None = None
        self._head = self._answer = torch.Size()  # shapes of what the last nn.Linear and the network gave

    def __call__(self) -> Tensor:
        """Return the embedding of the last pass.

        Raises:
            CapabilityError: there is none.
        """
        problem = self._problem()
        if problem or not isinstance(self._seen, Tensor):
            raise CapabilityError(problem)
        return self._seen.flatten(1) if self._seen.ndim > 1 else self._seen[:, None]

    def is_there(self) -> bool:
        """Tell whether the last pass left an embedding."""
        return not self._problem()

    def forget(self, *_: object) -> None:
        """Hold nothing of an earlier pass."""
        self._seen = None

    def came_out(self, _: nn.Module, __: Any, output: Any) -> None:
        """Take the output of the named layer."""
        # A copy, since many networks go on in place: `out = bn(x); out += shortcut; relu_(out)`.
        self._take(output.clone() if isinstance(output, Tensor) else output)

    def went_in(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Take the input of an nn.Linear."""
        self._take(args[0] if args else kwargs.get("input"))
        self._head = output.shape

    def ended(self, _: nn.Module, __: Any, output: Any) -> None:
        """Take the shape of the network's answer."""
        logits = logits_in(output)
        self._answer = self._head if logits is None else logits.shape

    def _take(self, value: object) -> None:
        self._seen = value if isinstance(value, Tensor) and value.ndim else type(value)
        self._version = _version(value)

    def _problem(self) -> str:
        what = f"the layer {self.name!r}" if self.name is not None else "an nn.Linear"
        if self._seen is None:
            return f"{what} of {self._module} did not run in its last pass; name one that does"
        if not isinstance(self._seen, Tensor):
            return f"{what} of {self._module} must give a tensor of rows, got {self._seen.__name__}"
        if self._version != _version(self._seen):
            return f"what went into the last nn.Linear of {self._module} was changed in place since; name a layer"
        if self.name is None and self._head != self._answer:
            shapes = f"it gave {tuple(self._head)} and the network {tuple(self._answer)}"
            return f"the last nn.Linear of {self._module} that ran is not its head: {shapes}; name a layer"
        return ""


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
