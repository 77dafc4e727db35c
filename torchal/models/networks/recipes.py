"""What a network is trained by: settings, and the optimizer, loss and schedule that their recipes make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchal._checks import check_flag, check_whole
from torchal.embedding.precision import Precision, check_precision, dtype_of
from torchal.errors import ConfigError, ShapeError
from torchal.models.base import as_alone
from torchal.models.networks.callbacks import Callback

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # fused on the CPU and on CUDA since torch 2.6


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; what each means is said in `TorchClassifier`."""

    optimizer: Callable[..., Optimizer]
    loss: Callable[..., Loss]
    scheduler: Callable[..., Any] | None
    scheduler_step: Literal["epoch", "batch"]
    epochs: int
    batch_size: int
    max_grad_norm: float | None
    patience: int | None
    augment: Callable[[Any], Any] | None
    cast_inputs: bool
    precision: Precision
    channels_last: bool
    compile: bool | Mapping[str, Any]
    deterministic: bool
    num_workers: int | None
    callbacks: Sequence[Callback]

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check_whole(name, getattr(self, name), least=1)
        for name in ("cast_inputs", "channels_last", "deterministic"):
            check_flag(name, getattr(self, name))
        if self.patience is not None:
            check_whole("patience", self.patience, least=1)
        if self.num_workers is not None:
            check_whole("num_workers", self.num_workers, least=0)
        norm = self.max_grad_norm
        if norm is not None and not (isinstance(norm, Real) and float(norm) > 0):
            raise ConfigError(f"max_grad_norm must be above 0, got {norm!r}")
        if self.scheduler_step not in ("epoch", "batch"):
            raise ConfigError(f"scheduler_step must be 'epoch' or 'batch', got {self.scheduler_step!r}")
        check_precision(self.precision)
        if not isinstance(self.compile, bool | Mapping):
            raise ConfigError(f"compile must be true, false or the arguments of torch.compile, got {self.compile!r}")
        for name in ("optimizer", "loss"):
            value = getattr(self, name)
            if not callable(value) or isinstance(value, nn.Module | Optimizer):
                raise ConfigError(f"{name} must be a recipe: a class, a function or a functools.partial; got {value!r}")
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise ConfigError(f"callbacks must be torchal.models.Callback objects, got {callback!r}")


def call_recipe(recipe: Callable[..., Any], *arguments: Any, known: Mapping[str, Any]) -> Any:
    """Call a recipe with those of the known values that it names and that no partial has bound."""
    return recipe(*arguments, **{name: value for name, value in known.items() if asks_for(recipe, name)})


def asks_for(recipe: Callable[..., Any], name: str) -> bool:
    """Tell whether a recipe names an argument, and no partial has bound it."""
    bound = recipe.keywords if isinstance(recipe, functools.partial) else {}
    return name in inspect.signature(recipe).parameters and name not in bound


def check_logits(logits: Tensor, n_classes: int) -> None:
    """Require logits (n, C)."""
    if logits.ndim != 2 or logits.shape[1] != n_classes:
        raise ShapeError(f"the module must answer with logits (n, {n_classes}), got shape {tuple(logits.shape)}")


def maker_of(recipe: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a recipe calls."""
    return recipe.func if isinstance(recipe, functools.partial) else recipe


def make_criterion(settings: TrainingSettings, device: torch.device) -> Loss:
    """Make the loss, with its own tensors on the device in the right dtype."""
    criterion = settings.loss(reduction="none")
    return criterion.to(device, dtype_of(settings.precision)) if isinstance(criterion, nn.Module) else criterion


def make_scheduler(settings: TrainingSettings, optimizer: Optimizer, n_batches: int) -> Any:
    """Make the schedule, told the number of its steps; None without."""
    if settings.scheduler is None:
        return None
    by_batch = settings.scheduler_step == "batch"
    steps = settings.epochs * (n_batches if by_batch else 1)
    scheduler = call_recipe(settings.scheduler, optimizer, known={"total_steps": steps, "T_max": steps})
    if by_batch and isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(f"{type(scheduler).__name__} looks at an epoch's loss: scheduler_step must be 'epoch'")
    return scheduler


def check_losses(losses: Tensor, n: int) -> None:
    """Require one loss for each of n rows."""
    if losses.shape != (n,):
        raise ShapeError(f"the loss must answer with one value per row, ({n},), got {tuple(losses.shape)}")


def relative_weights(weights: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return weights (..., n) scaled to mean 1 over the rows."""
    return None if weights is None else (weights / weights.mean(-1, keepdim=True)).to(dtype)


def make_optimizer(recipe: Callable[..., Optimizer], module: nn.Module) -> Optimizer:
    """Make the optimizer, in its fused form where torch has one and nothing else was asked for."""
    maker = maker_of(recipe)
    bound = recipe.keywords if isinstance(recipe, functools.partial) else {}
    parameters = list(module.parameters())
    if any(nn.parameter.is_lazy(p) for p in parameters):
        raise ConfigError(
            f"{type(module).__name__} has weights whose shape only a first pass tells: have module= run a row of zeros"
        )
    if not any(p.requires_grad for p in parameters):
        raise ConfigError(f"the network has no parameters to train: {type(module).__name__}")
    fused = (
        maker in _FUSED
        and not bound.keys() & {"fused", "foreach", "differentiable", "capturable"}
        and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
        and not any(getattr(layer, "sparse", False) for layer in module.modules())
    )
    optimizer = recipe(parameters, fused=True) if fused else recipe(parameters)
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{type(optimizer).__name__} asks for the loss several times a step; minibatches give it once"
        )
    return optimizer


def batch_sizes(n: int, batch_size: int, module: nn.Module) -> list[int]:
    """Return the sizes of an epoch's batches. Batch normalization cannot train on a last batch of one row."""
    sizes = [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)
    if (
        len(sizes) > 1
        and sizes[-1] == 1
        and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    ):
        sizes[-2:] = [batch_size + 1]
    return sizes


@contextmanager
def training_context(device: torch.device, settings: TrainingSettings) -> Iterator[None]:
    """Train with gradients whatever the caller's modes, by the kernels that the settings ask for."""
    with as_alone(device), torch.enable_grad(), _kernels(device, deterministic=settings.deterministic):
        yield


@contextmanager
def _kernels(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Have cuDNN use kernels that give the same answer each time, or those that it finds to be the fastest."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
