import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, Schedule, rounds
from torchal.functional.badge import badge
from torchal.samplers import Badge


class Plain(NearestMean):
    """A model without an embedding."""

    @property
    def transform(self):
        raise AttributeError("transform")

    def __sklearn_clone__(self):
        return Plain(self.sharpness)


class NoProbabilities(NearestMean):
    @property
    def predict_proba(self):
        raise AttributeError("predict_proba")


@pytest.mark.parametrize("first", ["largest", "uniform"])
@pytest.mark.parametrize("bias", [False, True])
def test_draws_what_the_function_draws(first, bias):
    view = make_view(make_pool()[0])
    settings = {"first": first, "bias": bias}
    want = badge(view.log_probs, view.features, 9, generator=view.generator, candidates=view.candidates, **settings)
    got = Badge(**settings).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_by_hand():
    # with a bias the first row has the larger gradient, without it the second
    log_probs = torch.tensor([[0.5, 0.5], [0.7, 0.3], [0.9, 0.1]]).log()
    view = PoolView.from_tensors(features=torch.tensor([[1.0], [2.0], [1.0]]), log_probs=log_probs)
    assert Badge().select(view, 1).indices.tolist() == [1]
    assert Badge(bias=True).select(view, 1).indices.tolist() == [0]
    assert sorted(Badge().select(view, 3).indices.tolist()) == [0, 1, 2]


def test_never_picks_a_row_that_is_labeled_or_skipped():
    pool, _, _ = make_pool()
    skipped = pool.candidates.nonzero().squeeze(1)[::2]
    view = make_view(pool.without(skipped))
    n = int(view.candidates.sum())
    assert Badge().select(view, n).indices.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_classes_without_a_label_have_no_column():
    pool = make_pool(n_labeled=0)[0].with_labels(torch.tensor([0, 1]), torch.tensor([0, 1]))
    view = make_view(pool)
    assert view.log_probs.shape[1] == 2
    assert len(Badge().select(view, 5).indices.unique()) == 5


def test_the_embedding_is_taken_where_there_is_one_and_the_record_says_which():
    pool, targets, _ = make_pool()
    assert Badge().report() == {}
    for model, source in ((NearestMean(), "embedding"), (Plain(), "inputs")):
        learner = ActiveLearner(model, Badge(), pool)
        *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=5, max_rounds=2))
        assert last.report == {"features": source, "n_features": 4}


def test_a_model_without_probabilities_is_refused():
    with pytest.raises(CapabilityError, match="Badge needs a model with predict_proba; NoProbabilities has none"):
        ActiveLearner(NoProbabilities(), Badge(), make_pool()[0])


def test_a_model_that_is_sure_of_every_row_is_warned_of():
    view = PoolView.from_tensors(features=torch.ones(6, 2), log_probs=torch.eye(2)[torch.arange(6) % 2].log())
    with pytest.warns(UserWarning, match="the gradient of every candidate is 0: all 3 picks are as good as any"):
        assert len(Badge().select(view, 3).indices.unique()) == 3


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"first": "drawn"}, "first must be one of largest, uniform, got 'drawn'"),
        ({"bias": "no"}, "bias must be true or false, got 'no'"),
    ],
)
def test_refuses_wrong_settings(settings, match):
    with pytest.raises(ConfigError, match=match):
        Badge(**settings)
