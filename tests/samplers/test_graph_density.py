import copy

import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, DataError, PoolView, Schedule, rounds
from torchal.functional import density, density_graph, graph_density, graph_density_greedy, subtract_picks
from torchal.pool.pool import Pool
from torchal.samplers import GraphDensity


@pytest.fixture
def graphs(monkeypatch):
    """Count how often a graph is made."""
    made = []
    make = density.density_graph
    monkeypatch.setattr(density, "density_graph", lambda *a, **k: (made.append(1), make(*a, **k))[1])
    return made


def test_picks_what_the_functions_pick_and_goes_on_with_what_was_bought(graphs):
    pool, targets, _ = make_pool()
    graph = density_graph(pool.inputs)
    graphs.clear()
    values = graph_density(graph)
    learner = ActiveLearner(NearestMean(), GraphDensity(), pool)
    for _ in range(4):
        want = graph_density_greedy(graph, 6, values=values, candidates=learner.pool.candidates)
        rows = learner.ask(6)
        assert rows.equal(want.indices)
        learner.tell(rows[:4], targets[rows[:4]])  # the last two are never labeled
        learner.cannot_label(rows[4:5])
        learner.withdraw()
        result = learner.finish_round()
        assert result.report["features"] == "inputs"
        values = subtract_picks(graph, values, rows[:4])
    assert len(graphs) == 1


def test_start_rows_and_rows_of_others_take_nothing_off():
    pool, targets, _ = make_pool()
    sampler = GraphDensity()
    learner = ActiveLearner(NearestMean(), sampler, pool)
    others = pool.candidates.nonzero().squeeze(1)[:5]
    learner.tell(others, targets[others])
    learner.finish_round()
    assert sampler.state_dict()["bought"] == []
    graph = density_graph(pool.inputs)
    assert learner.ask(3).equal(graph_density_greedy(graph, 3, candidates=learner.pool.candidates).indices)


@pytest.mark.parametrize("before_the_round_is_finished", [True, False])
def test_goes_on_after_a_restart(before_the_round_is_finished, tmp_path):
    pool, targets, _ = make_pool()

    def run(learner, n_rounds):
        return [r.rows.tolist() for r in rounds(learner, lambda rows: targets[rows], Schedule(5, max_rounds=n_rounds))]

    want = run(ActiveLearner(NearestMean(), GraphDensity(), pool), 5)
    learner = ActiveLearner(NearestMean(), GraphDensity(), pool)
    done = run(learner, 2)
    if before_the_round_is_finished:
        rows = learner.ask(5)
        learner.tell(rows, targets[rows])
    learner.save(tmp_path / "learner.pt")
    again = ActiveLearner(NearestMean(), GraphDensity(), pool)
    again.load(tmp_path / "learner.pt")
    assert done + run(again, 5) == want


def test_the_graph_is_of_the_inputs_whatever_the_model():
    pool, _, _ = make_pool()
    rows = GraphDensity().select(make_view(pool), 5).indices
    assert rows.equal(graph_density_greedy(density_graph(pool.inputs), 5, candidates=pool.candidates).indices)
    given = PoolView.from_tensors(features=pool.inputs, labeled=pool.labeled)
    assert GraphDensity().select(given, 5).indices.equal(rows)
    with pytest.raises(CapabilityError, match="features needs a model; this view was made from tensors and has scores"):
        GraphDensity().select(PoolView.from_tensors(scores=torch.rand(20, 3)), 1)


def test_images_of_bytes_make_one_graph(graphs):
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pool = Pool.unlabeled(images, n_classes=2)
    sampler = GraphDensity()

    class Even:
        def fit(self, X, y):
            pass

        def predict(self, X):
            return X.reshape(len(X), -1)[:, 0] % 2

    for _ in range(2):
        view = pool.view(Even(), generator=torch.Generator())
        assert sampler.select(view, 3).indices.equal(
            graph_density_greedy(density_graph(images.flatten(1).float()), 3).indices
        )
    assert len(graphs) == 1 + 0


def test_a_copy_in_the_middle_of_a_run_goes_on():
    pool, targets, _ = make_pool()
    sampler = GraphDensity()
    learner = ActiveLearner(NearestMean(), sampler, pool)
    list(rounds(learner, lambda rows: targets[rows], Schedule(5, max_rounds=2)))
    view = make_view(learner.pool)
    want = sampler.select(view, 5).indices
    assert copy.deepcopy(sampler).select(view, 5).indices.equal(want)


def test_inputs_that_were_changed_make_a_new_graph(graphs):
    pool, _, _ = make_pool()
    sampler = GraphDensity()
    sampler.select(make_view(pool), 3)
    pool.inputs[0] += 1
    sampler.select(make_view(pool), 3)
    assert len(graphs) == 2


def test_refuses_the_pool_of_another_run():
    pool, targets, _ = make_pool()
    sampler = GraphDensity()
    learner = ActiveLearner(NearestMean(), sampler, pool)
    list(rounds(learner, lambda rows: targets[rows], Schedule(5, max_rounds=2)))
    with pytest.raises(DataError, match="has picked 10 rows of a pool of 60; this pool has 70"):
        sampler.select(make_view(make_pool(n_rows=70)[0]), 1)
    with pytest.raises(DataError, match="Use a new sampler for each pool"):
        sampler.select(make_view(pool), 1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_neighbors": 0}, "n_neighbors must be a whole number of at least 1, got 0"),
        ({"backend": "annoy"}, "auto, faiss, torch, got 'annoy'"),
    ],
)
def test_refuses_unknown_settings(settings, match):
    with pytest.raises(ConfigError, match=match):
        GraphDensity(**settings)


def test_refuses_a_pool_smaller_than_its_neighbourhoods():
    view = PoolView.from_tensors(features=torch.rand(10, 2))
    with pytest.raises(ConfigError, match="10 neighbours of each row need at least 11 rows, features has 10"):
        GraphDensity().select(view, 1)
