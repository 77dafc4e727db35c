"""Every model that has a yaml keeps the contract."""

import copy
import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from tests.contracts import HostCopies, ModelContract
from torchal import models
from torchal.models import (
    MLP,
    AllConv,
    KernelLeastSquares,
    KernelSVM,
    LinearSVM,
    LogisticRegression,
    OneVsRestLogisticRegression,
    SmallCNN,
    TorchClassifier,
    TorchEnsemble,
    TorchvisionNet,
)
from torchal.models.base import TensorClassifier

CONF = Path(__file__).parents[2] / "experiments" / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
READ_IMAGES = {"small_cnn": (3, 10, 11), "allconv": (3, 9, 8), "resnet18": (1, 33, 33)}


def from_yaml(name, *overrides):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("config", [f"model={name}", *overrides]).model, _convert_="object")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    model = from_yaml(name, "device=cpu")
    return model.set_params(epochs=1, batch_size=16) if isinstance(model, TorchClassifier) else model


@pytest.fixture
def targets():
    return torch.arange(30) % 3


@pytest.fixture
def inputs(name, targets):
    shape = READ_IMAGES.get(name, (6,))
    noise = torch.randn(30, *shape, generator=torch.Generator().manual_seed(0))
    return noise + targets.view(-1, *[1] * len(shape))


class TestModels(ModelContract):
    rtol = 1e-2  # of networks with weights, whose sums go in another order


@pytest.mark.parametrize("name", ["small_cnn", "allconv"])
def test_the_networks_of_the_playground_train_as_there(name):
    model = from_yaml(name)
    assert (model.epochs, model.batch_size) == (50, 32)
    x = torch.rand(40, 3, 10, 10)
    optimizers = []
    whole = model.optimizer
    model.set_params(epochs=1, optimizer=lambda p: optimizers.append(whole(p)) or optimizers[0])
    model.fit(x, torch.arange(40) % 2)
    settings = optimizers[0].param_groups[0]
    assert type(optimizers[0]) is torch.optim.RMSprop
    assert (settings["lr"], settings["alpha"], settings["eps"]) == (1e-3, 0.9, 1e-7)
    untrained = [clone(model).set_params(optimizer=lambda p: torch.optim.SGD(p, lr=1e-30)) for _ in range(2)]
    first, second = (one.fit(x[:n], torch.arange(n) % 2).module_ for one, n in zip(untrained, (40, 10), strict=True))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-20, rtol=1e-6)  # the same initial weights at every fit


@dataclass(frozen=True)
class NothingDropped:
    """Makes a network that drops nothing at random, since CUDA draws other masks."""

    make: type[torch.nn.Module]

    def __call__(self, input_shape, n_classes):
        network = self.make(input_shape=input_shape, n_classes=n_classes)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        return network


GRID = [0.01, 1.0, 100.0]
network = partial(TorchClassifier, precision="fp64", epochs=3, batch_size=40)
ON_A_GPU = {
    "logistic": LogisticRegression(),
    "logistic, searched": LogisticRegression(C=GRID),
    "one against the rest": OneVsRestLogisticRegression(penalize_intercept=True),
    "one against the rest, searched": OneVsRestLogisticRegression(C=GRID),
    "linear svm": LinearSVM(),
    "linear svm, searched": LinearSVM(C=GRID),
    "kernel svm": KernelSVM(),
    "kernel svm, searched": KernelSVM(C=GRID, gamma="auto"),
    "kernel least squares": KernelLeastSquares(),
    "kernel least squares, searched": KernelLeastSquares(C=GRID, gamma="scale"),
    "mlp": network(MLP),
    "small cnn": network(NothingDropped(SmallCNN)),
    "allconv": network(NothingDropped(AllConv)),
    "resnet18": network(partial(TorchvisionNet, name="resnet18")),
    "ensemble": TorchEnsemble(network(partial(MLP, hidden=(16,))), n_members=3),
}
IMAGES = {"small cnn": (3, 10, 11), "allconv": (3, 9, 8), "resnet18": (1, 33, 33)}
ANSWERS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")


def test_every_model_is_among_those_tried_on_a_gpu():
    public = [getattr(models, name) for name in models.__all__]
    classifiers = {one for one in public if issubclass(one, TensorClassifier)}
    networks = {one for one in public if issubclass(one, torch.nn.Module)}
    tried = list(ON_A_GPU.values())
    assert {type(model) for model in tried} == classifiers
    modules = [model.module for model in tried if isinstance(model, TorchClassifier)]
    assert {getattr(module, "func", getattr(module, "make", module)) for module in modules} == networks


def on(device, model):
    name = "estimator__device" if isinstance(model, TorchEnsemble) else "device"
    return clone(model).set_params(**{name: device})


