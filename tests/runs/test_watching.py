import math

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    Pool,
    PoolView,
    Schedule,
    SparseInputs,
    Trainer,
    rounds,
)
from torchal.runs.results import find_runs
from torchal.runs.watching import batch_uncertainty, cover_radius, mean_distance, mean_of_asks, redundancy
from torchal.samplers import Entropy, KCenterGreedy, Margin, TypiClust, Uniform

EVERYTHING = ("kappa", "uncertainty", "redundancy", "cover_radius", "batch_uncertainty")


def blobs(n=90):
    """Return rows in three groups far from each other, and their labels."""
    labels = torch.arange(n) % 3
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])[labels] + noise, labels


def make(sampler, *watch, model=None, n=90, **settings):
    inputs, labels = blobs(n)
    learner = ActiveLearner(model or NearestMean(), sampler, Pool.unlabeled(inputs, n_classes=3), **settings)
    learner.watch(*watch)
    return learner, lambda rows: labels[rows]


def nearest_mean(inputs, labels):
    model = NearestMean()
    model.fit(inputs, labels)
    return model


def generator():
    return torch.Generator().manual_seed(0)


class TestMeanDistance:
    @given(
        rows=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 1)), min_size=2, max_size=8),
        shift=st.sampled_from([0, 1000]),
    )
    def test_agrees_with_the_loop(self, rows, shift):
        pairs = [math.dist(a, b) for i, a in enumerate(rows) for b in rows[:i]]
        found = mean_distance(torch.tensor(rows, dtype=torch.float32) + shift)
        assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)

    def test_in_blocks_of_columns(self, monkeypatch):
        x = torch.randn(20, 30, generator=generator())
        whole = mean_distance(x)
        monkeypatch.setattr("torchal.runs.watching.values_per_chunk", lambda device: 100)
        assert mean_distance(x) == pytest.approx(whole, rel=1e-12)


class TestRedundancy:
    def test_by_hand(self):
        x = torch.tensor([[0.0], [1.0], [4.0]])
        view = PoolView.from_tensors(features=x)
        # 4 against the mean of 1, 4 and 3
        assert redundancy(view, torch.tensor([0, 2]), generator()) == pytest.approx(4 / (8 / 3))

    def test_copies_are_wholly_redundant(self):
        x = torch.tensor([[0.1], [0.1], [0.1], [5.0]])
        assert redundancy(PoolView.from_tensors(features=x), torch.tensor([0, 1, 2]), generator()) == 0

    def test_candidates_only_are_what_it_is_compared_with(self):
        x = torch.tensor([[0.0], [1.0], [3.0], [100.0]])
        view = PoolView.from_tensors(features=x, labeled=torch.tensor([False, False, False, True]))
        assert redundancy(view, torch.tensor([0, 1]), generator()) == pytest.approx(1 / 2)

    def test_where_it_is_not_defined(self):
        view = PoolView.from_tensors(features=torch.ones(4, 2))
        assert redundancy(view, torch.tensor([0]), generator()) is None
        assert redundancy(view, torch.tensor([0, 1]), generator()) is None

    def test_of_many_rows_some_are_measured(self):
        x = torch.randn(5000, 3, generator=generator())
        view = PoolView.from_tensors(features=x)
        assert redundancy(view, torch.arange(4000), generator()) == pytest.approx(1, abs=0.05)


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    x = torch.randn(3000, 8, generator=generator())
    labeled = torch.arange(3000) < 40
    here = PoolView.from_tensors(features=x, labeled=labeled)
    there = PoolView.from_tensors(features=x.cuda(), labeled=labeled.cuda())
    rows = torch.arange(100, 900)
    assert redundancy(there, rows.cuda(), generator()) == pytest.approx(redundancy(here, rows, generator()), rel=1e-6)
    assert cover_radius(there) == pytest.approx(cover_radius(here), rel=1e-4)


def test_cover_radius_by_hand():
    x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    labeled = torch.tensor([True, False, False, True])
    assert cover_radius(PoolView.from_tensors(features=x, labeled=labeled)) == 4


