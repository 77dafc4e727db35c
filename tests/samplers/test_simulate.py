import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean, make_pool, make_view
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    LabeledData,
    Pool,
    PoolView,
    Sampler,
    Schedule,
    Selection,
    rounds,
    samplers,
)
from torchal.samplers import Bandit, GraphDensity, Margin, SimulateBatch, Uniform
from torchal.samplers.simulate import draw_labels


class Certain(NearestMean):
    """Its probabilities are 0 and 1: what labels are drawn is certain."""

    def __sklearn_clone__(self):
        return type(self)()

    def predict_log_proba(self, X):
        best = self.decision_function(X).argmax(1, keepdim=True)
        return torch.full((len(X), len(self.classes_)), -torch.inf).scatter(1, best, 0.0)


class Batched(NearestMean):
    """Fits many data sets by one call, and counts the calls and the fits."""

    calls, fits = 0, 0

    def __sklearn_clone__(self):
        return type(self)()

    def fit(self, X, y):
        type(self).fits += 1
        super().fit(X, y)

    def fit_many(self, X, y):
        type(self).calls += 1
        models = [NearestMean() for _ in X]
        for model, inputs, targets in zip(models, X, y, strict=True):
            model.fit(inputs, targets)
        return models


def by_hand(view, n, size):
    """Return the rows of margin sampling in minibatches, each labeled as the model predicts."""
    rows = torch.empty(0, dtype=torch.int64)
    trial = view
    while len(rows) < n:
        new = Margin().select(trial, min(size, n - len(rows))).indices
        labels = torch.cat([trial.targets[rows], trial.classes[trial.log_probs[new].argmax(1)]])
        rows = torch.cat([rows, new])
        trial = view.refit(rows, labels)
    return rows, trial.validation_score()


