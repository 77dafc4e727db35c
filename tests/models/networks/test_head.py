"""The last linear layer of a network by itself."""

from functools import partial

import pytest
import torch
from torch import nn

from torchal.errors import CapabilityError
from torchal.models import MLP, LogisticRegression, SmallCNN, TorchClassifier, TorchEnsemble
from torchal.protocols import HasLastLayer, provides

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
IMAGES = torch.randn(20, 1, 10, 10, generator=torch.Generator().manual_seed(0))


class Headless(MLP):
    """Goes on after its last linear layer."""

    def forward(self, x):
        return super().forward(x).square()


class TwoHeads(nn.Module):
    """Its last layer in the order of definition is not the one that makes the logits."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.head = nn.Linear(5, n_classes, bias=False)
        self.body = nn.Sequential(nn.Linear(n_features, 5), nn.Tanh())

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16-mixed"])
@pytest.mark.parametrize("module", [MLP, partial(MLP, dropout=0.5), TwoHeads, partial(MLP, hidden=())])
def test_it_makes_the_logits_of_the_embedding(module, precision):
    model = TorchClassifier(module, epochs=2, precision=precision, device="cpu").fit(X, Y)
    weight, bias = model.last_layer(X[:1])
    logits = model.transform(X) @ weight.T + bias
    tolerance = 0.02 if precision == "bf16-mixed" else 1e-5
    torch.testing.assert_close(logits, model.outputs(X).logits, rtol=tolerance, atol=tolerance)


def test_of_images_and_in_arrays():
    model = TorchClassifier(SmallCNN, epochs=1, device="cpu").fit(IMAGES.numpy(), Y[:20].numpy())
    weight, bias = model.last_layer(IMAGES[:2].numpy())
    logits = model.transform(IMAGES.numpy()) @ weight.T + bias
    torch.testing.assert_close(torch.from_numpy(logits), model.outputs(IMAGES).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (TorchClassifier(Headless, epochs=1), "the last nn.Linear makes logits that are up to .* off"),
        (TorchClassifier(MLP, epochs=1, embedding="1"), r"an nn.Linear of \(3, 128\) weights|up to .* off"),
        (TorchClassifier(MLP, epochs=1, embedding="0"), r"nn.Linear of \(3, 6\) weights is needed, the last .*128"),
    ],
    ids=["squares", "before the ReLU", "the input"],
)
def test_logits_that_are_not_linear_in_the_embedding_are_refused(model, words):
    with pytest.raises(CapabilityError, match=words):
        model.fit(X, Y).last_layer(X)


def test_who_has_one():
    assert provides(TorchClassifier(), HasLastLayer)
    assert provides(LogisticRegression(), HasLastLayer)
    assert not provides(TorchEnsemble(), HasLastLayer)  # the mean of several softmaxes is none


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_logistic_regression_is_nothing_else(n_classes, fit_intercept):
    model = LogisticRegression(fit_intercept=fit_intercept).fit(X, Y % n_classes)
    weight, bias = model.last_layer(X[:1])
    assert weight.shape == (n_classes, 6)
    torch.testing.assert_close((X.double() @ weight.T + bias).log_softmax(1), model.predict_log_proba(X))


@pytest.mark.gpu
def test_it_is_where_the_network_is():
    model = TorchClassifier(MLP, epochs=1).fit(X.cuda(), Y.cuda())
    weight, bias = model.last_layer(X[:2].cuda())
    assert weight.is_cuda
    assert bias.is_cuda
