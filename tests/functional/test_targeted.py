import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import submodular
from tests.references import targeted as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import coverage
from torchal.functional import facility_location, similar

ENGINE = coverage.Coverage.__init__.__globals__


def normal(n_rows, n_columns, seed=0):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(n_rows, rows):
    out = torch.zeros(n_rows, dtype=torch.bool)
    out[list(rows)] = True
    return out


class TestByHand:
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
    up = torch.tensor([[0.0, 2.0]])

    def test_flqmi(self):
        """Similarities with the query: 0, 0.8, 0.6, 0."""
        picks = similar(self.x, 3, measure="flqmi", query=self.up)
        assert picks.indices.tolist() == [1, 2, 0]
        assert picks.scores.tolist() == pytest.approx([1.6, 0.6, 0])
        assert picks.value == pytest.approx(2.2)
        assert similar(self.x, 1, measure="flqmi", query=self.up, strength=2.0).value == pytest.approx(2.4)

    def test_flvmi(self):
        """Row 2 with rows 1 and 2 up to their caps 0.8 and 0.6; the others have the cap 0."""
        picks = similar(self.x, 2, measure="flvmi", query=self.up)
        assert picks.indices.tolist() == [1, 0]  # of 0.96 and 1, as of 0.8 and 0.6, the caps are what counts
        assert picks.scores.tolist() == pytest.approx([1.4, 0])

    def test_flcg(self):
        picks = similar(self.x, 2, measure="flcg", private=self.up)
        assert picks.indices.tolist() == [2, 3]
        assert picks.scores.tolist() == pytest.approx([0.8 + 0.16 + 0.4, 1])
        assert picks.value == pytest.approx(2.36)
        assert picks.bound >= picks.value


pools = st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape[:2], elements=st.sampled_from([-3.0, -1.0, -0.5, 0.1, 1.0, 2.0, 2.5])),
        hnp.arrays(np.float64, shape[2:] + shape[1:2], elements=st.sampled_from([-1.0, 0.5, 1.0, 2.0])),
        hnp.arrays(np.bool_, shape[0]),
        hnp.arrays(np.float64, shape[0], elements=st.sampled_from([0.0, 0.5, 1.0])),
        st.integers(1, shape[0]),
        st.sampled_from([0.5, 1.0, 2.0]),
    )
)


@pytest.mark.parametrize("measure", ["flqmi", "flvmi", "flcg"])
@pytest.mark.parametrize("similarity", ["cosine", "rbf", "euclidean"])
@settings(max_examples=15, deadline=None)
@given(pools, st.booleans())
def test_agrees_with_the_reference_and_reaches_the_share_that_theory_grants(measure, similarity, case, held):
    features, others, may, weights, n, strength = case
    rows = np.flatnonzero(may).tolist()
    n = min(n, len(rows))
    if not n:
        return
    everything = [*features.tolist(), *others.tolist()]
    table = submodular.similarities(everything, similarity, 0.4)
    pool, given_rows = range(len(features)), range(len(features), len(everything))
    settings = {} if measure == "flqmi" else {"weights": torch.from_numpy(weights)}
    if measure == "flqmi":
        objective = reference.flqmi(table, given_rows, strength)
    else:
        objective = getattr(reference, measure)(table, pool, given_rows, strength, weights)
    want, gains = submodular.greedy(objective, n, [], rows)
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setitem(ENGINE, "values_per_chunk", lambda device: 9)
        picks = similar(
            torch.from_numpy(features),
            n,
            measure=measure,
            max_held=100 if held else 0,
            similarity=similarity,
            gamma=0.4 if similarity == "rbf" else None,
            strength=strength,
            candidates=torch.from_numpy(may),
            **{"private" if measure == "flcg" else "query": torch.from_numpy(others)},
            **settings,
        )
    assert picks.indices.tolist() == want
    assert picks.scores.tolist() == pytest.approx(gains, abs=1e-9)
    assert picks.value == pytest.approx(sum(gains), abs=1e-9)
    most = submodular.best(objective, n, [], rows)
    assert picks.value >= (1 - 1 / math.e) * most - 1e-9
    assert most <= picks.bound


def test_gains_of_rounding_alone_are_ties(monkeypatch):
    """At a right angle to the whole query, and farther than that: neither is like it."""
    monkeypatch.setitem(ENGINE, "values_per_chunk", lambda device: 9)
    x = -torch.ones(5, 3, dtype=torch.float64)
    x[3, 1] = -3
    query = torch.tensor([[-1.0, 2.0, -1.0], [0.5, 0.5, -1.0]], dtype=torch.float64)
    picks = similar(x, 1, measure="flqmi", query=query, strength=0.5, candidates=mask(5, [3, 4]), max_held=0)
    assert picks.indices.tolist() == [3]


