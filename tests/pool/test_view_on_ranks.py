"""The view of a rank: its own rows of a pool, and what all ranks count together."""

import numpy as np
import pytest
import torch

from tests.ranks import run_ranks
from torchal import ConfigError, DataError, FileRows, Pool, PoolView, ShapeError
from torchal.errors import GroupError
from torchal.protocols import HasEmbedding, HasProbabilities, provides


class Network:
    """A model that gives features and logits in one pass, and counts the passes."""

    takes_tensors = takes_inputs = True
    classes_ = torch.tensor([0, 2])

    def __init__(self):
        self.passes = []

    def fit(self, X, y):
        return self

    def predict(self, X):
        raise AssertionError

    def predict_proba(self, X):
        raise AssertionError

    def transform(self, X):
        raise AssertionError

    def outputs(self, X, *, most_features):
        self.passes.append((len(X), most_features))
        features = X[:, :3] * 2
        keep = most_features is None or features.numel() <= most_features
        return features if keep else None, X[:, :2]


ROWS = [slice(0, 10), slice(10, 10), slice(10, 40)]


def view_of(folder, model):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    np.save(folder / "x.npy", x.numpy())
    pool = Pool.unlabeled(FileRows(folder / "x.npy"), n_classes=3).with_labels([3, 20, 39], [0, 2, 0])
    return x, pool.view(model, generator=torch.Generator().manual_seed(1))


def test_masks_and_outputs_are_of_its_own_rows(tmp_path):
    x, whole = view_of(tmp_path, Network())
    assert provides(whole.model, HasEmbedding)
    assert provides(whole.model, HasProbabilities)

    def look(group):
        model = Network()
        one = PoolView(**{**vars(whole), "model": model, "outputs": {}})
        view = one.of_rank(group, ROWS[group.rank], one.inputs[ROWS[group.rank]])
        log_probs = view.log_probs
        assert "features" not in view.outputs  # nobody has asked, and other ranks might have no room for theirs
        assert {most for _, most in model.passes} == {0}
        features = view.features
        assert view.log_probs is log_probs
        assert view.generator.get_state().equal(whole.generator.get_state())
        assert view.classes.tolist() == [0, 2]
        return view, log_probs, features, view.n_candidates, view.rows_where(view.labeled), view.total(len(view))

    views, log_probs, features, *counts = zip(*run_ranks(3, look), strict=True)
    assert torch.cat(features).equal(x[:, :3] * 2)
    torch.testing.assert_close(torch.cat(log_probs), x[:, :2].log_softmax(1))
    assert [len(view) for view in views] == [10, 0, 30]
    assert torch.cat([view.targets for view in views]).equal(whole.targets)
    assert counts[0] == (37,) * 3
    assert [rows.tolist() for rows in counts[1]] == [[3, 20, 39]] * 3
    assert counts[2] == (40,) * 3
    assert (whole.n_candidates, whole.rows_where(whole.labeled).tolist()) == (37, [3, 20, 39])


def test_views_of_tensors_agree_on_the_classes():
    targets = torch.tensor([-1, 0, -1, 1, 4, -1])
    cuts = [slice(0, 3), slice(3, 3), slice(3, 6)]
    views = run_ranks(3, lambda group: PoolView.from_tensors(targets=targets[cuts[group.rank]], group=group))
    assert [view.n_classes for view in views] == [5, 5, 5]
    assert [len(view) for view in views] == [3, 0, 3]
    (alone,) = run_ranks(1, lambda group: PoolView.from_tensors(targets=targets, group=group))
    assert alone.group is None


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"scores": 3}, {"scores": 2}, "rank 0 for scores of shape=['N', 3]; rank 1 for scores of shape=['N', 2]"),
        ({"scores": 3}, {"log_probs": 3}, "rank 0 for scores of shape=['N', 3]; rank 1 for log_probs of shape="),
        ({"features": 3, "scores": 3}, {"features": 3}, "rank 0 for scores of shape=['N', 3]; rank 1 for nothing"),
    ],
)
def test_outputs_that_only_some_ranks_have_are_refused(first, second, told):
    def look(group):
        given = {name: torch.zeros(4, n).log_softmax(1) for name, n in (second if group.rank else first).items()}
        return PoolView.from_tensors(**given, group=group)

    for error in run_ranks(2, look):
        assert isinstance(error, ConfigError)
        assert told in str(error)


def test_tensors_that_are_wrong_on_one_rank_are_told_to_all():
    probs = torch.full((4, 2), 0.5)

    def look(group):
        return PoolView.from_tensors(log_probs=probs if group.rank else probs.log(), group=group)

    first, second = run_ranks(2, look)
    assert isinstance(first, GroupError)
    assert "rank 1 failed with DataError: log_probs must be log-probabilities" in str(first)
    assert isinstance(second, DataError)
    for error in run_ranks(2, lambda group: PoolView.from_tensors(log_probs=probs[:0].log(), group=group)):
        assert "has no rows on any of 2 ranks" in str(error)
    with pytest.raises(ShapeError, match="at least one row, got none"):
        PoolView.from_tensors(log_probs=probs[:0].log())
