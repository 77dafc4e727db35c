"""The training of a network by minibatches, and what may go wrong in it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torchal._batch import NamedRows, Rows, cast, run
from torchal._checks import warn_of_probabilities
from torchal._chunks import Chunker
from torchal.embedding.precision import autocast, dtype_of
from torchal.errors import ConfigError, DivergenceError
from torchal.models.base import TrainingData
from torchal.models.networks.callbacks import Epoch
from torchal.models.networks.loading import DeviceRows, LoadedRows
from torchal.models.networks.recipes import (
    TrainingSettings,
    batch_sizes,
    check_logits,
    check_losses,
    make_criterion,
    make_optimizer,
    make_scheduler,
    relative_weights,
    training_context,
)
from torchal.models.rows import rows_per_pass
from torchal.pool.inputs import read_rows


class Curves(NamedTuple):
    """What became of each epoch, (epochs,) each; the last two None without a validation part."""

    loss: list[float]
    validation_loss: list[float] | None
    validation_accuracy: list[float] | None


def train(
    module: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    seed: int,
    validation: TrainingData | None = None,
) -> Curves:
    """Train a module in place, in training mode.

    Raises:
        DivergenceError: the loss or the weights are not finite; the module has the weights of the last good epoch.
        ShapeError, DataError, ConfigError: see `TorchClassifier`.
    """
    with ExitStack() as stack:
        stack.enter_context(training_context(data.codes.device, settings))
        fit = _Fit(module, data, settings, seed, validation)
        for callback in settings.callbacks:
            stack.callback(callback.on_fit_end)
            callback.on_fit_start(epochs=settings.epochs, n_rows=len(data.codes))
        for number in range(1, settings.epochs + 1):
            if fit.epoch(number):
                break
        return fit.finish()


class _Fit:
    """One fit that is going on."""

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        settings: TrainingSettings,
        seed: int,
        validation: TrainingData | None,
    ) -> None:
        self.module, self.data, self.settings, self.validation = module, data, settings, validation
        self.device = data.codes.device
        self.dtype = dtype_of(settings.precision)
        self.order = torch.Generator().manual_seed(seed)  # drawn on the CPU: it is the same on every device
        if settings.channels_last:
            module.to(memory_format=torch.channels_last)
        options = settings.compile if isinstance(settings.compile, Mapping) else {}
        self.compiled: Callable[..., Any] = torch.compile(module, **options) if settings.compile else module
        self.sizes = batch_sizes(len(data.codes), settings.batch_size, module)
        one = inputs_like(data.inputs)
        # whole numbers, as of tokens, may stay what they are; by name they always do
        casts = settings.cast_inputs or isinstance(one, NamedRows) or one.is_floating_point()
        self.input_dtype = self.dtype if casts else None
        self.feed = self._feed(seed)
        self.validation_rows: Callable[[], Iterator[Rows]] = lambda: iter(())
        if validation is not None:
            self.validation_rows = rows_in_order(validation.inputs, self.device, settings.num_workers, reused=True)
        self.weights = relative_weights(data.weights, self.dtype)
        self.criterion = make_criterion(settings, self.device)
        self.optimizer = make_optimizer(settings.optimizer, module)
        self.scheduler = make_scheduler(settings, self.optimizer, len(self.sizes))
        self.rate = math.nan  # the learning rate of the last step
        self.scaler = torch.amp.GradScaler(self.device.type) if settings.precision == "fp16-mixed" else None
        self.chunker, self.fits_whole = Chunker(smallest=1), True
        self.looked_at = False  # whether the first logits were
        self.parameters = list(module.parameters())
        self.autocast = autocast(settings.precision, self.device)
        self.good = _Snapshot(module)
        self.best: _Snapshot | None = None
        self.best_loss, self.epochs_since = math.inf, 0
        self.losses: list[float] = []
        self.validated: list[tuple[float, float]] = []

    def _feed(self, seed: int) -> DeviceRows | LoadedRows:
        inputs, settings = self.data.inputs, self.settings
        dtype = self.input_dtype
        if isinstance(inputs, Tensor) and inputs.device == self.device:
            return DeviceRows(inputs, dtype, channels_last=settings.channels_last)
        return LoadedRows(
            inputs,
            self.device,
            dtype,
            num_workers=settings.num_workers,
            seed=seed,
            channels_last=settings.channels_last,
            reused=settings.epochs > 1,
        )

    def epoch(self, number: int) -> bool:
        """Run one epoch; return whether training ends with it."""
        started = time.perf_counter()
        self.module.train()
        order = None
        if len(self.sizes) > 1:
            order = torch.randperm(len(self.data.codes), generator=self.order, device="cpu").to(self.device)
        losses, right = self._batches(order, number)
        loss = self._check_finite(losses, number)
        self.losses.append(loss)
        self.good.take()
        stop = False
        if self.validation is not None:
            self.validated.append(self._validate(self.validation, number))
            stop = self._is_stale(self.validated[-1][0])
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(self.validated[-1][0] if self.validated else loss)
        elif self.scheduler is not None and self.settings.scheduler_step == "epoch":
            self.scheduler.step()
        if self.settings.callbacks:
            judged = self.validated[-1] if self.validated else None
            accuracy = float(torch.stack(right).sum()) / len(self.data.codes)
            seconds = time.perf_counter() - started
            done = Epoch(
                number=number,
                epochs=self.settings.epochs,
                loss=loss,
                accuracy=accuracy,
                validation_loss=judged and judged[0],
                validation_accuracy=judged and judged[1],
                learning_rate=self.rate,
                seconds=seconds,
                module=self.module,
            )
            # all of them are told, whatever the first ones answer
            asked_to_stop = [bool(callback.on_epoch_end(done)) for callback in self.settings.callbacks]
            stop = stop or any(asked_to_stop)
        return stop

    def finish(self) -> Curves:
        """Put the best weights in place where there is a `patience`; return the curves."""
        self._forget_gradients()  # they are as large as the weights
        if self.best is not None:
            self.best.restore()
        return self._curves()

    def _curves(self) -> Curves:
        if self.validation is None:
            return Curves(self.losses, None, None)
        return Curves(self.losses, [loss for loss, _ in self.validated], [accuracy for _, accuracy in self.validated])

    def _batches(self, order: Tensor | None, number: int) -> tuple[Tensor, list[Tensor]]:
        """Take a step for each batch; return their losses, and their right answers where somebody asks."""
        codes, weights = self.data.codes, self.weights
        if order is not None:
            codes = codes[order]
            weights = None if weights is None else weights[order]
        shares = self._shares(weights)
        row_losses, right = [], []
        batches = self.feed.batches(order, self.sizes, number)
        for x, y, share in zip(batches, codes.split(self.sizes), shares, strict=True):
            losses, correct = self._gradients(self._augmented(x), y, share)
            row_losses.append(losses)
            right += correct
            self._step()
        return _sums(torch.cat(row_losses).double() * torch.cat(shares), self.sizes), right

    def _augmented(self, rows: Rows) -> Rows:
        augment = self.settings.augment
        if augment is None:
            return rows
        if isinstance(rows, Tensor):
            changed: Tensor = augment(rows)
            return changed
        tensors = augment(rows.tensors)
        if not isinstance(tensors, Mapping):
            raise ConfigError(f"augment must answer a mapping of tensors with one, got {type(tensors).__name__}")
        return NamedRows(tensors)

    def _shares(self, weights: Tensor | None) -> list[Tensor]:
        """Return each row's share in the mean loss of its batch, batch by batch."""
        if weights is not None:
            return [w / len(w) for w in weights.split(self.sizes)]
        same = {size: torch.full((size,), 1 / size, dtype=self.dtype, device=self.device) for size in set(self.sizes)}
        return [same[size] for size in self.sizes]

    def _gradients(self, x: Rows, y: Tensor, share: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the gradients of a batch's mean loss, in pieces once a batch did not fit on the device."""
        if self.fits_whole:
            try:
                self._forget_gradients()
                return self._add_gradients(x, y, share)
            except torch.OutOfMemoryError:
                self.fits_whole = False  # and go on after the handler: only there the memory is let go
        return self.chunker.halve(len(x), functools.partial(self._gradients_in_pieces, x, y, share))

    def _gradients_in_pieces(self, x: Rows, y: Tensor, share: Tensor, size: int) -> tuple[Tensor, list[Tensor]]:
        self._forget_gradients()
        pieces = math.ceil(len(x) / size)  # of even sizes: batch normalization cannot train on one row
        xs: Iterable[Rows] = x.tensor_split(pieces)
        parts = zip(xs, y.tensor_split(pieces), share.tensor_split(pieces), strict=True)
        losses, right = zip(*(self._add_gradients(*part) for part in parts), strict=True)
        return torch.cat(losses), [one for ones in right for one in ones]

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:  # what optimizer.zero_grad does, without its hooks for profilers
            parameter.grad = None

    def _add_gradients(self, x: Rows, y: Tensor, share: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Add the gradients of rows to those that are there; return the rows' losses and how many are right."""
        with self.autocast:
            logits = run(self.compiled, x)
        check_logits(logits, self.data.n_classes)
        if not self.looked_at:
            warn_of_probabilities(logits, by=type(self.module).__name__)
            self.looked_at = True
        logits = logits.to(self.dtype)
        losses = self.criterion(logits, y)
        check_losses(losses, len(y))
        # the gradient of the weighted mean, without a pass for the mean
        losses.backward(share if self.scaler is None else self.scaler.scale(share))
        return losses.detach(), [(logits.detach().argmax(1) == y).sum()] if self.settings.callbacks else []

    def _step(self) -> None:
        norm = self.settings.max_grad_norm
        if norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.settings.callbacks:
            self.rate = float(self.optimizer.param_groups[0]["lr"])
        if self.scheduler is not None and self.settings.scheduler_step == "batch":
            self.scheduler.step()

    def _check_finite(self, losses: Tensor, number: int) -> float:
        """Return the mean of the batches' losses, after one look at the device: every look waits for it."""
        weights = [torch.stack(p.detach().aminmax()).double() for p in self.parameters if p.numel()]
        finite = torch.isfinite(torch.cat([losses, *weights])).tolist()
        if all(finite):
            return float(losses.mean())
        self._forget_gradients()
        self.good.restore()
        where = f"epoch {number} of {self.settings.epochs}"
        if not all(finite[: len(losses)]):
            first = finite.index(False)
            what = f"the loss is {float(losses[first])} in {where}, batch {first + 1} of {len(losses)}"
        else:
            what = f"the weights are not finite after {where}, batch {len(losses)} of {len(losses)}"
        raise self._diverged(what)

    def _diverged(self, what: str) -> DivergenceError:
        error = DivergenceError(f"{what}; try a lower learning rate or smaller inputs")
        error.curves = self._curves()
        return error

    @torch.no_grad()
    def _validate(self, data: TrainingData, number: int) -> tuple[float, float]:
        """Return the weighted mean loss and accuracy on held-out rows."""
        self.module.eval()
        weights = torch.ones_like(data.codes, dtype=torch.float64) if data.weights is None else data.weights
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        right = torch.zeros_like(loss)
        start = 0

        def judge(rows: Rows, before: int, first: int, last: int) -> None:
            nonlocal loss, right
            x = rows[first:last]
            y, w = data.codes[before + first : before + last], weights[before + first : before + last]
            with self.autocast:
                logits = run(self.module, cast(x, self.input_dtype))
            check_logits(logits, data.n_classes)
            logits = logits.to(self.dtype)
            loss = loss + w @ self.criterion(logits, y).double()
            right = right + w @ (logits.argmax(1) == y).double()

        for rows in self.validation_rows():
            self.chunker(len(rows), len(rows), functools.partial(judge, rows, start))
            start += len(rows)
        self.module.train()
        if not bool(torch.isfinite(loss)):
            self.good.restore()
            raise self._diverged(f"the validation loss is {float(loss)} after epoch {number} of {self.settings.epochs}")
        return float(loss / weights.sum()), float(right / weights.sum())

    def _is_stale(self, loss: float) -> bool:
        """Keep the weights if they are the best; return whether there was none better for too long."""
        if self.settings.patience is None:
            return False
        if loss < self.best_loss:
            self.best_loss, self.epochs_since = loss, 0
            self.best = self.best or _Snapshot(self.module)
            self.best.take()
        else:
            self.epochs_since += 1
        return self.epochs_since >= self.settings.patience


def _sums(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the sums of consecutive parts of values (n,), all but the last of one size; (parts,)."""
    parts, size = len(sizes) - 1, sizes[0]
    whole = values[: parts * size].view(parts, size).sum(1)
    return torch.cat([whole, values[parts * size :].sum(0, keepdim=True)])


class _Snapshot:
    """A copy of a module's parameters and buffers."""

    def __init__(self, module: nn.Module) -> None:
        self._tensors = [*module.parameters(), *module.buffers()]
        self._copies = [tensor.detach().clone() for tensor in self._tensors]

    @torch.no_grad()
    def take(self) -> None:
        for copy, tensor in zip(self._copies, self._tensors, strict=True):
            copy.copy_(tensor)

    @torch.no_grad()
    def restore(self) -> None:
        for copy, tensor in zip(self._copies, self._tensors, strict=True):
            tensor.copy_(copy)


def inputs_like(inputs: Any, n: int = 1) -> Rows:
    """Return the first rows of inputs, (n, ...)."""
    first: Rows = inputs[:n] if isinstance(inputs, Tensor) else read_rows(inputs, list(range(n)))
    return first


def rows_in_order(
    inputs: Any, device: torch.device, num_workers: int | None, *, reused: bool = False
) -> Callable[[], Iterator[Rows]]:
    """Return what yields all rows in their order, in chunks for a forward pass, on the device."""
    size = rows_per_pass(inputs_like(inputs), device)
    if isinstance(inputs, Tensor):
        return lambda: (rows.to(device) for rows in inputs.split(size))
    sizes = [min(size, len(inputs) - start) for start in range(0, len(inputs), size)]
    loaded = LoadedRows(inputs, device, None, num_workers=num_workers, reused=reused)
    return lambda: loaded.batches(None, sizes)
