"""Committees of any classifiers."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tests.contracts import check_name, scikit_learn_checks
from torchal import ActiveLearner, Pool
from torchal.errors import CapabilityError, ConfigError, DataError
from torchal.models import Committee, KernelSVM, LogisticRegression, SmallCNN, TorchClassifier
from torchal.protocols import HasMaxDraws, HasPosterior, provides
from torchal.samplers import BALD, Margin, QueryByCommittee

X = np.random.default_rng(0).normal(size=(60, 5))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
TREES = Committee(DecisionTreeClassifier(), n_copies=20)
MIXED = Committee([LogisticRegression(), DecisionTreeClassifier(random_state=0), GaussianNB()])

CHECKS = [
    *scikit_learn_checks(Committee(LogisticRegression(), n_copies=2)),
    *scikit_learn_checks(Committee([DecisionTreeClassifier(random_state=0), GaussianNB()])),
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_a_list_of_members_sees_all_rows():
    model = clone(MIXED).fit(X, Y)
    draws = model.sample_log_probs(X, 3)
    assert draws.shape == (60, 3, 3)
    alone = np.stack([clone(one).fit(X, Y).predict_proba(X) for one in MIXED.estimators], 1)
    np.testing.assert_allclose(np.exp(draws), alone, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(X), alone.mean(1), atol=1e-12)
    assert (model.predict(X) == alone.mean(1).argmax(1)).all()


def test_draws_are_the_first_members_and_the_same_for_all_rows():
    model = clone(TREES).fit(X, Y)
    draws = model.sample_log_probs(X, 20)
    np.testing.assert_array_equal(model.sample_log_probs(X, 5), draws[:, :5])
    np.testing.assert_array_equal(model.sample_log_probs(X[[7]], 20), draws[[7]])
    assert np.isneginf(draws).any()
    assert not np.isnan(draws).any()
    with pytest.raises(ConfigError, match="asked for 21 draws, the committee has 20 members"):
        model.sample_log_probs(X, 21)


def test_copies_differ_by_their_rows_and_their_seeds():
    rows = [model.sample_log_probs(X, 3) for model in (clone(TREES).fit(X, Y), clone(TREES).fit(X, Y))]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0][:, 0], rows[0][:, 1])
    other = clone(TREES).set_params(random_state=1).fit(X, Y)
    assert not np.array_equal(other.sample_log_probs(X, 3), rows[0])
    forests = Committee(RandomForestClassifier(n_estimators=2), n_copies=2, bootstrap=False).fit(X, Y)
    draws = forests.sample_log_probs(X, 2)
    assert not np.array_equal(draws[:, 0], draws[:, 1])
    same = Committee(LogisticRegression(), n_copies=2, bootstrap=False).fit(X, Y).sample_log_probs(X, 2)
    np.testing.assert_array_equal(same[:, 0], same[:, 1])


def test_a_resample_keeps_every_class():
    codes = np.array([0, 0, 0, 0, 1, 2, 2])
    priors = Committee(DummyClassifier(strategy="prior"), n_copies=50).fit(X[:7], codes)
    for member in priors.estimators_:
        np.testing.assert_allclose(member.class_prior_, np.array([4, 1, 2]) / 7)
    model = clone(TREES).fit(X[:4], np.array([0, 0, 0, 1]))
    assert all(member.classes_.tolist() == [0, 1] for member in model.estimators_)


def test_members_without_probabilities_vote():
    model = Committee([LinearSVC(), KernelSVM()]).fit(X, Y)
    draws = np.exp(model.sample_log_probs(X, 2))
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_array_equal(draws[:, 0].argmax(1), model.estimators_[0].predict(X))


def test_labels_that_are_text_and_networks_and_sparse_rows():
    names = np.array(["pear", "apple", "fig"])
    model = Committee([TorchClassifier(epochs=1, device="cpu"), GaussianNB()]).fit(X, names[Y])
    assert list(model.classes_) == ["apple", "fig", "pear"]
    assert set(model.predict(X)) <= set(names)
    sparse = Committee(LogisticRegression(), n_copies=2).fit(scipy.sparse.csr_matrix(X), Y)
    np.testing.assert_allclose(sparse.predict_proba(scipy.sparse.csr_matrix(X)).sum(1), 1)


def test_settings_of_the_inner_classifier():
    assert Committee().fit(X, Y).estimators_[9].C_ == 1.0
    model = Committee(LogisticRegression()).set_params(estimators__C=7.0)
    assert model.get_params()["estimators__C"] == 7.0
    assert clone(model).fit(X, Y).estimators_[0].C_ == 7.0


@pytest.mark.parametrize(
    ("committee", "error", "match"),
    [
        (Committee([]), ConfigError, "at least one member, got an empty list"),
        (Committee(n_copies=0), ConfigError, "n_copies"),
        (Committee(bootstrap="yes"), ConfigError, "bootstrap must be True, False or 'auto', got 'yes'"),
        (Committee(LogisticRegression), CapabilityError, "a member must be a classifier with fit and predict"),
    ],
)
def test_impossible_settings(committee, error, match):
    with pytest.raises(error, match=match):
        committee.fit(X, Y)


def test_one_class():
    with pytest.raises(DataError, match="at least 2 classes, got 1 class"):
        Committee().fit(X, np.zeros(60))


def test_in_a_pool():
    assert provides(MIXED, HasPosterior)
    assert provides(MIXED, HasMaxDraws)
    assert (MIXED.max_draws, TREES.max_draws) == (3, 20)
    rows, targets = torch.from_numpy(X), torch.from_numpy(Y)
    pool = Pool.unlabeled(rows, n_classes=3)
    for sampler in (Margin(), BALD(), QueryByCommittee()):
        learner = ActiveLearner(MIXED, sampler, pool)
        learner.tell(torch.arange(12), targets[:12])
        assert len(learner.ask(4)) == 4
    model = clone(MIXED).fit(X[:12], Y[:12])
    view = pool.with_labels(torch.arange(12), targets[:12]).view(model, generator=torch.Generator())
    assert view.max_draws == 3
    drawn = view.posterior_log_probs(3)
    np.testing.assert_array_equal(drawn.numpy(), model.sample_log_probs(X, 3))
    np.testing.assert_array_equal(view.posterior_log_probs_of(torch.tensor([4, 2]), 3), drawn[[4, 2]])


def test_networks_of_images_get_images_in_a_pool():
    images, labels = torch.rand(12, 10, 10), torch.arange(12) % 3
    networks = Committee([TorchClassifier(SmallCNN, epochs=1, device="cpu", random_state=seed) for seed in (0, 1)])
    assert networks.keeps_shape
    assert not clone(MIXED).keeps_shape  # they read flat rows
    pool = Pool.unlabeled(images, n_classes=3).with_labels(torch.arange(6), labels[:6])
    assert len(ActiveLearner(networks, BALD(), pool).ask(2)) == 2
    assert len(ActiveLearner(clone(MIXED), BALD(), pool).ask(2)) == 2
