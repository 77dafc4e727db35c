"""Many networks of one architecture trained at once, with their weights stacked."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.dropout import _DropoutNd
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from torchal._batch import logits_of
from torchal._checks import warn_of_probabilities
from torchal.embedding.batches import digest
from torchal.embedding.precision import dtype_of
from torchal.errors import DivergenceError
from torchal.models.base import TrainingData
from torchal.models.networks.recipes import (
    TrainingSettings,
    batch_sizes,
    check_logits,
    check_losses,
    make_criterion,
    make_optimizer,
    make_scheduler,
    maker_of,
    relative_weights,
    training_context,
)
from torchal.models.networks.training import Curves
from torchal.models.seeding import seeded

_EACH_NUMBER_BY_ITSELF = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.SGD,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
)
_CONVOLUTIONS = nn.modules.conv._ConvNd
_MOST_WORK_ON_A_CPU = 2**21  # weights times rows in a batch; with more, the arithmetic and not the calls take the time


def may_train_together(data: Sequence[TrainingData], settings: TrainingSettings) -> bool:
    """Tell whether data and settings allow training together, before any network is made."""
    plain = (
        not settings.callbacks
        and settings.augment is None
        and not settings.compile
        and settings.precision in ("fp32", "fp64")
        # a recipe of one's own may look at a parameter's shape, and stacked ones have another
        and maker_of(settings.optimizer) in _EACH_NUMBER_BY_ITSELF
        and _is_of_torch(settings.scheduler)
    )
    return len(data) > 1 and plain and _are_alike(data)


def _is_of_torch(scheduler: Callable[..., Any] | None) -> bool:
    """Tell whether a schedule is none, or a class that does not look at the loss."""
    maker = maker_of(scheduler) if scheduler is not None else LRScheduler
    return isinstance(maker, type) and issubclass(maker, LRScheduler) and not issubclass(maker, ReduceLROnPlateau)


def can_train_together(modules: Sequence[nn.Module], data: Sequence[TrainingData], settings: TrainingSettings) -> bool:
    """Tell whether networks, trained with stacked weights, get what each would get alone, and faster.

    Only a trial tells: two rows go through each network by itself and through the stack. Outputs and buffers must
    agree, and no network may have changed anything else in itself. On the CPU the dropout masks must agree too; CUDA
    draws others for a stack, so dropout is off in the trial there.
    """
    if not _is_worth_it(modules[0], data[0], settings):
        return False
    if any(has_gradient_hooks(module) for module in modules):
        return False  # they see one network's gradients
    device = data[0].codes.device
    rows = data[0].inputs[:2]
    rows = rows.to(dtype_of(settings.precision)) if settings.cast_inputs or rows.is_floating_point() else rows
    with training_context(device, settings):
        return _agree(modules, rows, data[0].n_classes, with_dropout=device.type == "cpu")


def _agree(modules: Sequence[nn.Module], rows: Tensor, n_classes: int, *, with_dropout: bool) -> bool:
    """Tell whether a stack of copies does to two rows what each network does by itself."""
    alone, stacked = ([copy.deepcopy(module).train() for module in modules] for _ in range(2))
    for module in (*alone, *stacked):
        for layer in module.modules():
            if isinstance(layer, _DropoutNd) and not with_dropout:
                layer.p = 0.0
    before = [_own_state(module) for module in alone]
    outputs = []
    for module in alone:
        with seeded(0, rows.device):
            logits = logits_of(module(rows))
        check_logits(logits, n_classes)
        warn_of_probabilities(logits, by=type(module).__name__)
        outputs.append(logits.detach())
    if [_own_state(module) for module in alone] != before:
        return False
    with seeded(0, rows.device):
        stack, together = _tried(stacked, rows)
    if stack is None or together is None or together.shape != torch.stack(outputs).shape:
        return False
    agrees = [torch.allclose(together, torch.stack(outputs), rtol=1e-4, atol=1e-5)]
    for name, values in stack.stacked_buffers.items():
        own = torch.stack([dict(module.named_buffers())[name] for module in alone])
        agrees.append(torch.allclose(values.double(), own.double(), rtol=1e-4, atol=1e-5))
    return all(agrees)


def has_gradient_hooks(module: nn.Module) -> bool:
    """Tell whether a parameter has a hook on its gradient."""
    return any(getattr(parameter, "_backward_hooks", None) for parameter in module.parameters())


def _tried(modules: Sequence[nn.Module], rows: Tensor) -> tuple[_Stack | None, Tensor | None]:
    """Return a stack and its outputs (T, 2, C), or None where `torch.func` does not take the module."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # where vmap has no rule for a layer, it says so and loops
        try:
            stack = _Stack(modules, same_masks=True)
            outputs = stack.run(rows.expand(len(modules), *rows.shape))
            outputs.sum().backward()
        except (RuntimeError, ValueError, AttributeError, TypeError, UserWarning):
            return None, None  # trained one by one, what is wrong with it, if anything is, is said in its own words
    return stack, outputs.detach()


