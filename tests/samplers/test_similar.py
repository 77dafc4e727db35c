import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ConfigError, PoolView
from torchal.functional import facility_location, similar
from torchal.samplers import Similar


def view_of(targets, candidates=None):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(targets), 3, generator=generator)
    return PoolView.from_tensors(features=features, targets=torch.tensor(targets), candidates=candidates)


LABELS = [0, 1, 0, 2, 2, 0, 1] + [-1] * 30


@pytest.mark.parametrize("measure", ["flqmi", "flvmi", "flcg"])
def test_settings_are_passed_on(measure):
    view = view_of(LABELS)
    rows = torch.tensor([1, 3, 4, 6])
    name = "private" if measure == "flcg" else "query"
    weights = {} if measure == "flqmi" else {"weights": (~view.labeled).float()}
    kernel = {"strength": 1.5, "similarity": "rbf", "gamma": 0.4}
    want = similar(
        view.features, 9, measure=measure, labeled=view.labeled, **{name: view.features[rows]}, **weights, **kernel
    )
    sampler = Similar(measure=measure, classes=[2, 1], **kernel)
    got = sampler.select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    report = {"features": "given", "classes": [2, 1], "n_rows": 4, "value": want.value, "bound": want.bound}
    assert sampler.report() == report


def test_the_class_with_the_fewest_labels_unless_given_and_for_flcg_all():
    view = view_of(LABELS)
    sampler = Similar()
    sampler.select(view, 2)
    assert sampler.report()["classes"] == [1]  # two labels, as class 2
    assert sampler.report()["n_rows"] == 2
    sampler = Similar(measure="flcg")
    sampler.select(view, 2)
    assert sampler.report()["classes"] == [0, 1, 2]


def test_more_rows_of_a_rare_class_are_found():
    pool, targets, _ = make_pool(n_rows=60, n_labeled=6)
    view = make_view(pool)
    picked = (
        Similar(classes=[2], similarity="rbf", gamma=0.1)
        .select(PoolView.from_tensors(features=view.inputs, targets=view.targets), 10)
        .indices
    )
    assert (targets[picked] == 2).float().mean() >= 0.9


@pytest.mark.parametrize("measure", ["flqmi", "flvmi", "flcg"])
def test_without_a_row_of_the_classes_the_pool_is_covered(measure):
    for labels in (LABELS, [-1] * 20):
        view = view_of(labels)
        want = facility_location(view.features, 6, labeled=view.labeled)
        sampler = Similar(measure=measure, classes=[5])
        assert sampler.select(view, 6).indices.equal(want.indices)
        assert sampler.report()["n_rows"] == 0
    assert Similar(measure=measure).select(view, 6).indices.equal(want.indices)  # no label at all


def test_only_candidates_and_all_of_them():
    candidates = torch.arange(len(LABELS)) % 2 == 1
    candidates[:7] = False
    view = view_of(LABELS, candidates)
    picked = Similar().select(view, int(candidates.sum())).indices
    assert picked.sort().values.equal(candidates.nonzero().squeeze(1))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"measure": "gcmi"}, "measure must be one of flqmi, flvmi, flcg, got 'gcmi'"),
        ({"classes": []}, "classes must be a list of at least one class"),
        ({"classes": 3}, "classes must be a list of at least one class, got 3"),
        ({"classes": [1.5]}, "a class must be a whole number of at least 0"),
        ({"strength": 0}, "strength must be a finite number above 0"),
        ({"gamma": 1.0}, "gamma is of 'rbf'"),
        ({"max_held": 0.5}, "max_held must be a whole number of at least 0"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, match):
    with pytest.raises(ConfigError, match=match):
        Similar(**settings)


def test_any_model_will_do():
    Similar().check_model(NearestMean())
    Similar().check_model(object())
