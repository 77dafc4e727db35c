"""A network once it is trained: its answers, its embedding, its draws, and what is saved of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchal._batch import NamedRows, Rows, cast, channels_last, run
from torchal._checks import check_whole
from torchal._chunks import Chunker
from torchal.embedding.capture import capture
from torchal.embedding.precision import Precision, autocast, dtype_of, is_mixed
from torchal.errors import CapabilityError, DataError
from torchal.models.base import TrainingData, as_alone, as_answer
from torchal.models.checks import resolve_device
from torchal.models.laplace import LastLayerGaussian
from torchal.models.networks.calibration import fit_temperature
from torchal.models.networks.dropout import DropoutDraws
from torchal.models.networks.embedder import EmbeddingClassifier
from torchal.models.networks.head import last_linear, linear_head
from torchal.models.networks.laplace import check_laplace, fit_laplace, laplace_draws
from torchal.models.networks.recipes import check_logits, relative_weights
from torchal.models.networks.saving import SavedState, check_state
from torchal.models.networks.training import Curves, inputs_like, rows_in_order
from torchal.models.rows import RowShape, row_shape
from torchal.models.seeding import seeded
from torchal.pool.inputs import as_inputs
from torchal.protocols import LastLayer

if TYPE_CHECKING:
    from typing_extensions import Self


_WHOLE_NUMBERS = (np.uint8, np.int8, np.int16, np.int32, np.int64)
_CURVES = ("loss_curve_", "validation_loss_curve_", "validation_accuracy_curve_")


class TrainedNetwork(SavedState, EmbeddingClassifier):
    """Base of a classifier made of one network. A child trains it, and calls `adopt`."""

    new_module: Callable[[RowShape, int, torch.device], nn.Module]
    embedding: str | None
    precision: Precision
    cast_inputs: bool
    channels_last: bool
    num_workers: int | None
    posterior: Literal["dropout", "laplace", "auto"]
    prior_precision: float
    seed_: int
    temperature_: float
    laplace_: LastLayerGaussian | None

    def sample_log_probs(self, X: Any, k: int) -> Any:
        """Return log-probabilities of k draws from the posterior, by dropout or by Laplace's approximation.

        Each draw is one function, the same for all rows and calls; the same `random_state` gives the same draws.

        Shapes:
            X: (n, ...).

        Returns:
            (n, K, C).

        Raises:
            CapabilityError: they are by dropout, and the network has none, or some that cannot be drawn; or by Laplace,
                and the fit did not come to its end.
        """
        check_whole("k", k, least=1)
        check_is_fitted(self, "module_")
        if self.laplace_ is None and self.posterior == "laplace":
            raise CapabilityError("the fit did not come to its end, so that there is no Gaussian to draw from")
        if self.laplace_ is None:
            draws = self._dropout()
            return as_answer(X, self._by_chunk(X, lambda rows: (draws(rows, k).log_softmax(2),))[0])
        weights = self.laplace_.draw(k, self.seed_).to(dtype_of(self.precision))
        with laplace_draws(self._logits, self.module_, self.laplace_, weights) as draw:
            scaled = self._at_temperature
            return as_answer(X, self._by_chunk(X, lambda rows: (scaled(draw(rows)).log_softmax(2),))[0])

    def last_layer(self, X: Any) -> LastLayer:
        """Return weight (C, D) and bias (C,) of the nn.Linear that makes the logits of the embedding.

        Shapes:
            X: (n, ...), some rows to run the network on; one is enough.

        Raises:
            CapabilityError: the logits of these rows are not what the last nn.Linear makes of the embedding, since the
                network goes on after it, or `embedding` names another layer.
        """
        check_is_fitted(self, "module_")
        with capture(self.module_, self.embedding) as embedding, last_linear(self.module_) as ran:

            def both(rows: Rows) -> tuple[Tensor, Tensor]:
                logits = self._network_logits(rows)
                return logits, embedding().to(logits.dtype)

            logits, features = self._by_chunk(X, both)
        layer = linear_head(
            ran().layer, features, logits, name=type(self.module_).__name__, mixed=is_mixed(self.precision)
        )
        weight, bias = (self._at_temperature(part) for part in layer)
        return LastLayer(as_answer(X, weight), as_answer(X, bias))

    def check_draws(self, X: Any, n_classes: int) -> None:
        """Require a network that functions can be drawn of, before it is ever trained.

        Shapes:
            X: (n, ...), rows such as it is to be fitted on; two are enough.

        Raises:
            CapabilityError: draws are by dropout, and the network has none, or some that cannot be drawn; or they are
                by Laplace, and its logits do not come from a last nn.Linear.
        """
        device, trial = resolve_device(self.device, X if isinstance(X, Tensor) else None), clone(self)
        inputs: Any = as_inputs(X)
        rows = inputs_like(inputs, min(2, len(inputs))).to(device)
        with seeded(0, device), as_alone(device), torch.no_grad():
            trial.classes_ = np.arange(n_classes)
            trial.adopt(self.new_module(row_shape(inputs), n_classes, device), Curves([], None, None), 0)
            problem = "" if self.posterior == "laplace" else trial._dropout().problem(rows)
            if self.posterior == "laplace" or (self.posterior == "auto" and problem):
                check_laplace(trial._network_logits, trial.module_, rows, mixed=is_mixed(self.precision))
            elif problem:
                raise CapabilityError(problem)

    def state_dict(self) -> dict[str, Any]:
        """Return the fitted state in tensors, numbers and text."""
        check_is_fitted(self, "module_")
        curves = {name: getattr(self, name) for name in _CURVES}
        return {
            "module": {name: _on_cpu(value) for name, value in self.module_.state_dict().items()},
            "classes": self.classes_.tolist(),
            "classes_dtype": self.classes_.dtype.str,
            "feature_names": list(getattr(self, "feature_names_in_", ())),
            "input_shape": _plain(self.input_shape_),
            "seed": self.seed_,
            "curves": {name: None if curve is None else curve.tolist() for name, curve in curves.items()},
            "temperature": self.temperature_,
            "laplace": None if self.laplace_ is None else self.laplace_.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Become as fitted as the estimator whose `state_dict` this is; it had the same settings as this one.

        Raises:
            DataError: the state is damaged, or of an estimator with other settings.
        """
        check_state(state, "module", "classes", "classes_dtype", "feature_names", "input_shape", "seed", "curves")
        try:
            device, shape, seed = resolve_device(self.device), _as_shape(state["input_shape"]), int(state["seed"])
            fitted: dict[str, Any] = {
                "classes_": np.array(state["classes"], dtype=np.dtype(state["classes_dtype"])),
                "input_shape_": shape,
                "n_features_in_": len(shape) if isinstance(shape, dict) else shape[0],
                "seed_": seed,
                "n_epochs_": len(state["curves"]["loss_curve_"]),
            }
            fitted |= {name: _as_curve(state["curves"][name]) for name in _CURVES}
            # earlier versions saved neither of these
            fitted["temperature_"] = float(state.get("temperature", 1.0))
            saved = state.get("laplace")
            fitted["laplace_"] = None if saved is None else LastLayerGaussian.from_state(saved, device)
            fitted["posterior_"] = "dropout" if saved is None else "laplace"
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"the saved classifier is damaged: {type(error).__name__}: {error}") from error
        if self.posterior == "laplace" and fitted["laplace_"] is None:
            raise DataError("the classifier was saved without a Gaussian, this classifier has posterior='laplace'")
        if self.posterior == "dropout" and fitted["laplace_"] is not None:
            raise DataError("the classifier was saved with a Gaussian, this classifier has posterior='dropout'")
        with seeded(seed, device):
            module = self.new_module(shape, len(state["classes"]), device)
        try:
            module.load_state_dict(state["module"])
        except (RuntimeError, TypeError) as error:
            raise DataError(f"the weights are not of the network that module= makes: {error}") from error
        self.__dict__.pop("feature_names_in_", None)
        if state["feature_names"]:
            fitted["feature_names_in_"] = np.array(state["feature_names"], dtype=object)
        self.__dict__.update(fitted, module_=module.eval())
        return self

    def adopt(self, module: nn.Module, curves: Curves, seed: int) -> None:
        """Set the attributes of a finished fit.

        Args:
            module: the trained network.
            curves: loss and accuracies, epoch by epoch.
            seed: from which it was trained.
        """
        self.module_ = module.eval()
        self.seed_ = seed
        for name, curve in zip(_CURVES, curves, strict=True):
            setattr(self, name, None if curve is None else np.array(curve))
        self.n_epochs_ = len(curves.loss)
        self.temperature_ = 1.0
        self.posterior_: str = "dropout"
        self.laplace_: LastLayerGaussian | None = None

    def _calibrate(self, data: TrainingData) -> None:
        """Find the temperature of a finished fit by rows that were held back from it."""
        device = data.codes.device
        chunker, logits = Chunker(smallest=1), []

        def answer(rows: Rows, first: int, last: int) -> None:
            logits.append(self._network_logits(rows[first:last]))

        with as_alone(device), torch.no_grad():
            for rows in rows_in_order(data.inputs, device, self.num_workers)():
                chunker(len(rows), len(rows), partial(answer, rows))
            self.temperature_ = fit_temperature(torch.cat(logits), data.codes, data.weights)

    def _fit_posterior(self, data: TrainingData) -> None:
        """Learn from the rows of a finished fit what there is to draw from."""
        if self.posterior == "dropout":
            return
        device = data.codes.device
        with as_alone(device), torch.no_grad():
            if self.posterior == "auto" and not self._dropout().problem(inputs_like(data.inputs, 2).to(device)):
                return
            self.laplace_ = fit_laplace(
                self._network_logits,
                self.module_,
                rows_in_order(data.inputs, device, self.num_workers)(),
                relative_weights(data.weights, torch.float64),
                prior=float(self.prior_precision),
                mixed=is_mixed(self.precision),
            )
        self.posterior_ = "laplace"

    def _dropout(self) -> DropoutDraws:
        return DropoutDraws(self._logits, self.seed_, name=type(self.module_).__name__)

    def _networks(self) -> list[tuple[nn.Module, str | None]]:
        return [(self.module_, self.embedding)]

    def _array_dtypes(self) -> Any:
        """Return the dtypes that the network casts by itself: uint8 images must not grow to eight times their size."""
        return [np.float64, np.float32, np.float16, *_WHOLE_NUMBERS, np.bool_]

    def _chunks(self, inputs: Any, device: torch.device) -> Iterator[Rows]:
        return rows_in_order(inputs, device, self.num_workers)()

    def _logits(self, rows: Rows) -> Tensor:
        return self._at_temperature(self._network_logits(rows))

    def _at_temperature(self, logits: Tensor) -> Tensor:
        return logits if self.temperature_ == 1 else logits / self.temperature_

    def _network_logits(self, rows: Rows) -> Tensor:
        """Return logits as the network gives them, of its own temperature."""
        dtype = dtype_of(self.precision)
        if self.cast_inputs or isinstance(rows, NamedRows) or rows.is_floating_point():
            rows = cast(rows, dtype)
        if self.channels_last:
            rows = channels_last(rows)
        with autocast(self.precision, rows.device):
            logits = run(self.module_, rows)
        check_logits(logits, len(self.classes_))
        answer: Tensor = logits.to(dtype)
        return answer


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value  # a module's extra state may be anything


def _plain(shape: RowShape) -> Any:
    """Return a shape as it is saved, in lists."""
    return [*shape] if isinstance(shape, tuple) else {name: [*one] for name, one in shape.items()}


def _as_shape(plain: Any) -> RowShape:
    if not isinstance(plain, Mapping):
        return tuple(map(int, plain))
    return {str(name): tuple(None if n is None else int(n) for n in one) for name, one in plain.items()}


def _as_curve(values: Any) -> Any:
    return None if values is None else np.array(values, dtype=np.float64)