def blobs(kind, n_classes):
    if kind == "resnet18":
        pytest.importorskip("torchvision")
    n = {"resnet18": 24, "allconv": 48, "small cnn": 48}.get(kind, 120)
    y = torch.arange(n) % n_classes
    x = torch.randn(n, *IMAGES.get(kind, (6,)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x + y.view(-1, *[1] * (x.ndim - 1)), y


def answers_of(model, x):
    return {name: getattr(model, name)(x) for name in ANSWERS if hasattr(model, name)}


def assert_close(found, want):
    assert found.keys() == want.keys()
    assert "predict" in found
    for name, values in found.items():
        torch.testing.assert_close(torch.as_tensor(values).cpu(), torch.as_tensor(want[name]), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ON_A_GPU)
class TestOnAGpu:
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_rows_there_are_answered_there_as_on_the_cpu(self, kind, n_classes):
        x, y = blobs(kind, n_classes)
        want = on("cpu", ON_A_GPU[kind]).fit(x, y)
        model = clone(ON_A_GPU[kind])
        with HostCopies() as fitting:
            model.fit(x.cuda(), y.cuda())
        assert {part.device.type for part in model.module_.parameters()} == {"cuda"}
        with HostCopies() as answering:
            found = answers_of(model, x.cuda())
        assert all(answer.is_cuda for answer in found.values())
        assert_close(found, answers_of(want, x))
        assert model.score(x.cuda(), y.cuda()) == pytest.approx(want.score(x, y))
        assert answering.largest <= n_classes
        assert fitting.largest < x.numel()

    def test_weights_of_rows_count_there_too(self, kind):
        x, y = blobs(kind, 3)
        weights = (torch.arange(len(x)) % 5).double()
        want = on("cpu", ON_A_GPU[kind]).fit(x, y, sample_weight=weights)
        found = clone(ON_A_GPU[kind]).fit(x.cuda(), y.cuda(), sample_weight=weights.cuda())
        assert_close(answers_of(found, x.cuda()), answers_of(want, x))
        assert found.score(x.cuda(), y.cuda(), weights.cuda()) == pytest.approx(want.score(x, y, weights))

    def test_rows_on_the_host_are_answered_in_their_own_kind(self, kind):
        x, y = blobs(kind, 3)
        model = on("cuda", ON_A_GPU[kind]).fit(x.numpy(), np.array(["pear", "apple", "fig"])[y])
        assert next(model.module_.parameters()).is_cuda
        want = on("cpu", ON_A_GPU[kind]).fit(x.numpy(), np.array(["pear", "apple", "fig"])[y])
        for name, answer in answers_of(want, x.numpy()).items():
            found = getattr(model, name)(x.numpy())
            assert isinstance(found, np.ndarray)
            if name == "predict":
                np.testing.assert_array_equal(found, answer)
            else:
                np.testing.assert_allclose(found, answer, rtol=1e-3, atol=1e-4)
        tensors = on("cuda", ON_A_GPU[kind]).fit(x, y)
        assert tensors.predict(x).is_cuda
        assert tensors.predict(x).equal(tensors.predict(x.cuda()))
        assert clone(ON_A_GPU[kind]).fit(x.cuda(), y).predict(x.cuda()).equal(tensors.predict(x))

    def test_a_copy_answers_the_same(self, kind, tmp_path):
        x, y = blobs(kind, 3)
        model = clone(ON_A_GPU[kind]).fit(x.cuda(), y.cuda())
        copied = copy.deepcopy(model)
        assert copied.decision_function(x.cuda()).equal(model.decision_function(x.cuda()))
        if not hasattr(model, "save"):
            return
        model.save(tmp_path / "model.pt")
        there = on("cuda", ON_A_GPU[kind]).load(tmp_path / "model.pt")
        assert there.decision_function(x.cuda()).equal(model.decision_function(x.cuda()))
        here = on("cpu", ON_A_GPU[kind]).load(tmp_path / "model.pt")
        assert_close(answers_of(model, x.cuda()), answers_of(here, x))

    def test_generators_stay_and_a_second_fit_is_the_first(self, kind):
        x, y = (part.cuda() for part in blobs(kind, 3))
        before = torch.get_rng_state(), torch.cuda.get_rng_state()
        model = clone(ON_A_GPU[kind]).fit(x, y)
        first = model.decision_function(x)
        assert torch.get_rng_state().equal(before[0])
        assert torch.cuda.get_rng_state().equal(before[1])
        torch.testing.assert_close(model.fit(x, y).decision_function(x), first, rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
def test_what_was_fitted_on_a_gpu_goes_through_pickle():
    x, y = (part.cuda() for part in blobs("logistic", 3))
    model = LogisticRegression().fit(x, y)
    copied = pickle.loads(pickle.dumps(model))
    assert copied.decision_function(x).equal(model.decision_function(x))
