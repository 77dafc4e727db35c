import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView
from torchal.functional.lcmd import lcmd, max_dist
from torchal.protocols import HasProbabilities
from torchal.samplers import LCMD, KCenterGreedy, MaxDist

BOTH = pytest.mark.parametrize(("sampler", "function"), [(LCMD, lcmd), (MaxDist, max_dist)])


class OnlyPredicts:
    """A classifier without probabilities."""

    takes_tensors = True

    def fit(self, X, y):
        self.means_ = torch.stack([X[y == label].mean(0) for label in y.unique()])

    def predict(self, X):
        return torch.cdist(X, self.means_).argmin(1)


@BOTH
@pytest.mark.parametrize(("space", "bias"), [("features", False), ("gradients", False), ("gradients", True)])
def test_picks_what_the_function_picks(sampler, function, space, bias):
    view = make_view(make_pool()[0])
    more = {"log_probs": view.log_probs} if space == "gradients" else {}
    masks = {"labeled": view.labeled, "candidates": view.candidates}
    want = function(view.features, 9, bias=bias, **masks, **more)
    one = sampler(space=space, bias=bias)
    got = one.select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    assert one.report() == {"features": "embedding", "n_features": 4}


def test_by_hand():
    features = torch.tensor([[0.0], [10.0], [2.0], [2.1], [2.2], [13.0]])
    view = PoolView.from_tensors(features=features, labeled=torch.arange(6) < 2)
    assert MaxDist(space="features").select(view, 2).indices.tolist() == [5, 4]
    assert LCMD(space="features").select(view, 2).indices.tolist() == [4, 5]


def test_by_features_max_dist_is_k_center():
    view = make_view(make_pool()[0])
    assert MaxDist(space="features").select(view, 20).indices.equal(KCenterGreedy().select(view, 20).indices)


@BOTH
@pytest.mark.parametrize("space", ["features", "gradients"])
def test_never_picks_a_row_that_is_labeled_or_skipped(sampler, function, space):
    pool, _, _ = make_pool()
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    n = int(view.candidates.sum())
    picked = sampler(space=space).select(view, n).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


@BOTH
def test_only_gradients_need_probabilities(sampler, function):
    assert sampler().reads(HasProbabilities)
    assert not sampler(space="features").reads(HasProbabilities)
    pool = make_pool()[0]
    with pytest.raises(CapabilityError, match=rf"{sampler.__name__}\(space='gradients'\) needs a model with"):
        ActiveLearner(OnlyPredicts(), sampler(), pool)
    assert len(ActiveLearner(OnlyPredicts(), sampler(space="features"), pool).ask(5)) == 5
    assert len(ActiveLearner(NearestMean(), sampler(), pool).ask(5)) == 5


@BOTH
def test_warns_where_all_rows_are_alike(sampler, function):
    view = PoolView.from_tensors(features=torch.ones(4, 2), labeled=torch.arange(4) == 0)
    with pytest.warns(UserWarning, match="every candidate lies on a centre: all 2 picks .* Are the features the same"):
        assert sampler(space="features").select(view, 2).indices.tolist() == [1, 2]


@BOTH
@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"space": "inputs"}, "features, gradients, got 'inputs'"),
        ({"bias": "no"}, "bias must be true or false"),
        ({"bias": True, "space": "features"}, "bias=True is of space='gradients'"),
    ],
)
def test_refuses_unknown_settings(sampler, function, settings, match):
    with pytest.raises(ConfigError, match=match):
        sampler(**settings)
