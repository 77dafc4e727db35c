import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import nn

from tests.contracts import NearestMean
from tests.references import statistics as reference
from torchal import CapabilityError, LabeledData, Pool, TorchClassifier
from torchal.models import MLP
from torchal.pool import interop
from torchal.runs import metrics
from torchal.runs.metrics import Outcome, evaluate
from torchal.statistics.diagnostics import brier_score


@st.composite
def outcomes(draw):
    n_classes, n_rows = draw(st.integers(2, 4)), draw(st.integers(1, 20))
    labels = st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows)
    logits = torch.randn(n_rows, n_classes, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return Outcome(torch.tensor(draw(labels)), torch.tensor(draw(labels)), logits.double().log_softmax(1))


@given(outcomes())
def test_agree_with_scikit_learn(outcome):
    targets, predictions = outcome.targets.numpy(), outcome.predictions.numpy()
    assert metrics.accuracy(outcome) == pytest.approx(sk.accuracy_score(targets, predictions))
    recalls = sk.recall_score(targets, predictions, labels=sorted(set(targets.tolist())), average=None)
    assert metrics.balanced_accuracy(outcome) == pytest.approx(recalls.mean())
    assert metrics.macro_f1(outcome) == pytest.approx(
        sk.f1_score(targets, predictions, average="macro", zero_division=0.0)
    )
    probs = outcome.log_probs.exp().numpy()
    labels = list(range(probs.shape[1]))
    assert metrics.log_loss(outcome) == pytest.approx(sk.log_loss(targets, probs, labels=labels))
    truth = np.eye(probs.shape[1])[targets]
    assert metrics.brier_score(outcome) == pytest.approx(((probs - truth) ** 2).sum(1).mean())
    confidence = probs[np.arange(len(targets)), predictions]
    assert metrics.expected_calibration_error(outcome) == pytest.approx(
        reference.calibration_error(confidence, targets == predictions, 15)
    )


def test_brier_score_in_chunks(monkeypatch):
    log_probs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    outcome = Outcome(torch.arange(50) % 3, log_probs.argmax(1), log_probs)
    whole = metrics.brier_score(outcome)
    monkeypatch.setattr(metrics, "values_per_chunk", lambda device: 20)
    assert metrics.brier_score(outcome) == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(brier_score(log_probs.exp().numpy(), outcome.targets.numpy()), rel=1e-5)


def test_calibration_of_a_class_that_the_model_has_not_seen():
    log_probs = torch.tensor([[0.0, -math.inf], [math.log(0.6), math.log(0.4)]])
    outcome = Outcome(torch.tensor([1, 0]), torch.tensor([0, 0]), log_probs)
    assert metrics.brier_score(outcome) == pytest.approx((2 + 0.32) / 2)
    assert metrics.expected_calibration_error(outcome) == pytest.approx((1 + 0.4) / 2)


def test_probabilities_that_are_not_known_make_a_metric_that_is_not_and_end_no_run():
    log_probs = torch.tensor([[math.nan, math.nan], [math.log(0.6), math.log(0.4)]])
    outcome = Outcome(torch.tensor([1, 0]), torch.tensor([0, 0]), log_probs)
    assert math.isnan(metrics.brier_score(outcome))
    assert math.isnan(metrics.expected_calibration_error(outcome))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["brier_score", "expected_calibration_error"])
def test_calibration_is_the_same_on_a_gpu(name):
    log_probs = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    outcome = Outcome(torch.arange(1000) % 5, log_probs.argmax(1), log_probs)
    there = Outcome(*(part.cuda() for part in outcome))
    assert metrics.BY_NAME[name](there) == pytest.approx(metrics.BY_NAME[name](outcome), rel=1e-6)


def test_which_way_is_better_of_each():
    """Metrics of a sure right answer against a sure wrong one say so."""
    right, wrong = torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0, 1, 0])
    log_probs = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    known = {"accuracy": metrics.accuracy, "log_loss": metrics.log_loss, **metrics.BY_NAME}
    assert set(known) >= metrics.LOWER_IS_BETTER
    for name, metric in known.items():
        good, bad = (metric(Outcome(right, answer, log_probs[answer])) for answer in (right, wrong))
        assert (good < bad) == (name in metrics.LOWER_IS_BETTER), name


