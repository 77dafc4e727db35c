"""Any nn.Module as a scikit-learn classifier, trained by minibatches."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn
from torch.optim import Optimizer

from torchal._checks import check_finite, check_flag, check_positive
from torchal.embedding.precision import Precision, dtype_of
from torchal.errors import ConfigError, DataError, DivergenceError, ShapeError
from torchal.models.base import TrainingData, exceeds_memory
from torchal.models.networks.callbacks import Callback, ProgressBar
from torchal.models.networks.nets import MLP
from torchal.models.networks.parts import hold_out, weighted_by_class
from torchal.models.networks.recipes import Loss, TrainingSettings, asks_for, call_recipe, maker_of
from torchal.models.networks.stacked import can_train_together, has_gradient_hooks, may_train_together, train_together
from torchal.models.networks.trained import TrainedNetwork
from torchal.models.networks.training import train
from torchal.models.rows import RowShape, row_shape
from torchal.models.seeding import draw_seed, seeded

if TYPE_CHECKING:
    from typing_extensions import Self


_POSTERIORS = ("dropout", "laplace", "auto")


class TorchClassifier(TrainedNetwork):
    """Train a network by minibatches, behind scikit-learn's interface.

    What makes the network, the optimizer, the loss and the schedule is a recipe: a class or a function, with its
    settings bound by `functools.partial`. Each is called anew at every fit, so every fit starts cold, and every fit
    with the same `random_state` ends with the same weights on the same device.

    Rows may have any shape. An array or a tensor that fits on the device is moved there once, and batches are drawn
    there by row number. Anything else (a data set of torch or Hugging Face, `torchal.data.DatasetInputs`, a mapped
    file, a tensor that would take more than half of a CUDA device's free memory) is read batch by batch through a
    DataLoader.

    Rows may be mappings, as {"input_ids": ..., "attention_mask": ...}, by `DatasetInputs`: the network is called with
    their tensors by name. Padding them batch by batch (`collate`) changes nothing but the last bits, if the network
    heeds the mask; draws by dropout are the same too, where rows are padded at their end.

    Args:
        module: makes the network; called with those of `n_features` (numbers in a row), `input_shape` (a row's
            shape) and `n_classes` that it names and that no partial has bound. It answers (n, ...) with logits (n, C):
            a tensor, an object with `.logits` or a mapping with "logits", as those of transformers do, or a tuple that
            begins with them.
        optimizer: makes the optimizer; called with the network's parameters. A learning rate or weight decay is bound
            to it: `partial(torch.optim.SGD, lr=0.1, weight_decay=1e-4)`. Adam, AdamW and SGD take their fused form
            unless `fused` or `foreach` is bound.
        loss: makes the loss; called with `reduction="none"`, so that the loss answers logits (n, C) and targets (n,)
            with one value per row.
        scheduler: makes a learning-rate schedule; called with the optimizer, and with the number of its steps where it
            names `total_steps` or `T_max`.
        scheduler_step: "epoch" or "batch", after which the schedule takes a step.
        epochs: passes over the rows.
        batch_size: rows per step; all of them, in their order, where there are not more. Rows are shuffled every epoch.
            A last batch of one row joins the one before it where the network has batch normalization.
        class_weight: weight of each class, by label; "balanced" for n / (C times the class's rows). 1 each unless
            given.
        max_grad_norm: gradients longer than this are scaled down to it.
        validation_fraction: share of each class's rows that is held back from training, to be judged on.
        patience: stop when the validation loss was not lower than ever before for so many epochs, and keep the weights
            of its lowest. Needs a validation part: `validation_fraction`, or `fit(..., validation=(X, y))`.
        calibrated: divide all logits by one temperature, by which the validation part is likeliest
            (`torchal.models.networks.calibration.fit_temperature`): predictions stay, probabilities become as sure as
            they are right. Needs a validation part too. Another library's classifiers have scikit-learn's
            CalibratedClassifierCV for that, with its method "temperature" since version 1.8.
        warm_start: go on from the weights of the last fit of this object, where its classes and row shape were the
            same. The loop of active learning then carries the weights from round to round, and saves them. The rows
            that `validation_fraction` holds back are drawn anew in each fit, so that earlier fits have seen them.
        augment: changes a batch (n, ...), or a mapping of them, on the device while training, as a transform of
            torchvision does.
        cast_inputs: cast inputs to the precision's dtype. False is for whole numbers, as of tokens, that go to an
            nn.Embedding: they reach the network as they are, as those of rows that are mappings always do.
        embedding: name of the layer, as in `named_modules()`, whose output is what `transform` gives; unless given, the
            layer that the network's attribute `embedding_layer` names, else what goes into its last linear layer.
        posterior: what `sample_log_probs` draws from. "dropout": the network's own
            (`torchal.models.networks.dropout.DropoutDraws`), which costs a fit nothing. "laplace": a Gaussian around
            the last linear layer's weights (`torchal.models.laplace.LaplaceFit`), for which a fit ends with one more
            pass over its rows. "auto": by dropout where the network has some that can be drawn, else Laplace's.
        prior_precision: of the prior of each weight of the last layer, for Laplace; as much as the weight decay times
            the number of rows, where there is some.
        precision: "fp32", "fp64", "bf16-mixed" or "fp16-mixed" (with a gradient scaler).
        channels_last: keep images and weights in that memory order.
        compile: train through `torch.compile`; a mapping is its arguments.
        deterministic: use deterministic cuDNN kernels; else those that it finds fastest.
        num_workers: processes of the DataLoader; unless given, half the cores (8 at most) for a data set of 512 rows or
            more, else none.
        callbacks: `torchal.models.Callback` objects, told of every epoch.
        progress: show a bar of epochs.
        device: "auto" (that of a CUDA tensor, else CUDA, else CPU), or a torch device.
        random_state: of initial weights, dropout and shuffling: a number, a RandomState to draw it from, or None for
            another one at each fit. torch's and NumPy's global generators stay as they are.

    Weights multiply the rows' losses and are scaled to mean 1 over all rows, so that in a full batch the loss is the
    weighted mean. When the device runs out of memory, a batch is halved and its gradients are added up: the same step
    up to rounding (batch normalization apart, which sees the halves), with one warning.

    Attributes:
        module_: the trained network, in evaluation mode. After a `DivergenceError`, it has the weights of the last
            epoch that ended with finite ones.
        classes_: (C,) labels in the order of the columns.
        loss_curve_: (epochs,) mean training loss of each epoch.
        validation_loss_curve_, validation_accuracy_curve_: (epochs,) each, None without a validation part.
        n_epochs_: epochs trained.
        posterior_: what `sample_log_probs` draws from, "dropout" or "laplace".
        temperature_: what the network's answers are divided by, 1 unless `calibrated`.
        n_features_in_, input_shape_: length of a row's first axis, and a row's shape. Of rows that are mappings the
            number of tensors, and the shape of each by name, with None along every axis where `collate` may pad.

    Example:
        >>> from functools import partial
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = TorchClassifier(optimizer=partial(torch.optim.Adam, lr=0.1), epochs=20)
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
        loss: Callable[..., Loss] = nn.CrossEntropyLoss,
        scheduler: Callable[[Optimizer], Any] | None = None,
        scheduler_step: Literal["epoch", "batch"] = "epoch",
        epochs: int = 20,
        batch_size: int = 32,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        max_grad_norm: float | None = None,
        validation_fraction: float | None = None,
        patience: int | None = None,
        calibrated: bool = False,
        warm_start: bool = False,
        augment: Callable[[Any], Any] | None = None,
        cast_inputs: bool = True,
        embedding: str | None = None,
        posterior: Literal["dropout", "laplace", "auto"] = "dropout",
        prior_precision: float = 1.0,
        precision: Precision = "fp32",
        channels_last: bool = False,
        compile: bool | Mapping[str, Any] = False,  # noqa: A002 - torch's word
        deterministic: bool = True,
        num_workers: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.loss = loss
        self.scheduler = scheduler
        self.scheduler_step = scheduler_step
        self.epochs = epochs
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.max_grad_norm = max_grad_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.calibrated = calibrated
        self.warm_start = warm_start
        self.augment = augment
        self.cast_inputs = cast_inputs
        self.embedding = embedding
        self.posterior = posterior
        self.prior_precision = prior_precision
        self.precision = precision
        self.channels_last = channels_last
        self.compile = compile
        self.deterministic = deterministic
        self.num_workers = num_workers
        self.callbacks = callbacks
        self.progress = progress
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, validation: tuple[Any, Any] | None = None) -> Self:
        """Train from the start, whatever was fitted before, unless `warm_start` is set.

        `device="auto"` trains where a CUDA tensor is, else on CUDA where there is one, else on the CPU.

        Shapes:
            X: (n, ...), array or tensor; a data set or a mapped file, of n rows.
            y: (n,) labels of any dtype; in a tensor whole numbers.
            sample_weight: (n,), not negative; 1 each unless given. 0 is as good as no row.
            validation: inputs (m, ...) and labels (m,) to judge each epoch on, in place of `validation_fraction`.

        Raises:
            DataError: values or weights that cannot be used, no rows, one class only, a row of a data set that cannot
                be read, or a validation label that no training row has.
            DivergenceError: the loss or the weights were no longer finite.
            ShapeError: lengths disagree, a tensor is on another accelerator than the model, or the network's answer is
                not (n, C).
            ConfigError: a setting that is not possible.
            CapabilityError: the network answers with something else than logits; or the posterior is to be Laplace's,
                and the logits are not what a last nn.Linear makes.
        """
        self.settings()  # what is not possible is said before the data are read
        if validation is not None and not (isinstance(validation, tuple | list) and len(validation) == 2):
            raise ConfigError(f"validation must be inputs and labels, got {type(validation).__name__}")
        before = dict(self.__dict__) if self.warm_start and hasattr(self, "module_") else None
        try:
            data = self._training_data(X, y, sample_weight)
            module = None if before is None else self._warm_module(before, data)
            held_out = None if validation is None else self._validation_data(*validation, data)
            self._fit_checked(data, draw_seed(self.random_state), held_out, module)
        except BaseException:
            if before is not None:  # what it went on from is still there
                self.__dict__.update(before)
            raise
        return self

    def _warm_module(self, before: Mapping[str, Any], data: TrainingData) -> nn.Module | None:
        """Return a copy of the last fit's network, None where it was of other classes or rows."""
        if before["input_shape_"] != self.input_shape_ or not np.array_equal(before["classes_"], self.classes_):
            return None
        module: nn.Module = copy.deepcopy(before["module_"])
        return module.to(data.codes.device, dtype_of(self.precision))

    def fit_many(self, X: Any, y: Any) -> list[Self]:
        """Return T copies of this estimator, each fitted on one of T data sets of equal size, as if fitted alone.

        They are trained together, with stacked weights, where that is faster and gives what each would get alone up to
        rounding: networks that `torch.func.vmap` takes (two rows are tried first, by each network and by the stack), a
        class of torch.optim that treats each number by itself, as many classes everywhere, no callbacks, early
        stopping, augmentation, mixed precision or compiling. Anything else is trained one after another. On CUDA, fits
        made together draw other dropout masks than alone.

        Shapes:
            X: (T, n, ...).
            y: (T, n).

        Raises:
            ShapeError: X or y has not these axes. Otherwise as `fit`.
        """
        X = X if isinstance(X, Tensor) else np.asarray(X)
        y = y if isinstance(y, Tensor) else np.asarray(y)
        if X.ndim < 3 or X.shape[:2] != y.shape[:2] or y.ndim != 2 or not len(X):
            shapes = f"{tuple(X.shape)} and {tuple(y.shape)}"
            raise ShapeError(f"X and y must be (T, n, ...) and (T, n) with T at least 1, got {shapes}")
        copies: list[Self] = [clone(self) for _ in range(len(X))]
        data = [copy._training_data(rows, labels, None) for copy, rows, labels in zip(copies, X, y, strict=True)]
        self.fit_copies(copies, data)
        return copies

    @torch.inference_mode(mode=False)
    def fit_copies(self, copies: Sequence[TorchClassifier], data: Sequence[TrainingData]) -> None:
        """Fit copies of this estimator, each on checked data; together where that is possible and faster."""
        seeds = [draw_seed(copy.random_state) for copy in copies]
        if (
            not self._needs_validation()
            and self.validation_fraction is None
            and self._fit_together(copies, data, seeds)
        ):
            return
        for one, rows, seed in zip(copies, data, seeds, strict=True):
            one._fit_checked(rows, seed, None, None)

    def _fit_together(
        self, copies: Sequence[TorchClassifier], data: Sequence[TrainingData], seeds: Sequence[int]
    ) -> bool:
        """Fit copies with stacked weights, if that gives what each would get alone, and faster; else do nothing."""
        settings = self.settings()
        weighted = [
            weighted_by_class(rows, one.class_weight, one.classes_) for one, rows in zip(copies, data, strict=True)
        ]
        if not may_train_together(weighted, settings):
            return False
        device, shape = data[0].codes.device, row_shape(data[0].inputs)
        with seeded(seeds[0], device):
            modules = [self.new_module(shape, data[0].n_classes, device)]
            for seed in seeds[1:]:
                with seeded(seed, device):
                    modules.append(self.new_module(shape, data[0].n_classes, device))
            if not can_train_together(modules, weighted, settings):
                return False
            try:
                curves = train_together(modules, weighted, settings, seeds)
            except torch.OutOfMemoryError:
                return False  # one by one they may fit
        for one, rows, module, curve, seed in zip(copies, weighted, modules, curves, seeds, strict=True):
            one.adopt(module, curve, seed)
            one._fit_posterior(rows)
        return True

    def settings(self) -> TrainingSettings:
        """Return how to train.

        Raises:
            ConfigError: a setting is not possible.
        """
        for name in ("calibrated", "warm_start", "progress"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.callbacks, list | tuple):
            raise ConfigError(f"callbacks must be a list of torchal.models.Callback objects, got {self.callbacks!r}")
        if self.posterior not in _POSTERIORS:
            raise ConfigError(f"posterior must be one of {', '.join(_POSTERIORS)}; got {self.posterior!r}")
        check_positive("prior_precision", self.prior_precision)
        if self.calibrated and self.warm_start and self.validation_fraction is not None:
            raise ConfigError(
                "calibrated=True needs rows that were never trained on; with warm_start=True the rows that "
                "validation_fraction holds back are others in each fit: give fit(..., validation=(X, y))"
            )
        settings = TrainingSettings(**{field.name: getattr(self, field.name) for field in fields(TrainingSettings)})
        return replace(settings, callbacks=[*self.callbacks, ProgressBar()]) if self.progress else settings

    def new_module(self, input_shape: RowShape, n_classes: int, device: torch.device) -> nn.Module:
        """Make an untrained network for rows of a shape.

        Args:
            input_shape: of one row; None for rows by name.
            n_classes: how many logits it has.
            device: where it lies.

        Raises:
            ConfigError: the recipe is no recipe, or asks for a number of features that rows by name do not have.
        """
        if isinstance(self.module, nn.Module):
            raise ConfigError(
                f"module must make a network, got a {type(self.module).__name__} that is made already: it could not "
                "start cold; pass its class, a function or a functools.partial"
            )
        if not callable(self.module):
            raise ConfigError(f"module must be a class, a function or a functools.partial, got {self.module!r}")
        known: dict[str, Any] = {"input_shape": input_shape, "n_classes": n_classes}
        if isinstance(input_shape, tuple):
            known["n_features"] = math.prod(input_shape)
        elif asks_for(self.module, "n_features"):
            name = getattr(maker_of(self.module), "__name__", repr(self.module))
            raise ConfigError(
                f"{name} asks for n_features, which rows that are mappings ({', '.join(input_shape)}) do not have; "
                "module= must make a network that takes these by name"
            )
        module = call_recipe(self.module, known=known)
        if not isinstance(module, nn.Module):
            raise ConfigError(f"module must make an nn.Module, it made a {type(module).__name__}")
        if hasattr(module, "_orig_mod"):
            raise ConfigError("module made a compiled network, which hooks do not reach: set compile=True instead")
        if not has_gradient_hooks(module):  # which a copy would lose
            # The recipe may give out parts that it keeps, as a pretrained body: they must start as they are.
            module = copy.deepcopy(module)
        return module.to(device, dtype_of(self.precision))

    @torch.inference_mode(mode=False)
    def _fit_checked(
        self, data: TrainingData, seed: int, validation: TrainingData | None, module: nn.Module | None
    ) -> None:
        """Train a network, a new one unless given, on checked data."""
        data, held_out = self._held_out(data, validation, seed)
        data = weighted_by_class(data, self.class_weight, self.classes_)
        as_they_are = held_out
        if held_out is not None:  # judged by what is minimised
            held_out = weighted_by_class(held_out, self.class_weight, self.classes_, balance=data.codes)
        with seeded(seed, data.codes.device):
            if module is None:
                module = self.new_module(row_shape(data.inputs), data.n_classes, data.codes.device)
            try:
                curves = train(module, data, self.settings(), seed=seed, validation=held_out)
            except DivergenceError as error:
                self.adopt(module, error.curves, seed)
                raise
        self.adopt(module, curves, seed)
        if self.calibrated and as_they_are is not None:
            self._calibrate(as_they_are)
        self._fit_posterior(data)

    def _needs_validation(self) -> bool:
        return self.patience is not None or self.calibrated

    def _held_out(
        self, data: TrainingData, validation: TrainingData | None, seed: int
    ) -> tuple[TrainingData, TrainingData | None]:
        """Return the rows to train on and those to validate on."""
        fraction = self.validation_fraction
        if fraction is None or validation is not None:
            if fraction is not None:
                raise ConfigError("give validation= or set validation_fraction, not both")
            if self._needs_validation() and validation is None:
                name = "patience" if self.patience is not None else "calibrated"
                raise ConfigError(
                    f"{name} needs a validation part: set validation_fraction, or call fit(..., validation=(X, y))"
                )
            return data, validation
        return hold_out(data, fraction, seed)

    @torch.inference_mode(mode=False)
    def _validation_data(self, X: Any, y: Any, data: TrainingData) -> TrainingData:
        device = data.codes.device
        inputs = self._check_rows(X, device)
        if isinstance(X, Tensor):
            check_finite("the validation X", inputs)
        if isinstance(inputs, Tensor) and not exceeds_memory(inputs, device):
            inputs = inputs.to(device)
        labels = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        if labels.shape != (len(inputs),):
            raise ShapeError(f"the validation part has {len(inputs)} inputs and labels of shape {labels.shape}")
        unseen = ~np.isin(labels, self.classes_)
        if unseen.any():
            raise DataError(
                f"{int(unseen.sum())} of {len(labels)} validation labels are of no class in y, the first is "
                f"{labels[unseen][0]}; the classes are {', '.join(map(str, self.classes_))}"
            )
        codes = torch.as_tensor(np.searchsorted(self.classes_, labels), device=device)
        return TrainingData(inputs, codes, None, data.n_classes)