@pytest.mark.parametrize(("n", "train_per_sim"), [(10, 5), (7, 3), (3, 10), (5, 1)])
def test_a_simulation_is_small_batches_with_predicted_labels(n, train_per_sim):
    view = make_view(make_pool()[0], model=Certain())
    expected, score = by_hand(view, n, -(-n // train_per_sim))
    sampler = SimulateBatch([Margin()], n_sims=3, train_per_sim=train_per_sim)
    picked = sampler.select(view, n)
    assert picked.indices.equal(expected)
    assert picked.scores.tolist() == [pytest.approx(score)] * n
    assert sampler.report()["simulated_accuracies"] == {"Margin-1": [pytest.approx(score)] * 3}
    frequent = SimulateBatch([Margin()], n_sims=3, train_per_sim=train_per_sim, keep="frequent").select(view, n)
    assert frequent.indices.equal(expected.sort().values)  # each came three times: the lowest row first
    assert frequent.scores.tolist() == [3.0] * n


def test_the_best_arm_picks_its_real_batch():
    view = make_view(make_pool()[0], seed=3)
    sampler = samplers.from_name("simulate_batch_mixture")
    picked = sampler.select(view, 10)
    report = sampler.report()
    assert list(report["mean_simulated_accuracy"]) == ["Margin-1", "Margin-0.5-Uniform-0.5", "Uniform-1"]
    means = list(report["mean_simulated_accuracy"].values())
    assert report["arm"] == means.index(max(means))
    assert [len(scores) for scores in report["simulated_accuracies"].values()] == [5, 5, 5]
    alone = SimulateBatch([Margin()], n_sims=1, keep="best_arm").select(view, 10)
    assert alone.indices.equal(Margin().select(view, 10).indices)
    assert len(picked.indices) == 10


def test_the_best_simulation_is_the_one_with_the_best_score():
    view = make_view(make_pool(seed=5)[0])
    sampler = SimulateBatch([Margin(), Uniform()], n_sims=6, train_per_sim=2)
    picked = sampler.select(view, 8)
    report = sampler.report()
    assert picked.scores[0] == max(report["simulated_accuracies"][report["arm_name"]])
    named = report["members"]["Margin" if report["arm"] == 0 else "Uniform"]
    assert sorted(named["rows"]) == sorted(picked.indices.tolist())


def test_frequency_counts_over_all_arms():
    counts = torch.zeros(60)
    view = make_view(make_pool()[0])
    sampler = SimulateBatch([Margin(), Uniform()], n_sims=4, train_per_sim=3, keep="frequent")
    for i, arm in enumerate(sampler.arms):
        counts += sampler._simulate(view.fork(i), 6, arm).rows.flatten().bincount(minlength=60)
    picked = sampler.select(view, 6)
    assert picked.scores.tolist() == sorted(counts.tolist(), reverse=True)[:6]
    assert picked.scores.tolist() == counts[picked.indices].tolist()


def test_simulations_differ_and_do_not_depend_on_each_other():
    view = make_view(make_pool(n_rows=400)[0])
    rows = SimulateBatch([Uniform()], n_sims=5, train_per_sim=2, keep="frequent")._simulate(view, 10, [1.0]).rows
    assert len(rows.flatten().unique()) > 35
    assert all(len(row.unique()) == 10 for row in rows)


def test_all_simulations_are_fitted_by_one_call_where_the_model_can():
    Batched.calls = Batched.fits = 0
    pool = make_pool()[0]
    view = make_view(pool, model=Batched())
    assert (Batched.calls, Batched.fits) == (0, 1)
    picked = SimulateBatch([Margin()], n_sims=4, train_per_sim=5).select(view, 10)
    assert (Batched.calls, Batched.fits) == (5, 1)
    assert picked.indices.equal(
        SimulateBatch([Margin()], n_sims=4, train_per_sim=5).select(make_view(pool), 10).indices
    )


def test_frequency_does_not_fit_what_it_does_not_score():
    Batched.calls = Batched.fits = 0
    SimulateBatch([Margin()], train_per_sim=5, keep="frequent").select(make_view(make_pool()[0], model=Batched()), 10)
    assert Batched.calls == 4


def test_a_class_that_was_never_seen_is_never_drawn():
    pool, targets, _ = make_pool(n_labeled=0)
    two = (targets != 1).nonzero().squeeze(1)[:6]
    view = make_view(pool.with_labels(two, targets[two]))
    drawn = view.classes[draw_labels(view.log_probs, generator=view.generator)]
    assert drawn.unique().tolist() == [0, 2]
    assert len(samplers.from_name("simulate_batch_mixture").select(view, 9).indices.unique()) == 9


@dataclass
class Recording(Sampler):
    """Picks the first rows, and remembers the randomness and the labels that it was shown."""

    seeds: list = field(default_factory=list)
    labels: list = field(default_factory=list)

    def select(self, view, n):
        self.seeds.append(view.generator.initial_seed())
        self.labels.append(int(view.labeled.sum()))
        rows = view.candidates.nonzero().squeeze(1)[:n]
        return Selection(rows, torch.zeros(n))


def test_every_minibatch_has_randomness_of_its_own_and_the_real_batch_too():
    member = Recording()
    SimulateBatch([member], n_sims=3, train_per_sim=4, keep="best_arm").select(make_view(make_pool()[0]), 8)
    assert member.labels == [6] * 3 + [8] * 3 + [10] * 3 + [12] * 3 + [6]
    assert len(set(member.seeds)) == 13


@pytest.mark.parametrize("keep", ["best_simulation", "frequent"])
def test_a_bandit_inside_is_not_paid_for_a_batch_that_no_single_draw_made(keep):
    bandit = Bandit([Margin(), Uniform()])
    pool, targets, validation = make_pool()
    sampler = SimulateBatch([bandit], n_sims=3, train_per_sim=2, keep=keep)
    learner = ActiveLearner(NearestMean(), sampler, pool, validation=validation)
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=6, max_rounds=2))
    assert last.report["members"]["Bandit"] == {"rows": last.rows.tolist(), "n_rows": 6}
    assert bandit._pulls == []
    best_arm = SimulateBatch([Bandit([Margin()])], n_sims=2, train_per_sim=2, keep="best_arm")
    learner = ActiveLearner(NearestMean(), best_arm, pool, validation=validation)
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=6, max_rounds=2))
    assert best_arm.samplers[0]._pulls == [0, 0]


def test_outputs_of_one_simulation_at_most_are_held():
    class Watched(NearestMean):
        held = []

        def __sklearn_clone__(self):
            return Watched()

        def decision_function(self, X):
            out = super().decision_function(X)
            if len(X) == 60:
                Watched.held = [ref for ref in Watched.held if ref() is not None]
                Watched.held.append(weakref.ref(out))
                assert len(Watched.held) <= 2  # and those of the view itself
            return out

    SimulateBatch([Margin()], n_sims=6, train_per_sim=3).select(make_view(make_pool()[0], model=Watched()), 6)
    assert Watched.held


