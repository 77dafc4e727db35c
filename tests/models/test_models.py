"""Every model that has a yaml keeps the contract."""

from pathlib import Path

import pytest
import torch
from sklearn.base import clone

from tests.contracts import ModelContract
from torchal.models import TorchClassifier

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
