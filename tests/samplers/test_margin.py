import pytest
import torch
from sklearn.svm import SVC, LinearSVC

from tests.contracts import make_pool, make_view
from torchal import CapabilityError, ConfigError, PoolView
from torchal.samplers import Entropy, LeastConfidence, Margin

# Row 0 has the closest probabilities, row 1 the closest decision values.
SCORES = torch.tensor([[4.0, 3.0, 9.0, 8.9], [2.0, 1.95, 0.0, 0.0]])
LOG_PROBS = torch.tensor([[0.40, 0.40, 0.10, 0.10], [0.5, 0.3, 0.1, 0.1]]).log()


@pytest.mark.parametrize(("on", "first"), [("auto", 1), ("scores", 1), ("probabilities", 0)])
def test_on_says_what_the_gap_is_of(on, first):
    view = PoolView.from_tensors(scores=SCORES, log_probs=LOG_PROBS)
    assert Margin(on=on).select(view, 1).indices.tolist() == [first]


def test_falls_back_on_probabilities_and_never_on_their_logarithms():
    # gaps of probabilities: 0.1 and 0.09; gaps of logarithms: 0.22 and 2.3
    log_probs = torch.tensor([[0.5, 0.4, 0.1], [0.10, 0.01, 0.89]]).log()
    picked = Margin().select(PoolView.from_tensors(log_probs=log_probs), 1)
    assert picked.scores.tolist() == pytest.approx([-0.1])


def test_one_column_of_decision_values_means_two_classes():
    view = PoolView.from_tensors(scores=torch.tensor([3.0, -0.5, 1.0]))
    assert Margin().select(view, 2).indices.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("sampler", "model", "needs"),
    [
        (Entropy(), LinearSVC(), "Entropy needs a model with predict_proba; LinearSVC has none"),
        (LeastConfidence(), SVC(probability=False), "predict_proba"),
        (Margin(on="probabilities"), LinearSVC(), "predict_proba"),
        (Margin(), object(), "decision_function or predict_proba; object has none"),
    ],
    ids=["entropy", "least_confidence", "margin on probabilities", "margin"],
)
def test_refuses_a_model_that_cannot_serve(sampler, model, needs):
    with pytest.raises(CapabilityError, match=needs):
        sampler.check_model(model)


def test_accepts_decision_values_or_probabilities():
    Margin().check_model(LinearSVC())
    Margin(on="scores").check_model(LinearSVC())
    Entropy().check_model(make_view(make_pool()[0]).model)


def test_refuses_an_unknown_setting():
    with pytest.raises(ConfigError, match="auto, scores, probabilities; got 'logits'"):
        Margin(on="logits")
