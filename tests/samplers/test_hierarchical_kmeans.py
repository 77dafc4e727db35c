import pytest
import torch

from tests.contracts import make_pool, make_view
from torchal import ConfigError, PoolView, functional
from torchal.samplers import HierarchicalKMeans

FEATURES = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0], [9.1], [9.2]])


def test_as_many_of_each_region():
    picked = HierarchicalKMeans(sizes=(2,)).select(PoolView.from_tensors(features=FEATURES), 4)
    assert (picked.indices < 5).sum() == 2
    assert picked.scores.tolist() == [0.0] * 4


def test_labeled_rows_count():
    view = PoolView.from_tensors(features=FEATURES, labeled=torch.arange(8) < 2)
    assert (HierarchicalKMeans(sizes=(2,)).select(view, 2).indices >= 5).all()


def test_masks_and_settings_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "hierarchical_kmeans", lambda *a, **rest: calls.append((a, rest)) or "levels")
    monkeypatch.setattr(functional, "balanced_sample", lambda *a, **rest: calls.append((a, rest)))
    view = make_view(make_pool()[0])
    settings = {"resample": (4, 2), "n_resamples": 3, "max_iterations": 7}
    HierarchicalKMeans(sizes=[9, 5], **settings, within="closest", seed=8).select(view, 6)
    ((x, sizes), first), ((levels, n), second) = calls
    assert x.equal(view.features)
    assert (sizes, levels, n) == ((9, 5), "levels", 6)
    assert first.pop("generator").initial_seed() == 8
    assert first == settings | {"group": None}
    assert second.pop("generator").get_state().equal(view.generator.get_state())
    assert second.pop("labeled").equal(view.labeled)
    assert second.pop("candidates").equal(view.candidates)
    assert second == {"within": "closest"}


def test_levels_of_the_inputs_are_found_once(monkeypatch):
    calls, found = [], functional.hierarchical_kmeans
    monkeypatch.setattr(functional, "hierarchical_kmeans", lambda *a, **rest: calls.append(a[1]) or found(*a, **rest))
    pool, targets, _ = make_pool(n_labeled=0)
    cold = pool.view(None, generator=torch.Generator().manual_seed(0))
    rows = HierarchicalKMeans(sizes=(9, 3)).select(cold, 6).indices
    later = pool.with_labels(rows, targets[rows]).view(None, generator=torch.Generator().manual_seed(1))
    HierarchicalKMeans(sizes=(9, 3)).select(later, 6)
    assert calls == [(9, 3)]
    HierarchicalKMeans(sizes=(9, 3), seed=1).select(later, 6)
    HierarchicalKMeans(sizes=(9, 4)).select(later, 6)
    assert calls == [(9, 3), (9, 3), (9, 4)]
    embedded = make_view(pool.with_labels(torch.arange(6), targets[:6]))  # by a model
    for _ in range(2):
        HierarchicalKMeans(sizes=(9, 3)).select(embedded, 6)
    assert len(calls) == 5


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    picked = HierarchicalKMeans(sizes=(10, 3)).select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


@pytest.mark.parametrize(
    "settings",
    [
        {"sizes": ()},
        {"sizes": (3, 4)},
        {"resample": (2,)},
        {"n_resamples": -1},
        {"max_iterations": 0},
        {"within": "?"},
        {"seed": -1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_refuses_settings_that_make_no_sense(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        HierarchicalKMeans(**settings)