class TestEngine:
    def test_flcg_of_strength_1_is_facility_location_with_labeled_rows(self):
        x, labeled = normal(200, 6), mask(200, range(0, 200, 20))
        want = facility_location(x, 40, labeled=labeled)
        got = similar(x, 40, measure="flcg", private=x[labeled], labeled=labeled)
        assert got.indices.equal(want.indices)

    def test_flqmi_of_many_rows_without_a_matrix(self, monkeypatch):
        x, query = normal(300, 6), normal(40, 6, seed=1)
        want = similar(x, 50, measure="flqmi", query=query)
        monkeypatch.setitem(ENGINE, "values_per_chunk", lambda device: 300)
        got = similar(x, 50, measure="flqmi", query=query, chunk_rows=17, max_held=0)
        assert got.indices.equal(want.indices)
        assert got.scores.tolist() == pytest.approx(want.scores.tolist())


class TestEdges:
    @pytest.mark.parametrize("measure", ["flqmi", "flvmi", "flcg"])
    def test_all_candidates_equal_rows_and_one_row(self, measure):
        name = "private" if measure == "flcg" else "query"
        x = normal(30, 3)
        picks = similar(x, 30, measure=measure, **{name: x[:2]})
        assert picks.indices.sort().values.tolist() == list(range(30))
        assert similar(torch.ones(5, 2), 3, measure=measure, **{name: torch.ones(2, 2)}).indices.tolist() == [0, 1, 2]
        assert similar(x[:1], 1, measure=measure, **{name: x[3:4]}).indices.tolist() == [0]

    def test_half_precision(self):
        x = normal(40, 3).half()
        want = similar(x.float(), 5, measure="flqmi", query=x[:3].float())
        assert similar(x, 5, measure="flqmi", query=x[:3]).indices.equal(want.indices)


@pytest.mark.parametrize("measure", ["flqmi", "flvmi", "flcg"])
def test_a_row_of_zeros_is_like_nothing(measure):
    x, query = normal(30, 3), normal(4, 3, seed=1)
    name = "private" if measure == "flcg" else "query"
    zeros = torch.zeros(1, 3)
    want = similar(x, 8, measure=measure, **{name: query})
    got = similar(torch.cat([zeros, x]), 8, measure=measure, **{name: torch.cat([query, zeros])})
    assert got.indices.equal(want.indices + 1)
    assert got.value == pytest.approx(want.value)


class TestRefuses:
    x = normal(6, 2)

    def test_sets_that_do_not_fit_the_measure(self):
        with pytest.raises(ConfigError, match="measure must be one of flqmi, flvmi, flcg, got 'gcmi'"):
            similar(self.x, 1, measure="gcmi", query=self.x)
        with pytest.raises(ConfigError, match="flqmi needs a query set, got none"):
            similar(self.x, 1, measure="flqmi")
        with pytest.raises(ConfigError, match="flcg needs a private set, got none"):
            similar(self.x, 1, measure="flcg", query=self.x)
        with pytest.raises(ConfigError, match="flvmi has no use for a private set"):
            similar(self.x, 1, measure="flvmi", query=self.x, private=self.x)
        with pytest.raises(ConfigError, match="flqmi covers the query alone"):
            similar(self.x, 1, measure="flqmi", query=self.x, weights=torch.ones(6))

    def test_numbers(self):
        with pytest.raises(BudgetError, match="asked for 7 rows, 6 can be picked"):
            similar(self.x, 7, measure="flqmi", query=self.x)
        with pytest.raises(ConfigError, match="strength must be a finite number above 0"):
            similar(self.x, 1, measure="flqmi", query=self.x, strength=0.0)
        with pytest.raises(ShapeError, match="query must have 2 columns on cpu"):
            similar(self.x, 1, measure="flqmi", query=self.x[:, :1])
        with pytest.raises(ShapeError, match="query must have 2 axes"):
            similar(self.x, 1, measure="flqmi", query=self.x[0])
        with pytest.raises(DataError, match="query has no rows"):
            similar(self.x, 1, measure="flqmi", query=self.x[:0])
        with pytest.raises(DataError, match="private must be finite"):
            similar(self.x, 1, measure="flcg", private=self.x * math.nan)


@pytest.mark.gpu
@pytest.mark.parametrize("measure", ["flqmi", "flvmi", "flcg"])
def test_the_same_picks_on_a_gpu(measure):
    x, others = normal(500, 6), normal(20, 6, seed=1)
    name = "private" if measure == "flcg" else "query"
    want = similar(x, 40, measure=measure, **{name: others})
    assert similar(x.cuda(), 40, measure=measure, **{name: others.cuda()}).indices.tolist() == want.indices.tolist()
