"""Many networks of one architecture trained at once, with their weights stacked."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from torchal.errors import DivergenceError
from torchal.models.base import TrainingData, as_alone
from torchal.models.training import (
    Curves,
    TrainingSettings,
    batch_sizes,
    call_recipe,
    check_logits,
    make_optimizer,
)
from torchal.precision import dtype_of

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
_SCHEDULES_OF_THE_LOSS = torch.optim.lr_scheduler.ReduceLROnPlateau
_CONVOLUTIONS = nn.modules.conv._ConvNd
_MOST_WORK_ON_A_CPU = 2**21  # weights times rows in a batch; with more, the arithmetic and not the calls take the time


def can_train_together(module: nn.Module, data: Sequence[TrainingData], settings: TrainingSettings) -> bool:
    """Tell whether training copies of a module together gives what each would get alone, and faster."""
    first = data[0]
    plain = (
        not settings.callbacks
        and settings.patience is None
        and settings.augment is None
        and not settings.compile
        and settings.precision in ("fp32", "fp64")
    )
    if len(data) < 2 or not plain or not _are_alike(data) or not _is_worth_it(module, first, settings):
        return False
    optimizer = make_optimizer(settings.optimizer, module)
    if type(optimizer) not in _EACH_NUMBER_BY_ITSELF:
        return False
    if settings.scheduler is not None:
        scheduler = call_recipe(settings.scheduler, optimizer, known={"total_steps": 1, "T_max": 1})
        if isinstance(scheduler, _SCHEDULES_OF_THE_LOSS):
            return False
    return _can_be_stacked(module, first, settings)


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
    if data.codes.device.type != "cpu":
        return True
    if any(isinstance(layer, _CONVOLUTIONS) for layer in module.modules()):
        return False  # stacked weights make grouped convolutions, which are no faster on a CPU
    work = sum(p.numel() for p in module.parameters()) * min(settings.batch_size, len(data.codes))
    return work <= _MOST_WORK_ON_A_CPU


def _can_be_stacked(module: nn.Module, data: TrainingData, settings: TrainingSettings) -> bool:
    """Tell whether `torch.func` takes the module: only trying tells, on two rows and copies of everything."""
    devices = [] if data.codes.device.type == "cpu" else [data.codes.device]
    rows = data.inputs[:2].to(dtype_of(settings.precision)) if settings.cast_inputs else data.inputs[:2]
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # where vmap has no rule for a layer, it says so and loops
        try:
            stack = _Stack([copy.deepcopy(module), copy.deepcopy(module)], same_masks=True)
            stack.run(torch.stack([rows, rows])).sum().backward()
        except (RuntimeError, ValueError, AttributeError, TypeError, UserWarning):
            return False  # trained one by one, what is wrong with it, if anything is, is said in its own words
    return True


def train_together(
    modules: Sequence[nn.Module], data: Sequence[TrainingData], settings: TrainingSettings, seeds: Sequence[int]
) -> list[Curves]:
    """Train T modules in place, each on its data; return what became of each epoch.

    Modules of the same seed get the same dropout masks, as they would alone.

    Raises:
        DivergenceError: a loss is not finite.
    """
    with as_alone(data[0].codes.device), torch.enable_grad():
        return _train_together(modules, data, settings, seeds)


def _train_together(
    modules: Sequence[nn.Module], data: Sequence[TrainingData], settings: TrainingSettings, seeds: Sequence[int]
) -> list[Curves]:
    n, device = len(data[0].codes), data[0].codes.device
    batches = _StackedRows(data, seeds, dtype_of(settings.precision), cast=settings.cast_inputs)
    stack = _Stack(modules, same_masks=len(set(seeds)) == 1)
    sizes = batch_sizes(n, settings.batch_size, modules[0])
    criterion = settings.loss(reduction="none")
    optimizer = make_optimizer(settings.optimizer, stack)
    scheduler = None
    if settings.scheduler is not None:
        steps = settings.epochs * (len(sizes) if settings.scheduler_step == "batch" else 1)
        scheduler = call_recipe(settings.scheduler, optimizer, known={"total_steps": steps, "T_max": steps})
    history = torch.empty(settings.epochs, len(sizes), len(data), dtype=torch.float64, device=device)
    for epoch in range(settings.epochs):
        batches.shuffle(shuffled=len(sizes) > 1)
        for batch, (stop, size) in enumerate(zip(accumulate(sizes), sizes, strict=True)):
            x, y, w = batches.take(stop - size, stop)
            optimizer.zero_grad()
            logits = stack.run(x).flatten(0, 1)
            check_logits(logits, data[0].n_classes)
            row_losses = criterion(logits, y.flatten()).view(y.shape)
            losses = (row_losses if w is None else row_losses * w).mean(1)
            losses.sum().backward()
            if settings.max_grad_norm is not None:
                stack.clip_gradients(settings.max_grad_norm)
            optimizer.step()
            history[epoch, batch] = losses.detach()
            if scheduler is not None and settings.scheduler_step == "batch":
                scheduler.step()
        _check_finite(history[epoch], epoch, settings.epochs)
        if scheduler is not None and settings.scheduler_step == "epoch":
            scheduler.step()
    stack.write_back(modules)
    return [Curves(curve, None, None) for curve in history.mean(1).T.tolist()]


class _StackedRows:
    """The rows of T data sets; those of one batch are one gather."""

    def __init__(self, data: Sequence[TrainingData], seeds: Sequence[int], dtype: torch.dtype, *, cast: bool) -> None:
        first = data[0]
        self._n = len(first.codes)
        shared = all(one.inputs is first.inputs for one in data)
        inputs = first.inputs if shared else torch.cat([one.inputs for one in data])
        self._inputs = inputs.to(dtype) if cast else inputs
        self._codes = torch.stack([one.codes for one in data])
        self._weights: Tensor | None = None
        if first.weights is not None:
            weights = torch.stack([one.weights for one in data if one.weights is not None])
            self._weights = (weights / weights.mean(1, keepdim=True)).to(dtype)
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
        parameters, self._stacked_buffers = stack_module_state(list(modules))
        self._names = list(parameters)
        self._values = nn.ParameterList(nn.Parameter(p.detach(), p.requires_grad) for p in parameters.values())
        # in a list, so that it is no submodule: it holds no numbers
        self._skeleton = [copy.deepcopy(modules[0]).to("meta").train()]
        self._vmapped = vmap(self._run_one, randomness="same" if same_masks else "different")

    def _run_one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Any:
        return functional_call(self._skeleton[0], (parameters, buffers), (x,))

    def run(self, x: Tensor) -> Tensor:
        """Return logits (T, b, C) of inputs (T, b, ...)."""
        logits: Tensor = self._vmapped(dict(zip(self._names, self._values, strict=True)), self._stacked_buffers, x)
        return logits

    def clip_gradients(self, most: float) -> None:
        """Scale each network's gradients down to a norm."""
        gradients = [p.grad for p in self._values if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factors = (most / (norms + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for g in gradients:
            g.mul_(factors.view(-1, *[1] * (g.ndim - 1)))

    @torch.no_grad()
    def write_back(self, modules: Sequence[nn.Module]) -> None:
        """Put the trained numbers into the networks that they are of."""
        stacked = dict(zip(self._names, self._values, strict=True)) | self._stacked_buffers
        for i, module in enumerate(modules):
            own = dict(module.named_parameters()) | dict(module.named_buffers())
            for name, values in stacked.items():
                own[name].copy_(values[i])


def _check_finite(losses: Tensor, epoch: int, epochs: int) -> None:
    """Require finite losses (batches, T)."""
    finite = torch.isfinite(losses)
    if bool(finite.all()):
        return
    batch, which = (~finite).nonzero()[0].tolist()
    raise DivergenceError(
        f"data set {which + 1} of {losses.shape[1]}: the loss is {float(losses[batch, which])} in epoch {epoch + 1} of "
        f"{epochs}, batch {batch + 1} of {len(losses)}; try a lower learning rate or smaller inputs"
    )