def _own_state(module: nn.Module) -> list[str]:
    """Return digests of what layers keep beside parameters and buffers: counters, for instance."""
    return [
        digest({name: value for name, value in vars(layer).items() if name[0] != "_"}) for layer in module.modules()
    ]


def _are_alike(data: Sequence[TrainingData]) -> bool:
    first = data[0]
    return all(
        isinstance(one.inputs, Tensor)
        and one.inputs.device == one.codes.device == first.codes.device
        and one.inputs.shape == first.inputs.shape
        and one.inputs.dtype == first.inputs.dtype
        and one.n_classes == first.n_classes
        and (one.weights is None) == (first.weights is None)
        for one in data
    )


def _is_worth_it(module: nn.Module, data: TrainingData, settings: TrainingSettings) -> bool:
    if any(isinstance(layer, _CONVOLUTIONS) for layer in module.modules()):
        return False  # stacked weights make grouped convolutions, which are no faster on a CPU, and slower on an H100
    if data.codes.device.type != "cpu":
        return True
    work = sum(p.numel() for p in module.parameters()) * min(settings.batch_size, len(data.codes))
    return work <= _MOST_WORK_ON_A_CPU


def train_together(
    modules: Sequence[nn.Module], data: Sequence[TrainingData], settings: TrainingSettings, seeds: Sequence[int]
) -> list[Curves]:
    """Train T modules in place, each on its data; return what became of each epoch.

    Modules of the same seed get the same dropout masks, as they would alone.

    Raises:
        DivergenceError: a loss or a weight is not finite; the modules are as they were.
    """
    with training_context(data[0].codes.device, settings):
        stack = _Stack(modules, same_masks=len(set(seeds)) == 1)
        history = _train(stack, data, settings, seeds, batch_sizes(len(data[0].codes), settings.batch_size, modules[0]))
        stack.write_back(modules)
    return [Curves(curve, None, None) for curve in history.mean(1).T.tolist()]


def _train(
    stack: _Stack, data: Sequence[TrainingData], settings: TrainingSettings, seeds: Sequence[int], sizes: list[int]
) -> Tensor:
    """Run all epochs; return the losses of all batches, (epochs, batches, T)."""
    device, dtype = data[0].codes.device, dtype_of(settings.precision)
    batches = _StackedRows(data, seeds, dtype, cast=settings.cast_inputs)
    criterion = make_criterion(settings, device)
    optimizer = make_optimizer(settings.optimizer, stack)
    scheduler = make_scheduler(settings, optimizer, len(sizes))
    history = torch.empty(settings.epochs, len(sizes), len(data), dtype=torch.float64, device=device)
    for epoch in range(settings.epochs):
        batches.shuffle(shuffled=len(sizes) > 1)
        for batch, (stop, size) in enumerate(zip(accumulate(sizes), sizes, strict=True)):
            x, y, w = batches.take(stop - size, stop)
            optimizer.zero_grad()
            logits = stack.run(x).flatten(0, 1)
            check_logits(logits, data[0].n_classes)
            row_losses = criterion(logits, y.flatten())
            check_losses(row_losses, y.numel())
            row_losses = row_losses.view(y.shape)
            losses = (row_losses if w is None else row_losses * w).mean(1)
            losses.sum().backward()
            if settings.max_grad_norm is not None:
                stack.clip_gradients(settings.max_grad_norm)
            optimizer.step()
            history[epoch, batch] = losses.detach()
            if scheduler is not None and settings.scheduler_step == "batch":
                scheduler.step()
        _check_finite(history[epoch], stack, epoch, settings.epochs)
        if scheduler is not None and settings.scheduler_step == "epoch":
            scheduler.step()
    return history


