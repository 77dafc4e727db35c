"""What a view shares with its forks and refits; what it tells of a pool is in test_pool.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import torchal
from tests.contracts import NearestMean, make_pool, make_view
from torchal import CapabilityError, ConfigError, DataError, Pool, PoolView, ShapeError
from torchal.models import Committee
from torchal.pool import interop
from torchal.protocols import HasBatchedFit, HasLastLayer, HasPosterior, provides
from torchal.samplers import Margin, from_name
from torchal.samplers.posterior import score_draws


class Counting(NearestMean):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __sklearn_clone__(self):
        return Counting()

    def decision_function(self, X):
        self.calls += 1
        return super().decision_function(X)


class Many(NearestMean):
    answer = staticmethod(lambda models: models)

    def __sklearn_clone__(self):
        return type(self)()

    def fit_many(self, X, y):
        assert X.shape[:2] == y.shape
        models = [NearestMean() for _ in X]
        for model, inputs, targets in zip(models, X, y, strict=True):
            model.fit(inputs, targets)
        return type(self).answer(models)


def numbers(view):
    return torch.rand(4, generator=view.generator).tolist()


def test_forks_draw_other_numbers_each_the_same_every_time():
    view = make_view(make_pool()[0])
    forks = [view.fork(key) for key in range(4)]
    drawn = {tuple(numbers(fork)) for fork in (view, *forks, *(fork.fork(0) for fork in forks))}
    assert len(drawn) == 9
    assert numbers(view.fork(2)) == numbers(forks[2])
    assert numbers(make_view(make_pool()[0], seed=1).fork(2)) != numbers(forks[2])


@pytest.mark.parametrize("first", [0, 1, 2])
def test_forks_share_outputs_whoever_reads_first(first):
    view = make_view(make_pool()[0], model=Counting())
    views = [view, view.fork(0), view.fork(0).fork(1)]
    scores = views[first].scores
    assert all(one.scores is scores for one in views)
    assert view.model.calls == 1


def test_a_narrowed_view_has_fewer_candidates_and_all_else_in_common():
    view = make_view(make_pool()[0], model=Counting())
    some = view.candidates & (torch.arange(60) < 20)
    narrow = view.narrowed(some)
    assert narrow.candidates.equal(some)
    assert not view.candidates.equal(some)
    assert narrow.scores is view.scores
    assert narrow.labeled is view.labeled
    assert view.model.calls == 1
    assert numbers(narrow) == numbers(view)
    assert narrow.fork(1).candidates.equal(some)


def test_a_view_is_not_narrowed_to_other_rows():
    view = make_view(make_pool()[0])
    with pytest.raises(ShapeError, match="6 of 60 rows are no candidates of this view"):
        view.narrowed(torch.ones(60, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"candidates must have shape \(60,\), got \(3,\)"):
        view.narrowed(torch.ones(3, dtype=torch.bool))


def test_a_refit_does_not_share_outputs_of_the_model():
    pool, targets, _ = make_pool()
    view = make_view(pool)
    rows = pool.candidates.nonzero().squeeze(1)[:8]
    before, flat = view.scores, view.flat_inputs
    after = view.refit(rows, targets[rows])
    assert not after.scores.equal(before)
    assert view.scores is before
    assert after.flat_inputs is flat  # these are the pool's


def test_without_some_labels_the_model_is_another_and_nothing_else_changes():
    pool, _, _ = make_pool()
    view = make_view(pool)
    rows = view.labeled.nonzero().squeeze(1)
    before, candidates = view.scores, view.candidates.clone()
    without = view.without_labels(rows[3:])
    assert without.labeled.nonzero().squeeze(1).equal(rows[:3])
    assert (without.targets[rows[3:]] == -1).all()
    assert without.candidates.equal(candidates)
    fitted = NearestMean()
    fitted.fit(pool.inputs[rows[:3]], pool.targets[rows[:3]])
    assert without.scores.equal(fitted.decision_function(pool.inputs))
    assert view.scores is before
    assert view.labeled[rows].all()


def test_only_labels_that_were_bought_can_be_taken_away():
    view = make_view(make_pool()[0])
    with pytest.raises(DataError, match="1 of 2 rows are not labeled"):
        view.without_labels(torch.stack([view.labeled.nonzero()[0, 0], view.candidates.nonzero()[0, 0]]))
    with pytest.raises(CapabilityError, match="refit needs a model"):
        PoolView.from_tensors(scores=torch.rand(2, 2), targets=torch.tensor([0, -1])).without_labels(torch.tensor([0]))


def test_given_outputs_are_shared_too():
    view = PoolView.from_tensors(scores=torch.rand(5, 2))
    assert view.fork(0).scores is view.scores
    with pytest.raises(CapabilityError, match="log_probs needs a model"):
        _ = view.fork(0).log_probs


def test_refits_by_one_call_are_those_one_after_another():
    pool, targets, _ = make_pool()
    rows = pool.candidates.nonzero().squeeze(1)[:12].view(3, 4)
    assert provides(Many(), HasBatchedFit)
    assert not provides(NearestMean(), HasBatchedFit)
    many, single = (make_view(pool, model=model).refit(rows, targets[rows]) for model in (Many(), NearestMean()))
    assert many.scores.equal(single.scores)
    assert many.validation_score() == single.validation_score()


def test_a_model_that_fits_another_number_is_refused(monkeypatch):
    monkeypatch.setattr(Many, "answer", staticmethod(lambda models: models[1:]))
    pool, targets, _ = make_pool()
    rows = pool.candidates.nonzero().squeeze(1)[:4].view(2, 2)
    with pytest.raises(ShapeError, match="fit_many answered 2 data sets with 1 models"):
        make_view(pool, model=Many()).refit(rows, targets[rows])


def test_a_scikit_learn_model_gets_flat_rows_all_at_once_too():
    shapes = []

    class Batched(LogisticRegression):
        def fit_many(self, X, y):
            shapes.append((type(X), X.shape, y.shape))
            return [clone(self).fit(*pair) for pair in zip(X, y, strict=True)]

    data = [(torch.rand(6, 3, 2, 2), torch.arange(6) % 2) for _ in range(2)]
    assert len(interop.fit_many(Batched(), data)) == 2
    assert shapes == [(np.ndarray, (2, 6, 12), (2, 6))]


def test_training_sets_are_made_one_by_one_for_a_model_that_fits_one_by_one():
    made = []

    class Single(NearestMean):
        def __sklearn_clone__(self):
            return Single()

        def fit(self, X, y):
            made.append("fit")
            super().fit(X, y)

    def data():
        for _ in range(3):
            made.append("made")
            yield torch.rand(4, 2), torch.arange(4) % 2

    interop.fit_many(Single(), data())
    assert made == ["made", "fit"] * 3


def test_log_probs_of_some_rows():
    view = make_view(make_pool()[0])
    rows = torch.tensor([3, 50, 7])
    some = view.log_probs_of(rows)
    assert "log_probs" not in view.outputs
    assert torch.allclose(some, view.log_probs[rows])
    new = view.candidates.nonzero()[:3]
    trials = view.refit(new, torch.zeros_like(new))
    assert torch.allclose(trials.log_probs_of(rows), torch.stack([trial.log_probs_of(rows) for trial in trials.trials]))
    assert trials.log_probs_of(rows).shape == (3, 3, 3)
    assert not any("log_probs" in trial.outputs for trial in (trials, *trials.trials))  # nothing of the other rows


def draws(n=5, k=4, c=3):
    return torch.randn(n, k, c, generator=torch.Generator().manual_seed(0)).log_softmax(2)


def test_posterior_draws_of_some_rows_are_those_of_all():
    view = make_view(make_pool()[0])
    rows = torch.tensor([50, 3, 7])
    assert view.posterior_log_probs(4).shape == (60, 4, 3)
    torch.testing.assert_close(view.posterior_log_probs_of(rows, 4), view.posterior_log_probs(6)[rows, :4])
    given = PoolView.from_tensors(posterior_log_probs=draws())
    assert given.has(HasPosterior)
    assert given.posterior_log_probs_of(torch.tensor([4, 0]), 2).equal(draws()[[4, 0], :2])
    assert given.n_classes == 3
    with pytest.raises(CapabilityError, match="asked for 5 posterior draws, this view was given 4"):
        given.posterior_log_probs(5)
    with pytest.raises(ConfigError, match="k must be a whole number of at least 1, got 0"):
        given.posterior_log_probs(0)


def test_how_many_posterior_draws_there_can_be():
    pool, _, _ = make_pool()
    assert make_view(pool).max_draws is None
    assert PoolView.from_tensors(posterior_log_probs=draws()).max_draws == 4
    pair = Committee([GaussianNB(), LogisticRegression()])
    assert [make_view(pool, model=model).max_draws for model in (pair, Committee(n_copies=4))] == [2, 4]
    assert len(from_name("bald").select(make_view(pool, model=pair), 3).indices) == 3
    network = torchal.TorchClassifier(epochs=1)
    view = make_view(pool, model=torchal.TorchEnsemble(network, n_members=3))
    assert view.max_draws == 3
    rows = torch.tensor([[50], [51]])
    assert view.refit(rows, torch.ones_like(rows)).max_draws == 3
    assert view.posterior_log_probs(3).shape == (60, 3, 3)


def test_posterior_draws_at_other_inputs_are_the_same_functions():
    view = make_view(make_pool()[0])
    rows = torch.tensor([50, 3, 7])
    want = view.posterior_log_probs_of(rows, 4)
    torch.testing.assert_close(view.posterior_log_probs_at(view.inputs[rows], 4), want)
    new = view.candidates.nonzero()[:3]
    trials = view.refit(new, torch.zeros_like(new))
    assert trials.posterior_log_probs_at(view.inputs[rows], 2).shape == (3, 3, 2, 3)
    with pytest.raises(ConfigError, match="k must be a whole number of at least 1, got 0"):
        view.posterior_log_probs_at(view.inputs[rows], 0)
    with pytest.raises(CapabilityError, match="posterior_log_probs_at needs a model"):
        PoolView.from_tensors(posterior_log_probs=draws()).posterior_log_probs_at(view.inputs[rows], 2)


def test_features_of_other_inputs():
    view = make_view(make_pool()[0])
    rows = torch.tensor([50, 3, 7])
    assert view.features_at(view.inputs[rows]).equal(view.features[rows])
    new = view.candidates.nonzero()[:3]
    assert view.refit(new, torch.zeros_like(new)).features_at(view.inputs[rows]).shape == (3, 3, 4)
    plain = replace(view, model=GaussianNB().fit(view.inputs[view.labeled], view.targets[view.labeled]), outputs={})
    assert plain.features_at(view.inputs[rows]).equal(view.inputs[rows])
    with pytest.raises(CapabilityError, match="features_at needs a model"):
        PoolView.from_tensors(features=torch.eye(3)).features_at(view.inputs[rows])


def test_a_model_that_draws_something_else_is_refused(monkeypatch):
    view = make_view(make_pool()[0])
    monkeypatch.setattr(NearestMean, "sample_log_probs", lambda self, x, k: self.predict_log_proba(x))
    with pytest.raises(ShapeError, match=r"must answer with \(60, 2, 3\), got \(60, 3\)"):
        view.posterior_log_probs(2)


def test_scores_of_draws_in_chunks(monkeypatch):
    view = make_view(make_pool()[0])
    asked = []

    def score(log_probs):
        asked.append(log_probs.shape)
        return log_probs.mean((1, 2))

    whole = score_draws(view, 4, score)
    monkeypatch.setattr("torchal.samplers.posterior._VALUES_HELD", 4 * 3 * 10)
    parts = score_draws(view, 4, score)
    assert asked == [(54, 4, 3), *[(10, 4, 3)] * 5, (4, 4, 3)]
    torch.testing.assert_close(parts, whole)
    assert (parts == -torch.inf).equal(~view.candidates)


def test_the_last_layer_of_a_model_and_one_that_is_given():
    pool, _, _ = make_pool()
    view = make_view(pool, model=torchal.LogisticRegression())
    weight, bias = view.last_layer
    logits = view.features.double() @ weight.T + bias
    torch.testing.assert_close(logits.log_softmax(1), view.log_probs)
    given = PoolView.from_tensors(features=view.features, last_layer=(weight.float(), bias.float()))
    assert given.last_layer.weight.equal(weight.float())
    assert given.has(HasLastLayer)
    assert given.n_classes == 3
    with pytest.raises(CapabilityError, match="last_layer needs a model; this view was made from tensors"):
        _ = PoolView.from_tensors(features=view.features).last_layer


def test_a_memory_map_whose_last_chunk_has_one_row(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((9, 3)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    targets = torch.arange(9) % 2
    monkeypatch.setattr(interop, "_ROWS_PER_CALL", 4)
    pool = Pool.unlabeled(mapped, n_classes=2).with_labels(torch.arange(6), targets[:6])
    model = LogisticRegression().fit(mapped[:6], targets[:6])
    view = pool.view(model, generator=torch.Generator())
    assert view.scores.shape == (9, 1)
    assert view.log_probs_of(torch.tensor([8])).shape == (1, 2)
    assert view.refit(torch.tensor([8]), torch.tensor([0])).scores.shape == (9, 1)


def test_data_sets_of_unequal_size_are_fitted_one_after_another():
    x, y = torch.rand(9, 2), torch.arange(9) % 2
    models = interop.fit_many(Many(), [(x, y), (x[:6], y[:6])])
    assert [type(model) for model in models] == [Many, Many]
    assert models[0] is not models[1]


@pytest.mark.parametrize(
    "sampler", ["k_center", "informative_diverse", "graph_density", "margin", "margin_cluster_mean"]
)
def test_features_and_scores_of_mapped_files(sampler, tmp_path):
    x = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
    files = []
    for name, values in (("x", x), ("y", x[:, :3])):
        np.save(tmp_path / f"{name}.npy", values.numpy())
        files.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    labeled = torch.arange(90) < 10
    mapped = PoolView.from_tensors(features=files[0], scores=files[1], labeled=labeled)
    whole = PoolView.from_tensors(features=x, scores=x[:, :3], labeled=labeled)
    picked = from_name(sampler).select(mapped, 7).indices
    assert picked.equal(from_name(sampler).select(whole, 7).indices)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"scores": "abc"}, ShapeError, "scores must be a torch.Tensor or a NumPy array, got str"),
        (
            {"scores": np.array(["a"])},
            ShapeError,
            "scores must be numbers of at most 64 bits, got an array of <U1",
        ),
        ({"scores": torch.zeros(3, 2).long()}, ShapeError, "scores must be floating point, got torch.int64"),
        (
            {"log_probs": torch.zeros(3, 2)},
            DataError,
            "of row 0 sum to 2, not to 1; logits are scores=",
        ),
        ({"log_probs": torch.full((3, 2), 0.5)}, DataError, r"of row 0 sum to 3.297, not to 1; use probs.log\(\)"),
        ({"scores": torch.zeros(3, 2), "targets": [-1, -2, 0]}, DataError, "at least -1, .*got -2"),
        ({"scores": torch.zeros(3, 2), "targets": [0.5, 1, 1]}, ShapeError, "targets must be"),
        ({"scores": torch.zeros(3, 2), "labeled": [0, 1, 0]}, ShapeError, "labeled must be a bool tensor"),
        ({"scores": torch.zeros(3, 2), "generator": 0}, ConfigError, "generator must be a torch.Generator, got int"),
        ({"scores": torch.zeros(3, 2), "features": torch.zeros(2, 2)}, ShapeError, r"must be \(2, ...\)"),
        (
            {"posterior_log_probs": torch.zeros(3, 2)},
            ShapeError,
            r"posterior_log_probs must be \(3, ...\) with three axes on cpu, got \(3, 2\)",
        ),
        (
            {"posterior_log_probs": torch.zeros(3, 2, 2)},
            DataError,
            "posterior_log_probs must be log-probabilities: .* row 0 sum to 2",
        ),
        ({"scores": torch.zeros(3, 2), "last_layer": torch.zeros(2)}, ShapeError, "last_layer must be a pair"),
        (
            {"scores": torch.zeros(3, 2), "last_layer": (torch.zeros(2, 4), torch.zeros(3))},
            ShapeError,
            r"weight \(C, D\) and bias \(C,\), got \(2, 4\) and \(3,\)",
        ),
        (
            {"features": torch.zeros(3, 2), "last_layer": (torch.zeros(2, 4), torch.zeros(2))},
            ShapeError,
            "last_layer has weights for 4 features, there are 2",
        ),
    ],
)
def test_what_a_view_is_made_from_is_looked_at(given, error, words):
    with pytest.raises(error, match=words):
        PoolView.from_tensors(**given)


def test_a_view_is_made_from_arrays_and_lists():
    scores = np.array([[0.0, 3.0], [1.0, 1.5], [2.0, 0.0]])
    view = PoolView.from_tensors(scores=scores, labeled=[False, False, True], targets=[-1, -1, 1], features=scores * 2)
    assert view.scores.tolist() == scores.tolist()
    assert view.features.tolist() == (scores * 2).tolist()
    assert Margin().select(view, 1).indices.tolist() == [1]


def test_candidates_that_all_score_the_same_are_said():
    view = PoolView.from_tensors(scores=torch.ones(4, 3), labeled=torch.tensor([True, False, False, False]))
    with pytest.warns(UserWarning, match="all 3 candidates have the same Margin score, 0: the picks are"):
        assert Margin().select(view, 2).indices.tolist() == [1, 2]
    assert len(Margin().select(view, 3).indices) == 3  # all there are: nothing is chosen, nothing said
