from dataclasses import replace

import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, DataError, LabeledData, PoolView, functional
from torchal.samplers import Glister

LAYER = torch.tensor([[-1.0], [1.0]]), torch.zeros(2)


def picks_of(view, features, targets, n=9, learning_rate=0.1):
    return functional.glister(
        view.features,
        n,
        weight=view.last_layer.weight,
        bias=view.last_layer.bias,
        validation_features=features,
        validation_targets=targets,
        learning_rate=learning_rate,
        candidates=view.candidates,
    )


def test_the_loss_is_that_of_the_validation_part():
    pool, _, validation = make_pool()
    view = make_view(pool, validation)
    want = picks_of(view, view.model.transform(validation.inputs), validation.targets)
    got = Glister(learning_rate=0.1).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_without_one_it_is_that_of_the_labeled_rows():
    view = replace(make_view(make_pool()[0]), validation=None)
    want = picks_of(view, view.features[view.labeled], view.targets[view.labeled])
    assert Glister(learning_rate=0.1).select(view, 9).indices.equal(want.indices)


def test_by_hand():
    # the labeled row of class 0 has its loss lowered by rows that are predicted to be of class 0
    features, targets = torch.tensor([[-1.0], [0.5], [-0.5], [-0.6]]), torch.tensor([0, -1, -1, -1])
    view = PoolView.from_tensors(features=features, last_layer=LAYER, targets=targets)
    assert Glister().select(view, 3).indices.tolist()[2] == 1


def test_rows_of_unseen_classes_are_left_out():
    pool, targets, validation = make_pool(n_labeled=0)
    rows = torch.tensor([0, 2, 3, 5])  # of the classes 0 and 2
    view = make_view(pool.with_labels(rows, targets[rows]), validation)
    seen = validation.targets != 1
    want = picks_of(view, view.model.transform(validation.inputs[seen]), validation.targets[seen] // 2)
    assert Glister(learning_rate=0.1).select(view, 9).indices.equal(want.indices)
    unseen = LabeledData(validation.inputs[~seen], validation.targets[~seen])
    with pytest.raises(DataError, match="none of 7 validation rows is such a row"):
        Glister().select(make_view(pool.with_labels(rows, targets[rows]), unseen), 1)


def test_a_cold_start_is_refused():
    view = PoolView.from_tensors(features=torch.ones(6, 1), last_layer=LAYER)
    with pytest.raises(DataError, match="none of 6 rows is labeled"):
        Glister().select(view, 1)


def test_a_model_without_a_last_layer_is_refused():
    with pytest.raises(CapabilityError, match="Glister needs a model with last_layer"):
        ActiveLearner(GaussianNB(), Glister(), make_pool()[0])


def test_every_candidate_and_no_other_row():
    pool, _, _ = make_pool()
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    rows = view.candidates.nonzero().squeeze(1)
    assert Glister().select(view, len(rows)).indices.sort().values.equal(rows)


@pytest.mark.parametrize("learning_rate", [0, -1.0, True, "fast"])
def test_refuses_wrong_settings(learning_rate):
    with pytest.raises(ConfigError, match="learning_rate must be a finite number above 0"):
        Glister(learning_rate=learning_rate)
