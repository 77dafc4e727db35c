import copy

import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, DataError, PoolView, Schedule, functional, rounds
from torchal.samplers import ClusterMargin, Margin

SETTINGS = {"mean_size": 4.0, "oversampling": 2.0}


@pytest.fixture
def clusterings(monkeypatch):
    """Count how often rows are clustered, and say of how many columns."""
    made = []
    make = functional.hac_clusters
    monkeypatch.setattr(functional, "hac_clusters", lambda x, **k: (made.append(x), make(x, **k))[1])
    return made


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_smallest_cluster_first():
    features = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1]])
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 5.0])
    view = PoolView.from_tensors(features=features, scores=scores)
    sampler = ClusterMargin(oversampling=2.0, mean_size=2.5)
    rows = sampler.select(view, 2).indices.tolist()
    assert rows[0] == 3  # alone among the four rows of smallest margin
    assert rows[1] in {0, 1, 2}
    assert sampler.report() == {"n_clusters": 2}


def test_settings_are_passed_on(monkeypatch):
    calls = []
    pick = functional.cluster_margin
    monkeypatch.setattr(functional, "cluster_margin", lambda *a, **k: (calls.append((a, k)), pick(*a, **k))[1])
    view = make_view(make_pool()[0])
    sampler = ClusterMargin(metric="cosine", max_rows=20, seed=3, on="probabilities", **SETTINGS)
    sampler.select(view, 5)
    (scores, clusters, n), rest = calls[0]
    assert scores.equal(Margin("probabilities").score(view))
    want = functional.hac_clusters(view.features, mean_size=4.0, metric="cosine", max_rows=20, generator=seeded(3))
    assert clusters.equal(want)
    assert n == 5
    assert rest.pop("candidates").equal(view.candidates)
    assert rest.pop("generator").initial_seed() == view.generator.initial_seed()
    assert rest == {"oversampling": 2.0}


def run(learner, targets, n_rounds):
    return [r.rows.tolist() for r in rounds(learner, lambda rows: targets[rows], Schedule(5, max_rounds=n_rounds))]


class Drifting(NearestMean):
    """Its embedding is another one after every fit."""

    def __sklearn_clone__(self):
        return Drifting(self.sharpness)

    def transform(self, X):
        return X * self.means_.mean(0)


def test_the_first_clusters_are_kept_unless_asked_for_new_ones(clusterings):
    pool, targets, _ = make_pool()
    sampler = ClusterMargin(**SETTINGS)
    run(ActiveLearner(Drifting(), sampler, pool), targets, 4)
    assert len(clusterings) == 1
    clusterings.clear()
    run(ActiveLearner(Drifting(), ClusterMargin(recluster=True, **SETTINGS), pool), targets, 4)
    assert len(clusterings) == 4
    assert not clusterings[0].equal(clusterings[1])


@pytest.mark.parametrize("recluster", [False, True])
def test_clusters_of_the_inputs_are_made_once_for_all_samplers(recluster, clusterings):
    pool, targets, _ = make_pool()
    for _ in range(2):
        run(ActiveLearner(GaussianNB(), ClusterMargin(recluster=recluster, **SETTINGS), pool), targets, 3)
    assert len(clusterings) == 1
    assert clusterings[0].equal(pool.inputs)


def test_what_is_only_looked_at_is_not_kept(clusterings):
    pool, targets, _ = make_pool()
    sampler = ClusterMargin(**SETTINGS)
    view, other = make_view(pool), make_view(pool.with_labels(*some_labels(pool, targets)), model=Drifting())
    first = sampler.select(view, 5)
    with pytest.warns(UserWarning, match="ClusterMargin learns .* not told of 3 of"):
        sampler.select(other, 5)
    assert sampler.select(view, 5).indices.equal(first.indices)
    assert len(clusterings) == 2  # the first ones are still known, as long as their features are there


def some_labels(pool, targets):
    rows = pool.candidates.nonzero().squeeze(1)[:3]
    return rows, targets[rows]


@pytest.mark.parametrize("before_the_round_is_finished", [True, False])
def test_goes_on_after_a_restart(before_the_round_is_finished, tmp_path):
    pool, targets, _ = make_pool()
    want = run(ActiveLearner(Drifting(), ClusterMargin(**SETTINGS), pool), targets, 5)
    learner = ActiveLearner(Drifting(), ClusterMargin(**SETTINGS), pool)
    done = run(learner, targets, 2)
    if before_the_round_is_finished:
        rows = learner.ask(5)
        learner.tell(rows, targets[rows])
    learner.save(tmp_path / "learner.pt")
    again = ActiveLearner(Drifting(), ClusterMargin(**SETTINGS), pool)
    again.load(tmp_path / "learner.pt")
    assert done + run(again, targets, 5) == want