def test_probabilities_are_computed_of_the_picked_rows_alone():
    class Sized(NearestMean):
        sizes = []

        def __sklearn_clone__(self):
            return Sized()

        def predict_log_proba(self, X):
            Sized.sizes.append(len(X))
            return super().predict_log_proba(X)

    SimulateBatch([Margin()], n_sims=2, train_per_sim=3, keep="frequent").select(
        make_view(make_pool()[0], model=Sized()), 6
    )
    assert Sized.sizes == [2] * 6


class Texts:
    """Inputs that are gathered as a list."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, rows):
        return [self.texts[int(row)] for row in rows]


@pytest.mark.filterwarnings("ignore:all .* candidates have the same .* score")
@pytest.mark.parametrize("keep", ["best_arm", "best_simulation", "frequent"])
@pytest.mark.parametrize("kind", ["texts", "memory map"])
def test_inputs_of_other_kinds(kind, keep, tmp_path):
    targets = torch.arange(40) % 2
    if kind == "texts":
        inputs = Texts(
            [f"{'good fine' if label else 'bad poor'} word{i % 7}" for i, label in enumerate(targets.tolist())]
        )
        model = make_pipeline(CountVectorizer(), LogisticRegression())
    else:
        np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 3)) + targets[:, None].numpy())
        inputs, model = np.load(tmp_path / "x.npy", mmap_mode="r"), LogisticRegression()
    part = LabeledData(inputs, targets)
    sampler = SimulateBatch([Margin(), Uniform()], n_sims=2, train_per_sim=7, keep=keep)  # minibatches of one row
    learner = ActiveLearner(model, sampler, Pool.unlabeled(inputs, n_classes=2), validation=part)
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=7, max_rounds=2), start=torch.arange(6))
    assert last.n_labeled == 20


def test_members_with_state_learn_from_bought_rows_only():
    shared = GraphDensity()
    pool, targets, validation = make_pool()
    learner = ActiveLearner(
        NearestMean(), SimulateBatch([shared, samplers.Hierarchical()]), pool, validation=validation
    )
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=6, max_rounds=3))
    bought = set(shared.state_dict()["bought"])
    assert bought == {row for result in learner.history[1:] for row in result.report["members"]["GraphDensity"]["rows"]}
    assert last.n_labeled == 24


@pytest.mark.parametrize("name", ["simulate_batch_mixture", "simulate_batch_best_sim", "simulate_batch_frequency"])
def test_refuses_models_and_parts_before_the_first_fit(name):
    sampler, pool = samplers.from_name(name), make_pool()[0]
    with pytest.raises(CapabilityError, match="SimulateBatch needs a model with predict_proba; LinearSVC has none"):
        ActiveLearner(LinearSVC(), sampler, pool)

    class Single:
        fit = predict = predict_proba = decision_function = None

    with pytest.raises(CapabilityError, match="fits copies of the model; Single has no get_params"):
        sampler.check_model(Single())
    if name == "simulate_batch_frequency":
        assert len(ActiveLearner(NearestMean(), sampler, pool).ask(3)) == 3
    else:
        with pytest.raises(ConfigError, match="validation part"):
            ActiveLearner(NearestMean(), sampler, pool)


def test_a_view_without_a_model_is_refused():
    view = PoolView.from_tensors(features=torch.rand(9, 2), log_probs=torch.rand(9, 2).log_softmax(1))
    with pytest.raises(CapabilityError, match="needs a model"):
        samplers.from_name("simulate_batch_best_sim").select(view, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_sims": 0}, "n_sims"),
        ({"train_per_sim": 0}, "train_per_sim"),
        ({"keep": "best"}, "best_arm, best_simulation, frequent; got 'best'"),
        ({"arms": []}, "at least one arm"),
        ({"samplers": [Margin(), "uniform"]}, "Sampler objects"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        SimulateBatch(**({"samplers": [Margin()]} | settings))


def test_needs_what_a_member_needs():
    assert SimulateBatch([Bandit([Margin()])], keep="frequent").needs_validation
    assert not SimulateBatch([Margin()], keep="frequent").needs_validation