def test_auc_agrees_with_scikit_learn_for_two_and_three_classes():
    for n_classes in (2, 3):
        targets = torch.arange(30) % n_classes
        log_probs = torch.randn(30, n_classes, generator=torch.Generator().manual_seed(0)).double().log_softmax(1)
        probs = log_probs.exp().numpy()
        score = probs[:, 1] if n_classes == 2 else probs
        expected = sk.roc_auc_score(targets.numpy(), score, multi_class="ovr")
        assert metrics.auc(Outcome(targets, targets, log_probs)) == pytest.approx(expected)


def test_auc_is_nan_where_a_class_is_missing():
    assert math.isnan(metrics.auc(Outcome(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.zeros(2, 2) - math.log(2))))


def test_log_loss_of_a_sure_mistake_is_finite():
    log_probs = torch.tensor([[0.0, -math.inf]])
    assert metrics.log_loss(Outcome(torch.tensor([1]), torch.tensor([0]), log_probs)) == pytest.approx(
        34.5388, abs=1e-3
    )


@pytest.mark.parametrize(
    "metric", [metrics.log_loss, metrics.auc, metrics.brier_score, metrics.expected_calibration_error]
)
def test_need_probabilities(metric):
    with pytest.raises(CapabilityError, match=f"{metric.__name__} needs a model with predict_proba"):
        metric(Outcome(torch.tensor([0]), torch.tensor([0]), None))


def test_classes_that_the_model_has_not_seen_have_probability_zero():
    model = NearestMean()
    model.fit(torch.tensor([[0.0], [5.0]]), torch.tensor([1, 3]))
    data = LabeledData(torch.tensor([[0.0], [5.0], [2.0]]), torch.tensor([1, 3, 0]))
    seen = torch.tensor([1, 3])
    widths = []

    def width(outcome):
        widths.append(outcome.log_probs.exp().sum(0)[[0, 2]].tolist())
        return float(outcome.log_probs.shape[1])

    scored = evaluate(model, data, n_classes=4, seen=seen, metrics={"width": width})
    assert widths == [[0.0, 0.0]]
    assert scored["width"] == 4
    assert scored["accuracy"] == pytest.approx(2 / 3)
    assert scored["log_loss"] > 34 / 3


def _fitted_network(kind=TorchClassifier):
    data = LabeledData(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3)
    model = kind(MLP, epochs=1, device="cpu", random_state=0).fit(data.inputs, data.targets)
    return model, data


def test_a_network_is_evaluated_in_one_pass():
    model, data = _fitted_network()
    passes = []
    model.module_.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    scored = evaluate(model, data, n_classes=3, seen=torch.arange(3), metrics={})
    assert passes == [40]
    assert scored["accuracy"] == model.score(data.inputs, data.targets)
    expected = nn.functional.nll_loss(model.predict_log_proba(data.inputs), data.targets)
    assert scored["log_loss"] == pytest.approx(float(expected), rel=1e-6)


class _SaysZero(TorchClassifier):
    def predict(self, X):
        return torch.zeros(len(X), dtype=torch.int64)


class _IsSure(TorchClassifier):
    def predict_log_proba(self, X):
        return torch.tensor([[0.0, -100.0, -100.0]]).expand(len(X), 3)


def test_what_a_child_of_a_network_says_otherwise_is_heard():
    model, data = _fitted_network(_SaysZero)
    scored = evaluate(model, data, n_classes=3, seen=torch.arange(3), metrics={})
    assert scored["accuracy"] == pytest.approx(14 / 40)
    model, data = _fitted_network(_IsSure)
    scored = evaluate(model, data, n_classes=3, seen=torch.arange(3), metrics={})
    assert scored["log_loss"] > 20


class _HasOtherOdds(TorchClassifier):
    def predict_proba(self, X):
        return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(X), 3)


def test_nor_is_its_own_predict_proba_passed_over():
    model, data = _fitted_network(_HasOtherOdds)
    assert interop.log_probs(model, data.inputs)[:, 0].tolist() == [0.0] * 40
    pool = Pool(data.inputs, torch.where(torch.arange(40) < 3, data.targets, -1), n_classes=3)
    assert pool.view(model, generator=torch.Generator()).log_probs[:, 0].tolist() == [0.0] * 40


def test_features_that_nobody_reads_are_not_looked_for():
    model, data = _fitted_network()
    model.embedding = "none_such"
    assert evaluate(model, data, n_classes=3, seen=torch.arange(3), metrics={})["accuracy"] > 0