class _StackedRows:
    """The rows of T data sets; those of one batch are one gather."""

    def __init__(self, data: Sequence[TrainingData], seeds: Sequence[int], dtype: torch.dtype, *, cast: bool) -> None:
        first = data[0]
        self._n = len(first.codes)
        shared = all(one.inputs is first.inputs for one in data)
        inputs = first.inputs if shared else torch.cat([one.inputs for one in data])
        self._inputs = inputs.to(dtype) if cast or inputs.is_floating_point() else inputs
        self._codes = torch.stack([one.codes for one in data])
        self._weights: Tensor | None = None
        if first.weights is not None:
            weights = torch.stack([one.weights for one in data if one.weights is not None])
            self._weights = relative_weights(weights, dtype)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        own = torch.arange(len(data), device=first.codes.device).unsqueeze(1) * self._n
        self._offsets = torch.zeros_like(own) if shared else own
        self.shuffle(shuffled=False)

    def shuffle(self, *, shuffled: bool) -> None:
        """Draw each data set's order of an epoch, as if it were alone."""
        n, device = self._n, self._codes.device
        if shuffled:  # drawn on the CPU: it is the same on every device
            orders = [torch.randperm(n, generator=one, device="cpu") for one in self._generators]
        else:
            orders = [torch.arange(n, device="cpu")] * len(self._generators)
        order = torch.stack(orders).to(device)
        self._rows = order + self._offsets
        self._shuffled_codes = self._codes.gather(1, order)
        self._shuffled_weights = None if self._weights is None else self._weights.gather(1, order)

    def take(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return inputs (T, b, ...), codes (T, b) and weights (T, b) of a batch."""
        weights = self._shuffled_weights
        return (
            self._inputs[self._rows[:, start:stop]],
            self._shuffled_codes[:, start:stop],
            None if weights is None else weights[:, start:stop],
        )


class _Stack(nn.Module):
    """T networks as one: each parameter and buffer with a leading axis T."""

    def __init__(self, modules: Sequence[nn.Module], *, same_masks: bool) -> None:
        super().__init__()
        parameters, self.stacked_buffers = stack_module_state(list(modules))
        self._names = list(parameters)
        self._values = nn.ParameterList(nn.Parameter(p.detach(), p.requires_grad) for p in parameters.values())
        # in a list, so that it is no submodule: it holds no numbers
        self._skeleton = [copy.deepcopy(modules[0]).to("meta").train()]
        self._vmapped = vmap(self._run_one, randomness="same" if same_masks else "different")

    def _run_one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return logits_of(functional_call(self._skeleton[0], (parameters, buffers), (x,)))

    def run(self, x: Tensor) -> Tensor:
        """Return logits (T, b, C) of inputs (T, b, ...)."""
        logits: Tensor = self._vmapped(dict(zip(self._names, self._values, strict=True)), self.stacked_buffers, x)
        return logits

    def overflown(self) -> Tensor:
        """Return which of the networks have weights that are not finite, (T,) bool."""
        finite = [torch.isfinite(p.detach().reshape(len(p), -1)).all(1) for p in self._values]
        return ~torch.stack(finite).all(0)

    def clip_gradients(self, most: float) -> None:
        """Scale each network's gradients down to a norm."""
        gradients = [p.grad for p in self._values if p.grad is not None]
        norms = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factors = (most / (norms + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for g in gradients:
            g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))

    @torch.no_grad()
    def write_back(self, modules: Sequence[nn.Module]) -> None:
        """Put the trained numbers into the networks that they are of."""
        stacked = dict(zip(self._names, self._values, strict=True)) | self.stacked_buffers
        for i, module in enumerate(modules):
            own = dict(module.named_parameters()) | dict(module.named_buffers())
            for name, values in stacked.items():
                own[name].copy_(values[i])


def _check_finite(losses: Tensor, stack: _Stack, epoch: int, epochs: int) -> None:
    """Require finite losses (batches, T) and weights."""
    finite, overflown = torch.isfinite(losses), stack.overflown()
    if bool(finite.all()) and not bool(overflown.any()):
        return
    where = f"epoch {epoch + 1} of {epochs}"
    if not bool(finite.all()):
        batch, which = (~finite).nonzero()[0].tolist()
        what = f"the loss is {float(losses[batch, which])} in {where}, batch {batch + 1} of {len(losses)}"
    else:
        which = int(overflown.nonzero()[0])
        what = f"the weights are not finite after {where}"
    raise DivergenceError(
        f"fit {which + 1} of {losses.shape[1]} made together: {what}; try a lower learning rate or smaller inputs"
    )