def test_batch_uncertainty_by_hand():
    model = LogisticRegression().fit([[0.0], [1.0], [2.0]], [0, 1, 1])
    x = torch.tensor([[0.0], [0.7], [2.0]])
    expected = 1 - model.predict_proba(x[[1, 2]].numpy()).max(1)
    assert batch_uncertainty(model, x, torch.tensor([1, 2])) == pytest.approx(expected.mean())


def test_batches_weigh_as_much_as_they_have_rows():
    asks = [
        {"rows": [1, 2, 3], "watched": {"redundancy": 0.5}},
        {"rows": [4], "watched": {"redundancy": 1.0, "batch_uncertainty": 0.2}},
        {"rows": [5]},  # of a state of an earlier version
    ]
    assert mean_of_asks(asks) == {"redundancy": 0.625, "batch_uncertainty": 0.2}


class TestLearner:
    def test_the_record_has_what_is_watched(self):
        learner, oracle = make(KCenterGreedy(), *EVERYTHING)
        start, first, _ = rounds(learner, oracle, Schedule(batch_size=5, max_rounds=2), start=6)
        assert start.pool.keys() == {"uncertainty", "cover_radius"}  # no sampler picked it, and no round was before
        assert first.pool.keys() == set(EVERYTHING)
        assert first.seconds["watch"] > 0

    def test_values_are_those_of_the_models_and_rows_of_their_round(self):
        learner, oracle = make(Entropy(), "redundancy", "cover_radius", "batch_uncertainty")
        inputs = learner.pool.inputs
        start, first = rounds(learner, oracle, Schedule(batch_size=5, max_rounds=1), start=6)
        everything = torch.cat([start.rows, first.rows])
        before, after = (nearest_mean(inputs[rows], oracle(rows)) for rows in (start.rows, everything))
        uncertain = 1 - before.predict_proba(inputs[first.rows]).max(1).values
        assert first.pool["batch_uncertainty"] == pytest.approx(float(uncertain.mean()), rel=1e-5)
        x, chosen = before.transform(inputs), first.rows
        candidates = torch.ones(len(x), dtype=torch.bool).index_fill(0, start.rows, False)
        expected = mean_distance(x[chosen]) / mean_distance(x[candidates])
        assert first.pool["redundancy"] == pytest.approx(expected, rel=1e-5)
        x = after.transform(inputs)
        nearest = torch.cdist(x, x[learner.pool.labeled]).amin(1)
        assert first.pool["cover_radius"] == pytest.approx(float(nearest.max()), rel=1e-4)

    def test_a_diverse_batch_is_less_redundant_than_a_dense_one(self):
        found, x = [], torch.randn(300, 2, generator=generator())
        for sampler in (KCenterGreedy(), Uniform(), Margin()):
            learner = ActiveLearner(LogisticRegression(), sampler, Pool.unlabeled(x, n_classes=2))
            learner.watch("redundancy")
            schedule = Schedule(batch_size=40, max_rounds=1)
            found.append(list(rounds(learner, lambda rows: (x[rows, 0] > 0).long(), schedule, start=20))[1])
        spread, chance, dense = (result.pool["redundancy"] for result in found)
        assert spread > chance > dense

    def test_it_changes_no_pick_and_no_score(self):
        kept = []
        for watch in ((), EVERYTHING):
            learner, oracle = make(Uniform(), *watch)
            results = list(rounds(learner, oracle, Schedule(batch_size=5, max_rounds=3), start=6))
            kept.append([(result.rows.tolist(), result.scores.tolist()) for result in results[1:]])
        assert kept[0] == kept[1]

    def test_names_add_up(self):
        learner, oracle = make(Uniform(), "redundancy")
        learner.watch("cover_radius")
        schedule = Schedule(batch_size=5, max_rounds=1, stable_kappa=1.0)
        assert list(rounds(learner, oracle, schedule, start=6))[1].pool.keys() == {
            "redundancy",
            "cover_radius",
            "kappa",
        }

    def test_a_batch_without_a_model_has_no_uncertainty(self):
        learner, oracle = make(TypiClust(), *EVERYTHING)
        results = list(rounds(learner, oracle, Schedule(batch_size=6, max_rounds=2), start=0))
        assert results[0].pool.keys() == {"redundancy", "uncertainty", "cover_radius"}
        assert results[1].pool.keys() == set(EVERYTHING)

    def test_labels_that_come_in_parts_and_on_another_day(self, tmp_path):
        whole, oracle = make(Margin(), *EVERYTHING)
        part, _ = make(Margin(), *EVERYTHING)
        for learner in (whole, part):
            learner.tell(torch.arange(6), oracle(torch.arange(6)))
            learner.finish_round()
        rows = whole.ask(4)
        whole.tell(rows, oracle(rows))
        part.ask(4)
        part.tell(rows[:1], oracle(rows[:1]))
        part.save(tmp_path / "saved.pt")
        rest, _ = make(Margin(), *EVERYTHING)
        rest.load(tmp_path / "saved.pt")
        rest.tell(rows[1:], oracle(rows[1:]))
        assert rest.finish_round().pool == whole.finish_round().pool

    def test_a_select_model_is_the_one_whose_features_count(self):
        learner, oracle = make(Margin(), "redundancy", "batch_uncertainty", select_model=LogisticRegression())
        _, first = rounds(learner, oracle, Schedule(batch_size=5, max_rounds=1), start=6)
        x, chosen = learner.pool.inputs, first.rows
        start = learner.history[0].rows
        candidates = torch.ones(len(x), dtype=torch.bool).index_fill(0, start, False)
        assert first.pool["redundancy"] == pytest.approx(mean_distance(x[chosen]) / mean_distance(x[candidates]))
        model = nearest_mean(x[start], oracle(start))
        uncertain = 1 - model.predict_proba(x[chosen]).max(1).values
        assert first.pool["batch_uncertainty"] == pytest.approx(float(uncertain.mean()), rel=1e-5)

    def test_refuses_what_cannot_be_watched(self):
        learner, _ = make(Margin())
        with pytest.raises(ConfigError, match=r"what can be watched is kappa, .*; got 'diversity'"):
            learner.watch("redundancy", "diversity")
        learner, _ = make(Uniform(), model=LinearSVC())
        with pytest.raises(CapabilityError, match="the uncertainty of a batch"):
            learner.watch("batch_uncertainty")
        words = SparseInputs(scipy.sparse.csr_array(np.eye(6)))
        learner = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(words, n_classes=2))
        with pytest.raises(CapabilityError, match=r"redundancy and cover_radius .* LogisticRegression has no"):
            learner.watch("redundancy", "cover_radius")
        learner = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(torch.arange(9)[:, None], n_classes=2))
        with pytest.raises(CapabilityError, match="are of distances"):
            learner.watch("redundancy")


class TestTrainer:
    def trainer(self, folder, **settings):
        schedule = Schedule(batch_size=5, max_rounds=2)
        return Trainer(NearestMean(), Margin(), schedule=schedule, run_dir=folder, progress=False, **settings)

    def test_it_is_in_the_folder(self, tmp_path):
        inputs, labels = blobs()
        pool = Pool.unlabeled(inputs, n_classes=3)
        self.trainer(tmp_path / "run", watch=("redundancy", "cover_radius")).fit(
            pool, lambda rows: labels[rows], start=6
        )
        (run,) = find_runs(tmp_path)
        assert run.config["watch"] == ["cover_radius", "redundancy"]
        assert run.rounds[0].pool.keys() == {"cover_radius"}
        assert all(result.pool.keys() == {"cover_radius", "redundancy"} for result in run.rounds[1:])

    def test_nothing_is_written_where_it_cannot_be(self, tmp_path):
        inputs, labels = blobs()
        with pytest.raises(ConfigError, match="got 'colour'"):
            self.trainer(tmp_path / "run", watch=["colour"]).fit(
                Pool.unlabeled(inputs, n_classes=3), lambda rows: labels[rows], start=6
            )
        assert not (tmp_path / "run").exists()
