import math

import pytest
import torch

from tests.contracts import make_pool, make_view
from torchal import ConfigError, PoolView, functional
from torchal.samplers import GraphCut


@pytest.mark.parametrize("redundancy", [0.5, "balanced"])
@pytest.mark.parametrize("similarity", ["cosine", "shifted_cosine"])
def test_picks_what_the_function_picks(redundancy, similarity):
    view = make_view(make_pool()[0])
    chosen = {"redundancy": redundancy, "similarity": similarity}
    want = functional.graph_cut(view.features, 9, labeled=view.labeled, candidates=view.candidates, **chosen)
    got = GraphCut(**chosen).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_by_hand():
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, -1.0]])
    view = PoolView.from_tensors(features=features, targets=torch.tensor([0, -1, -1, -1]))
    assert GraphCut(redundancy=0).select(view, 1).indices.tolist() == [1]
    assert GraphCut(redundancy=2).select(view, 2).indices.tolist() == [2, 3]


def test_reports_what_is_gained_and_what_no_batch_could_gain():
    view = make_view(make_pool()[0])
    sampler = GraphCut(redundancy=0.5)
    gains = sampler.select(view, 3).scores
    assert sampler.report()["value"] == pytest.approx(float(gains.sum()))
    pools = (torch.isin(torch.arange(60), rows) for rows in view.candidates.nonzero().squeeze(1).split(3))
    settings = {"redundancy": 0.5, "labeled": view.labeled}
    most = max(float(functional.graph_cut(view.features, 3, candidates=p, **settings).scores.sum()) for p in pools)
    assert most <= sampler.report()["bound"] <= sampler.report()["value"] / (1 - math.exp(-1))
    for others in ({}, {"redundancy": 0.6}, {"redundancy": 0.5, "similarity": "cosine"}):
        unsure = GraphCut(**others)
        unsure.select(view, 3)
        assert unsure.report().keys() == {"features", "value"}


def test_no_label_is_needed():
    assert GraphCut().select(PoolView.from_tensors(features=torch.eye(3)), 2).indices.tolist() == [0, 1]


def test_every_candidate_and_no_other_row():
    pool, _, _ = make_pool()
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    rows = view.candidates.nonzero().squeeze(1)
    assert GraphCut().select(view, len(rows)).indices.sort().values.equal(rows)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"redundancy": -1}, "redundancy must be 'balanced' or"), ({"similarity": "l2"}, "similarity must be one of")],
)
def test_refuses_wrong_settings(settings, match):
    with pytest.raises(ConfigError, match=match):
        GraphCut(**settings)