def test_goes_on_after_a_restart_in_the_first_round(tmp_path):
    pool, targets, _ = make_pool()
    want = run(ActiveLearner(Drifting(), ClusterMargin(**SETTINGS), pool), targets, 3)
    learner = ActiveLearner(Drifting(), ClusterMargin(**SETTINGS), pool)
    rows = learner.ask(5)
    learner.save(tmp_path / "learner.pt")
    again = ActiveLearner(Drifting(), ClusterMargin(**SETTINGS), pool)
    again.load(tmp_path / "learner.pt")
    again.tell(rows, targets[rows])
    again.finish_round()
    assert run(again, targets, 3)[-2:] == want[-2:]


def test_a_copy_goes_on_and_another_pool_has_other_clusters(clusterings):
    pool, targets, _ = make_pool()
    sampler = ClusterMargin(**SETTINGS)
    learner = ActiveLearner(Drifting(), sampler, pool)
    run(learner, targets, 2)
    view = make_view(learner.pool, model=Drifting())
    assert copy.deepcopy(sampler).select(view, 5).indices.equal(sampler.select(view, 5).indices)
    assert len(clusterings) == 1
    for other in (make_pool(n_rows=70)[0], make_pool(seed=1)[0]):
        rows = sampler.select(make_view(other), 5).indices
        assert rows.equal(ClusterMargin(**SETTINGS).select(make_view(other), 5).indices)


def embedded(targets, seed):
    """Return a view as one makes it in a loop of one's own, of the embedding of a new model."""
    x = torch.randn(len(targets), 3, generator=seeded(seed))
    scores = torch.randn(len(targets), 3, generator=seeded(seed + 1))
    return PoolView.from_tensors(features=x, scores=scores, targets=targets.clone())


def bought(sampler, targets, n_rounds, seed=0):
    """Return the labels after some rounds in which a sampler is told of its picks."""
    for step in range(n_rounds):
        picks = sampler.select(embedded(targets, seed + step), 3)
        targets = targets.index_fill(0, picks.indices, 1)
        sampler.tell(picks, targets[picks.indices])
    return targets


START = torch.full((40,), -1).index_fill_(0, torch.tensor([3, 11]), 0)


@pytest.mark.parametrize("again", [copy.deepcopy, "load"])
def test_in_a_loop_of_one_s_own_the_first_clusters_are_kept_too(clusterings, again):
    sampler = ClusterMargin(**SETTINGS)
    targets = bought(sampler, START, 3)
    assert len(clusterings) == 1
    if again == "load":
        other = ClusterMargin(**SETTINGS)
        other.load_state_dict(sampler.state_dict())
    else:
        other = again(sampler)
    targets = bought(other, targets, 2, seed=50)
    assert len(clusterings) == 1
    other.select(embedded(START, 7), 3)  # what was bought is not labeled there
    other.select(embedded(targets[:-1], 8), 3)
    assert len(clusterings) == 3


def test_says_when_it_was_not_told(clusterings):
    view = embedded(START, 0)
    for recluster in (False, True):
        sampler = ClusterMargin(recluster=recluster, **SETTINGS)
        picks = sampler.select(view, 3).indices
        view = embedded(START.index_fill(0, picks, 1), 1)
        if recluster:  # each round has its own clusters: there is nothing to be told
            sampler.select(view, 3)
            continue
        with pytest.warns(UserWarning, match="ClusterMargin learns .* not told of 3 of 5 labeled rows"):
            sampler.select(view, 3)
        view = embedded(START, 0)


def test_after_a_restart_it_knows_its_pool_and_its_settings():
    pool, targets, _ = make_pool()
    sampler = ClusterMargin(**SETTINGS)
    learner = ActiveLearner(Drifting(), sampler, pool)
    run(learner, targets, 3)
    again = ClusterMargin(**SETTINGS)
    again.load_state_dict(sampler.state_dict())
    view, other = make_view(learner.pool, model=Drifting()), make_view(make_pool(seed=1)[0])
    assert again.select(view, 5).indices.equal(sampler.select(view, 5).indices)
    assert again.select(other, 5).indices.equal(ClusterMargin(**SETTINGS).select(other, 5).indices)
    with pytest.raises(DataError, match=r"made with {'mean_size': 4.0, .*}, this sampler has {'mean_size': 5.0, "):
        ClusterMargin(mean_size=5.0, oversampling=2.0).load_state_dict(sampler.state_dict())


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    picked = ClusterMargin().select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"oversampling": 0.5}, "oversampling must be a finite number of at least 1"),
        ({"mean_size": 0}, "mean_size must be a finite number of at least 1"),
        ({"metric": "manhattan"}, "euclidean, cosine, got 'manhattan'"),
        ({"max_rows": 1}, "max_rows must be a whole number of at least 2"),
        ({"recluster": "no"}, "recluster must be true or false"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"on": "labels"}, "on must be one of auto"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, match):
    with pytest.raises(ConfigError, match=match):
        ClusterMargin(**settings)


def test_refuses_a_model_that_is_never_unsure():
    class Sure:
        def fit(self, X, y):
            pass

        def predict(self, X):
            return X[:, 0]

    with pytest.raises(CapabilityError, match="needs a model with"):
        ActiveLearner(Sure(), ClusterMargin(), make_pool()[0])
