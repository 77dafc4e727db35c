import math

import pytest
import torch

from tests.contracts import make_pool, make_view
from torchal import ConfigError, PoolView, functional
from torchal.samplers import LogDet


@pytest.mark.parametrize("kernel", ["cosine", "linear"])
def test_picks_what_the_function_picks(kernel):
    view = make_view(make_pool()[0])
    masks = {"labeled": view.labeled, "candidates": view.candidates}
    want = functional.log_det(view.features, 9, kernel=kernel, ridge=0.1, **masks)
    got = LogDet(kernel=kernel, ridge=0.1).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_by_hand():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 1.0], [0.0, 2.0]])
    view = PoolView.from_tensors(features=features, targets=torch.tensor([0, -1, -1, -1]))
    assert LogDet().select(view, 2).indices.tolist() == [1, 2]
    assert LogDet(kernel="linear").select(view, 1).indices.tolist() == [2]


@pytest.mark.parametrize("kernel", ["cosine", "linear"])
def test_reports_what_is_gained_and_what_no_batch_could_gain(kernel):
    view = make_view(make_pool()[0])
    sampler = LogDet(kernel=kernel)
    gains = sampler.select(view, 3).scores
    report = sampler.report()
    assert report["value"] == pytest.approx(float(gains.sum()))
    most = max(
        float(functional.log_det(view.features, 3, kernel=kernel, labeled=view.labeled, candidates=mask).scores.sum())
        for mask in (torch.isin(torch.arange(60), rows) for rows in view.candidates.nonzero().squeeze(1).split(3))
    )
    assert most <= report["bound"] <= report["value"] / (1 - math.exp(-1))
    low = LogDet(kernel=kernel, ridge=0.1)
    low.select(view, 3)
    assert "bound" not in low.report()  # gains may be negative


def test_no_label_is_needed():
    assert LogDet().select(PoolView.from_tensors(features=torch.eye(3)), 2).indices.tolist() == [0, 1]


def test_every_candidate_and_no_other_row():
    pool, _, _ = make_pool()
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    rows = view.candidates.nonzero().squeeze(1)
    assert LogDet().select(view, len(rows)).indices.sort().values.equal(rows)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"kernel": "rbf"}, "kernel must be one of cosine, linear"), ({"ridge": 0}, "ridge must be a finite number")],
)
def test_refuses_wrong_settings(settings, match):
    with pytest.raises(ConfigError, match=match):
        LogDet(**settings)
