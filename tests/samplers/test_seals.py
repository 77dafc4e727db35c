import copy
import pickle

import pytest
import torch

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from torchal import ConfigError, PoolView, Sampler, functional
from torchal.samplers import ClassBalanced, GraphDensity, Hierarchical, Margin, Mixture, Seals, Uniform, seals


class TestNested(SamplerContract):
    """Around what has state, in a wrapper that narrows the candidates too."""

    @pytest.fixture
    def sampler(self):
        return ClassBalanced(Seals(Mixture([GraphDensity(), Hierarchical(), Uniform()]), k=4))


class Shown(Sampler):
    def select(self, view, n):
        self.candidates = view.candidates.nonzero().squeeze(1).tolist()
        return Uniform().select(view, n)


LINE = torch.tensor([[0.0], [1.0], [2.5], [4.5], [7.0], [10.0], [14.0]])


def view_of(rows, x=LINE, candidates=None):
    labeled = torch.zeros(len(x), dtype=torch.bool)
    labeled[rows] = True
    return PoolView.from_tensors(features=x, labeled=labeled, candidates=candidates)


@pytest.mark.parametrize(
    ("labeled", "k", "near"),
    [
        ([0], 1, [1]),
        ([0], 2, [1, 2]),
        ([0, 6], 1, [1, 5]),
        ([0, 1], 1, [2]),  # each is the other's neighbour; so k is doubled
        ([3], 100, [0, 1, 2, 4, 5, 6]),
        ([], 1, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_candidates_are_the_neighbours_of_what_is_labeled(labeled, k, near):
    inner = Shown()
    sampler = Seals(inner, k=k)
    assert len(sampler.select(view_of(labeled), 1).indices) == 1
    assert inner.candidates == near
    assert sampler.report()["n_near"] == len(near)


def test_where_too_few_are_near_more_neighbours_count():
    inner = Shown()
    sampler = Seals(inner, k=1)
    sampler.select(view_of([0]), 3)
    assert inner.candidates == [1, 2, 3, 4]
    assert sampler.report()["k"] == 4
    assert sorted(sampler.select(view_of([0]), 6).indices.tolist()) == [1, 2, 3, 4, 5, 6]
    sampler.select(view_of([0]), 1)
    assert inner.candidates == [1]  # and the widened ones are forgotten


def test_neighbours_that_are_no_candidates_are_not_shown():
    inner = Shown()
    candidates = torch.tensor([False, False, True, True, True, True, True])
    Seals(inner, k=2).select(view_of([0], candidates=candidates), 1)
    assert inner.candidates == [2]


@pytest.fixture
def searches(monkeypatch):
    """Note of how many rows the neighbours were looked for."""
    found = []

    def counted(features, k, *, rows, metric):
        found.append(len(rows))
        return functional.neighbors_of(features, k, rows=rows, metric=metric)

    monkeypatch.setattr(seals, "neighbors_of", counted)
    return found


def test_only_new_labels_are_searched_for_while_the_features_stay(searches):
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    inner, fresh = Shown(), Shown()
    sampler = Seals(inner, k=5)
    for labeled in ([3], [3, 4], [3, 4, 5, 6], [3, 4, 5, 6]):
        sampler.select(view_of(labeled, x), 2)
        Seals(fresh, k=5).select(view_of(labeled, x), 2)
        assert inner.candidates == fresh.candidates
    assert searches == [1, 1, 1, 2, 2, 4, 4]
    x[7] += 1
    sampler.select(view_of([3, 4], x), 2)
    assert searches[-1] == 2
    sampler.select(view_of([9], x), 2)  # another run
    assert searches[-1] == 1


def test_an_embedding_is_searched_anew(searches):
    pool, _, _ = make_pool()
    sampler = Seals(Margin(), k=3)
    view = make_view(pool)
    picked = sampler.select(view, 4).indices
    assert sampler.select(view, 4).indices.equal(picked)
    assert searches == [6, 6]


def test_a_copy_finds_the_neighbours_again_and_does_not_carry_the_pool():
    x = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    view = view_of([3, 4], x)
    sampler = Seals(Uniform(), k=5)
    want = sampler.select(view, 5).indices
    assert len(pickle.dumps(sampler)) < 3000
    assert copy.deepcopy(sampler).select(view, 5).indices.equal(want)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"metric": "l2"}, "metric must be one of"),
        ({"sampler": NearestMean()}, "sampler must be a Sampler object"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Seals(**settings)
