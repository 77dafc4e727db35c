"""Any nn.Module as a scikit-learn classifier, trained by minibatches."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.optim import Optimizer

from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.models.base import TensorClassifier, TrainingData
from torchal.models.nets import MLP


class TorchClassifier(TransformerMixin, TensorClassifier):  # type: ignore[misc]
    """Train a network by minibatches, behind scikit-learn's interface.

    What makes the network, the optimizer and the loss is a recipe: a class or a function, with its settings bound by
    `functools.partial`. Each is called anew at every fit, so every fit starts cold, and every fit with the same
    `random_state` ends with the same weights on the same device. Rows may have any shape. They and the network are
    moved to the device once; batches are drawn there by row number.

    Args:
        module: makes the network; called with those of `n_features` (numbers in a row), `input_shape` (a row's
            shape) and `n_classes` that it names and that no partial has bound. It answers (n, ...) with logits (n, C).
        optimizer: makes the optimizer; called with the network's parameters. A learning rate or weight decay is bound
            to it: `partial(torch.optim.SGD, lr=0.1, weight_decay=1e-4)`.
        loss: makes the loss; called with `reduction="none"`, so that the loss answers logits (n, C) and targets (n,)
            with one value per row.
        epochs: passes over the rows.
        batch_size: rows per step; all of them, in their order, where there are not more. Rows are shuffled every epoch.
        device: "auto" (that of a CUDA tensor, else CUDA, else CPU), or a torch device.
        random_state: of initial weights, dropout and shuffling: a number, a RandomState to draw it from, or None for
            another one at each fit. torch's and NumPy's global generators stay as they are.

    The inputs are cast to the network's dtype, float32 unless it was made with another. Weights multiply the rows'
    losses and are scaled to mean 1 over all rows, so that in a full batch the loss is the weighted mean.

    Attributes:
        module_: the trained network, in evaluation mode.
        classes_: (C,) labels in the order of the columns.
        loss_curve_: (epochs,) mean training loss of each epoch.
        n_features_in_, input_shape_: length of a row's first axis, and a row's shape.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = TorchClassifier(optimizer=functools.partial(torch.optim.Adam, lr=0.1), epochs=20)
        >>> model.fit(x, torch.tensor([3, 3, 7, 7])).predict(x)
        tensor([3, 3, 7, 7])
        >>> model.transform(x).shape
        torch.Size([4, 128])
    """

    def __init__(
        self,
        module: Callable[..., nn.Module] = MLP,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.Adam,
        loss: Callable[..., Callable[[Tensor, Tensor], Tensor]] = nn.CrossEntropyLoss,
        epochs: int = 20,
        batch_size: int = 32,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # the embedding has the network's dtype
        return tags

    def transform(self, X: Any) -> Any:
        """Return the embedding: what goes into the last linear layer.

        Shapes:
            X: (n, ...).

        Returns:
            (n, D).

        Raises:
            CapabilityError: the network has no nn.Linear.
        """
        return self._answer(X, self._embedding)

    def _fit(self, data: TrainingData) -> nn.Module:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ConfigError(f"{name} must be a whole number above 0, got {value!r}")
        seed = _seed(self.random_state)
        with _seeded(seed, data.inputs.device):
            module = self._new_module(data).to(data.inputs.device)
            self.loss_curve_ = self._train(module, data, torch.Generator().manual_seed(seed))
        return module.eval()

    def _new_module(self, data: TrainingData) -> nn.Module:
        if isinstance(self.module, nn.Module):
            raise ConfigError(
                f"module must make a network, got a {type(self.module).__name__} that is made already: it could not "
                "start cold; pass its class, a function or a functools.partial"
            )
        shape = tuple(data.inputs.shape[1:])
        known = {"n_features": math.prod(shape), "input_shape": shape, "n_classes": data.n_classes}
        bound = self.module.keywords if isinstance(self.module, functools.partial) else {}
        asked = inspect.signature(self.module).parameters
        return self.module(**{name: value for name, value in known.items() if name in asked and name not in bound})

    def _train(self, module: nn.Module, data: TrainingData, generator: torch.Generator) -> NDArray[Any]:
        """Run all epochs; return the mean loss of each."""
        device, n = data.inputs.device, len(data.inputs)
        inputs = data.inputs.to(_dtype(module))
        weights = None if data.weights is None else (data.weights / data.weights.mean()).to(inputs.dtype)
        criterion = self.loss(reduction="none")
        optimizer = self.optimizer(module.parameters())
        module.train()
        n_batches = math.ceil(n / self.batch_size)
        losses = torch.empty(n_batches, dtype=torch.float64, device=device)
        curve = np.empty(self.epochs)
        for epoch in range(self.epochs):
            # the order is drawn on the CPU: it is the same on every device
            order = torch.randperm(n, generator=generator).to(device) if n_batches > 1 else None
            batches = (slice(None),) if order is None else order.split(self.batch_size)
            for batch, rows in enumerate(batches):
                logits = module(inputs[rows])
                _check_logits(logits, data.n_classes)
                row_losses = criterion(logits, data.codes[rows])
                loss = (row_losses if weights is None else row_losses * weights[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[batch] = loss.detach()
            # one look per epoch: every look waits for the device
            finite = torch.isfinite(losses)
            if not bool(finite.all()):
                first = int((~finite).nonzero()[0])
                raise DataError(
                    f"the loss is {float(losses[first])} in epoch {epoch + 1} of {self.epochs}, batch {first + 1} of "
                    f"{n_batches}; try a lower learning rate or smaller inputs"
                )
            curve[epoch] = float(losses.mean())
        optimizer.zero_grad()  # the gradients are as large as the weights
        return curve

    def _logits(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.module_(rows.to(_dtype(self.module_)))
        return logits

    def _embedding(self, rows: Tensor) -> Tensor:
        seen: list[Tensor] = []
        linear = [layer for layer in self.module_.modules() if isinstance(layer, nn.Linear)]
        if not linear:
            raise CapabilityError(f"{type(self.module_).__name__} has no nn.Linear whose input could be the embedding")
        hooks = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in linear]
        try:
            self._logits(rows)
        finally:
            for hook in hooks:
                hook.remove()
        return seen[-1].flatten(1)  # the last one that ran, wherever the network defines it


def _dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of the network's first floating parameter."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _check_logits(logits: Tensor, n_classes: int) -> None:
    if logits.ndim != 2 or logits.shape[1] != n_classes:
        raise ShapeError(f"the module must answer with logits (n, {n_classes}), got shape {tuple(logits.shape)}")


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))  # new entropy, not NumPy's global state
    return int(check_random_state(random_state).randint(2**31 - 1))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of the device, and put them back at the end.

    `torch.manual_seed` would seed every CUDA device, also those that nobody puts back.
    """
    cuda = [] if device.type != "cuda" else [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield
