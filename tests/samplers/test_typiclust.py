import pytest
import torch

from tests.contracts import make_pool, make_view
from torchal import ConfigError, PoolView, functional
from torchal.samplers import TypiClust

# Two clusters, of four rows and of three; the rows 2 and 5 are the most typical.
FEATURES = torch.tensor([[0.0], [1.0], [1.1], [1.3], [8.0], [8.2], [8.3]])
SAMPLER = TypiClust(min_cluster_size=3, n_neighbors=2)


def test_the_largest_cluster_first_and_no_label_needed():
    picked = SAMPLER.select(PoolView.from_tensors(features=FEATURES), 2)
    assert picked.indices.tolist() == [2, 5]
    assert picked.scores.tolist() == pytest.approx([1 / 0.15, 1 / 0.15], rel=1e-4)


def test_a_cluster_with_a_label_is_covered():
    labeled = torch.arange(7) == 1
    assert SAMPLER.select(PoolView.from_tensors(features=FEATURES, labeled=labeled), 1).indices.tolist() == [5]


def test_masks_and_settings_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "typiclust", lambda x, n, **rest: calls.append((x, n, rest)))
    view = make_view(make_pool()[0])
    settings = {"max_clusters": 7, "min_cluster_size": 2, "n_neighbors": 3, "max_iterations": 4}
    TypiClust(**settings).select(view, 6)
    x, n, rest = calls[0]
    assert x.equal(view.features)
    assert n == 6
    assert rest.pop("labeled").equal(view.labeled)
    assert rest.pop("candidates").equal(view.candidates)
    assert rest.pop("generator").initial_seed() == view.generator.initial_seed()
    assert rest == settings | {"group": None}


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    picked = TypiClust().select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


@pytest.mark.parametrize("name", ["max_clusters", "min_cluster_size", "n_neighbors", "max_iterations"])
def test_refuses_settings_that_make_no_sense(name):
    with pytest.raises(ConfigError, match=f"{name} must be a whole number of at least 1"):
        TypiClust(**{name: 0})
